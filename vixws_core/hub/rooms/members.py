"""Members: who is in a room, and where each one's cursor starts (PROTOCOL §3).

A room is a log, a member is a cursor in it; only `RoomAdvanced` moves a room.
"""

from __future__ import annotations

from ...codes import BAD_MESSAGE, DENIED
from ...effects import FindPosition, Joined, Left
from ...errors import BadRoom, TooManyRooms
from ...inputs import EntryRedacted, Join, Leave, LeaveAll, PositionKnown, StoreFailed
from ...names import check_name, matches
from ...wire import envelope as wire
from ...wire.frames import TEXT, encode_frame
from ..asks import Asks, CursorAsked
from ..connection.outbox import Outbox, grouped
from ..model import SENDABLE, Member, Room, Session
from ..step import Step
from .cursors import Cursors
from .pages import Pages, is_current
from .unstored import Unstored

__all__ = ["Members", "start_of"]


class Members:
    """Lets sessions into rooms, places their cursors, and lets them out."""

    __slots__ = ("_asks", "_cursors", "_outbox", "_pages", "_step", "_unstored")

    def __init__(
        self, step: Step, outbox: Outbox, unstored: Unstored, asks: Asks, pages: Pages, cursors: Cursors
    ) -> None:
        self._step = step
        self._outbox = outbox
        self._unstored = unstored
        self._asks = asks
        self._pages = pages
        self._cursors = cursors

    def is_stored(self, name: str) -> bool:
        """Whether messages of the room are stored: all are, but for the configured patterns."""
        patterns = self._step.config.unstored_rooms
        return not any(matches(pattern, name) for pattern in patterns) if patterns else True

    # ---- joining ----------------------------------------------------------------------------------

    def join_asked(self, input: Join) -> None:
        """An application's join. Raises: `BadRoom`, for another user's room too: names may come from a client."""
        name = check_name(input.room)
        connection = self._step.connections.get(input.conn)
        if connection is None or connection.session is None or connection.state not in SENDABLE:
            return
        session = connection.session
        if name[0] == "@" and (session.identity is None or not session.identity.owns(name)):
            raise BadRoom(f"room {name!r:.60} is for that user only")
        if session.memberships and name in session.memberships and input.since is None and not input.last:
            return
        self.join(session, input, None, session.hello)

    def join(self, session: Session, ask: Join, ref: str | None, told: bool) -> None:
        """Makes a session a member, or gives a member a new cursor.

        Raises: `TooManyRooms`.
        """
        memberships = session.memberships
        if memberships is None:
            memberships = session.memberships = {}
        old = memberships.get(ask.room)
        if old is None and len(memberships) >= self._step.config.rooms_max:
            raise TooManyRooms(f"a connection may be in {self._step.config.rooms_max} rooms (rooms_max)")
        room = self._step.rooms.get(ask.room)
        if room is None:
            room = self._step.rooms[ask.room] = Room(ask.room, self.is_stored(ask.room))
        if old is not None:
            self._detach(old)
        member = Member(session, room, ask, ref, told)
        memberships[ask.room] = member
        self._cursors.attach(member)
        if old is None:
            self._step.out.append(Joined(session.connection.id, room.name))
        if not room.stored:
            member.asking = False
            self._tell_joined(member, {"stored": False})
            self._cursors.make_live(member)
        elif not self._place_at_once(member):
            room.asking += 1
            self._find_position(member)

    def _place_at_once(self, member: Member) -> bool:
        """Places a newcomer at the head of a room that is known; what a position is worth only the log can tell."""
        room = member.room
        if not room.known or room.floor < 0 or member.since is not None or member.last:
            return False
        if room.pos and not room.pos_id:
            return False
        self._place(member, room.pos, room.pos_id, "fresh", room.pos)
        return True

    def _find_position(self, member: Member) -> None:
        room = member.room
        member.open_ask = self._asks.put(CursorAsked(member, room.ep, room.pos, room.changes))
        off, last = (None, member.last) if member.since is None else (member.since.off, 0)
        self._step.out.append(FindPosition(member.open_ask, room.name, off, last))

    def position_known(self, asked: CursorAsked, input: PositionKnown) -> None:
        """Places the member that asked."""
        member = asked.member
        member.open_ask = 0
        if not is_current(member) or member.held:
            return  # Asked again where it may stay.
        room, since = member.room, member.since
        if not self._cursors.hear(room, asked, input):
            self._find_position(member)  # The room heard of a new log meanwhile: the answer may be the old one's.
            return
        if since is not None and since.ep == room.ep and input.head < since.off <= room.pos:
            self._find_position(member)  # The room moved past the answer: only a new one can tell about this offset.
            return
        room.asking -= 1
        self._pages.well(room)
        head = max(input.head, room.pos)
        start, reason = start_of(member, input, head)
        self._place(member, start, _id_at(member, input, start), reason, head)

    def _place(self, member: Member, cursor: int, cursor_id: str, reason: str | None, head: int) -> None:
        """Tells the member where it stands, and sets it going."""
        room = member.room
        member.asking = False
        payload: dict[str, object] = {
            "ep": room.ep,
            "from": cursor,
            "id": cursor_id,
            "head": head,
            "floor": room.floor,
            "recovered": reason is None,
            "stored": True,
        }
        if reason is not None:
            payload["reason"] = reason
        self._tell_joined(member, payload)
        self._cursors.begin(member, cursor, cursor_id, head)

    def _tell_joined(self, member: Member, payload: dict[str, object]) -> None:
        if member.told:
            self._outbox.answer(member.connection, wire.answer("$joined", member.ref, member.room.name, payload))
            member.ref = None

    def position_failed(self, asked: CursorAsked, input: StoreFailed) -> None:
        """A position could not be had: refused to the client that asked, or asked again later."""
        member = asked.member
        member.open_ask = 0
        if not is_current(member):
            return
        if member.ref is not None:
            self._refuse(member, input.code, wire.store_error(input.code, input.message))
            self.leave(member.session, member.room.name)
        else:
            self._pages.rest(member.room)
            self._pages.rests(member.room, member.session)

    def retry(self, session: Session) -> None:
        """Asks again what could not be read."""
        self._pages.retried(session)
        for member in tuple((session.memberships or {}).values()):
            if member.asking and not (member.open_ask or member.held or self._pages.rests(member.room, session)):
                self._find_position(member)
        self._cursors.catch_up(session)

    # ---- leaving ----------------------------------------------------------------------------------

    def leave_asked(self, input: Leave) -> None:
        """The application takes a session out of a room."""
        connection = self._step.connections.get(input.conn)
        if connection is not None and connection.session is not None:
            self.leave(connection.session, input.room)

    def leave_all_asked(self, input: LeaveAll) -> None:
        """The application takes a session out of all its rooms."""
        connection = self._step.connections.get(input.conn)
        if connection is not None and connection.session is not None:
            self.leave_all(connection.session)

    def leave(self, session: Session, name: str) -> bool:
        """Ends a membership; False where there is none."""
        member = session.memberships.pop(name, None) if session.memberships is not None else None
        if member is None:
            return False
        self._detach(member)
        self._unstored.forget(session, name)
        room = member.room
        if not room.members:
            del self._step.rooms[name]
            self._cursors.forget(room)
        self._step.out.append(Left(session.connection.id, name))
        return True

    def leave_all(self, session: Session) -> None:
        """Ends every membership of a session, in the order of joining."""
        for name in tuple(session.memberships or ()):
            self.leave(session, name)

    def _detach(self, member: Member) -> None:
        self._cursors.detach(member)
        if member.asking:
            member.room.asking -= 1
            self._refuse(member, BAD_MESSAGE, "the room was left or joined again before this join was answered")

    def owes_answers(self, session: Session) -> bool:
        """Whether a join of a session is not answered yet."""
        return any(member.ref is not None for member in (session.memberships or {}).values())

    # ---- taken back -------------------------------------------------------------------------------

    def redacted(self, input: EntryRedacted) -> None:
        """An entry was taken back: nothing of it is kept here, and whoever was sent it is told."""
        self._asks.redacted(input)
        room = self._step.rooms.get(input.room)
        if room is None:
            return
        self._cursors.forget(room)  # The room's newest frames, for it may be one of them; the store has the others.
        for member in tuple(room.members.values()):
            if (
                member.told
                and not (member.held or member.asking)
                and (room.pos if member.live else member.cursor) >= input.off
            ):
                payload = {"off": input.off, "id": input.id}
                self._outbox.answer(member.connection, wire.answer("$redacted", None, room.name, payload))

    # ---- whether it may stay --------------------------------------------------------------------

    def hold(self, member: Member) -> None:
        """Whether it may stay is asked: nothing of the room is sent to it meanwhile."""
        self._cursors.hold(member)

    def release(self, member: Member) -> None:
        """It may stay."""
        self._cursors.release(member)
        if member.asking and not member.open_ask:
            self._find_position(member)

    def kick(self, member: Member, code: str) -> None:
        """It may not stay: the last that the client hears of the room (PROTOCOL §10)."""
        member.ref, ref = None, member.ref
        self.leave(member.session, member.room.name)
        if ref is not None:
            self._outbox.answer(member.connection, wire.error(DENIED, "not granted any more", ref))
        if member.told:
            self._outbox.answer(member.connection, wire.answer("$kicked", None, member.room.name, {"code": code}))

    def _refuse(self, member: Member, code: str, message: str) -> None:
        """Answers a client's join that comes to nothing: every ref gets its one final answer (PROTOCOL §11)."""
        if member.ref is not None:
            self._outbox.answer(member.connection, wire.error(code, message, member.ref, member.room.name))
            member.ref = None

    # ---- messages that are not stored -----------------------------------------------------------

    def broadcast_unstored(self, name: str, text: bytes) -> None:
        """Sends a message that no log keeps to the members who are live, or whose position is still being asked."""
        room = self._step.rooms.get(name)
        if room is None:
            return
        targets = self._cursors.targets(room)
        if room.asking:
            connections = [one for _, group, _ in targets for one in group]
            connections += [
                m.connection for m in room.members.values() if m.asking and not (m.connection.parked or m.held)
            ]
            targets = grouped(connections)
        frame = encode_frame(TEXT, text)
        for codec, live, ids in targets:
            self._outbox.share(live, ids, codec.share(frame), 1)
        if self._step.parked:
            self._cursors.take_out_parked()
        if not room.stored and sum([len(ids) for _, _, ids in targets]) < len(room.members):
            reached = {id for _, _, ids in targets for id in ids}
            for member in room.members.values():
                if member.connection.parked and member.connection.id not in reached and not member.held:
                    self._unstored.dropped(member)


def start_of(member: Member, input: PositionKnown, head: int) -> tuple[int, str | None]:
    """Where a cursor starts, and why it did not recover (PROTOCOL §3's table)."""
    since = member.since
    if since is None:
        # So many before the head of the answer, whose id it has; the room may have moved past it.
        return max(input.floor, input.head - member.last) if member.last else head, "fresh"
    if since.ep != input.ep:
        return head, "epoch"
    if since.off < input.floor:
        return (input.floor if member.from_floor else head), "trimmed"
    if since.off > head:
        return head, "ahead"
    if since.id is not None and since.off and since.off <= input.head and input.id_at != since.id:
        return head, "fork"
    return since.off, None


def _id_at(member: Member, input: PositionKnown, off: int) -> str:
    """The id of the entry where a cursor starts."""
    room, since = member.room, member.since
    asked = max(input.floor, input.head - member.last) if since is None else since.off
    known = ((room.pos, room.pos_id), (input.head, input.id), (asked, input.id_at), (input.floor, input.floor_id))
    for at, id in known:
        if at == off and off and id:
            return id
    return ""
