"""Rooms that are not stored: what a parked member missed of them, counted and told."""

from __future__ import annotations

from ...wire import envelope as wire
from ..connection.outbox import Outbox
from ..model import Member, Session

__all__ = ["Unstored"]


class Unstored:
    """Counts messages that went by a session while it took nothing (PROTOCOL §5: never silence)."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def dropped(self, member: Member) -> None:
        """A message of the room did not go to this member."""
        session, name = member.session, member.room.name
        if session.dropped is None:
            session.dropped = {}
        session.dropped[name] = session.dropped.get(name, 0) + 1

    def forget(self, session: Session, name: str) -> None:
        """A room was left: what was dropped of it is not told any more."""
        if session.dropped is not None:
            session.dropped.pop(name, None)

    def tell(self, session: Session) -> None:
        """Tells a session that takes messages again what it missed, room by room."""
        dropped, session.dropped = session.dropped or {}, None
        for name, member in (session.memberships or {}).items():
            if member.told and name in dropped:
                text = wire.answer("$gap", room=name, payload={"dropped": dropped[name]})
                self._outbox.answer(session.connection, text)
