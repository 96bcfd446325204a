"""Pages of a room's log: what readers behind the tail ask the store for, each page once for all who want it."""

from __future__ import annotations

from ...effects import ReadStore
from ..asks import Asks, PageAsked
from ..connection.timers import Timers
from ..model import FAR, Member, Session
from ..step import Step

__all__ = ["Pages", "is_current"]


def is_current(member: Member) -> bool:
    """Whether a membership was neither ended nor replaced."""
    memberships = member.session.memberships
    return memberships is not None and memberships.get(member.room.name) is member


class Pages:
    """Asks for pages. A session waits for one at a time."""

    __slots__ = ("_asks", "_shared", "_step", "_timers")

    def __init__(self, step: Step, timers: Timers, asks: Asks) -> None:
        self._step = step
        self._timers = timers
        self._asks = asks
        self._shared: dict[tuple[str, int, int, int], PageAsked] = {}
        """Pages on their way, by what is read: room, of which log, after which offset, how many bytes."""

    def ask(self, member: Member) -> None:
        """Reads the next page for a member; the same page that another one waits for is asked for once."""
        config, connection, room = self._step.config, member.connection, member.room
        member.session.page_pending = True
        size = min(config.page_bytes_max, config.unsent_bytes_low - connection.unsent)
        size = max(1, size - size % 16_384)  # In steps, so that readers who hold about the same share a read.
        key = (room.name, room.changes, member.cursor, size)
        page = self._shared.get(key)
        if page is not None:
            page.members.append(member)
            return
        page = self._shared[key] = PageAsked(key, room.pos, [member])
        request = self._asks.put(page)
        self._step.out.append(ReadStore(request, room.name, member.cursor, room.pos, config.page_rows_max, size))

    def answered(self, asked: PageAsked) -> list[Member]:
        """A page came, or could not be read: returns who asked for it, and waits no more."""
        self._shared.pop(asked.key, None)
        for member in asked.members:
            member.session.page_pending = False
        return asked.members

    def retry_later(self, session: Session) -> None:
        """Sees to it that what this session could not read is asked again."""
        when = self._step.now + self._step.config.store_retry_s
        session.retry_at = min(session.retry_at, when)
        self._timers.arm(session.connection, when)

    @staticmethod
    def retried(session: Session) -> None:
        """The time has come: a failed read may be asked again."""
        session.retry_at = FAR
