"""Cursors: how what is new reaches the live members, and how the others read on (PROTOCOL §3, §5).

Members whose cursor is at the room's position are live and share one tuple of targets; every other member
is behind and reads on, from the room's tail or from the store, as fast as its connection takes it.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from ...inputs import BytesFlushed, PositionKnown, RoomAdvanced, StoreRead
from ...message import StoredMessage
from ...wire import envelope as wire
from ...wire.frames import TEXT, encode_frame
from ..asks import CursorAsked, PageAsked
from ..connection.outbox import Outbox, grouped
from ..model import FAR, GONE, Member, Room, Session, Target
from ..step import Step
from .pages import Pages
from .tail import Tails
from .unstored import Unstored

__all__ = ["Cursors"]

_FRAME = itemgetter(1)
_GROUP_BYTES = 65_536
"""Frames of one commit are broadcast in groups of about this many bytes, so that a mark is passed by one group only."""


class Cursors:
    """Moves rooms and the cursors in them."""

    __slots__ = ("_outbox", "_pages", "_step", "_tails", "_unstored")

    def __init__(self, step: Step, outbox: Outbox, unstored: Unstored, pages: Pages) -> None:
        self._step = step
        self._outbox = outbox
        self._unstored = unstored
        self._pages = pages
        self._tails = Tails(step.config.tail_bytes_room, step.config.tail_bytes_total)

    @property
    def tail_bytes(self) -> int:
        """Bytes held by the tails of all rooms."""
        return self._tails.size

    def take_out_parked(self) -> None:
        """Takes connections that passed their mark out of the live targets; their cursors stay where they are.

        They are a fact of the outbox, which knows no rooms; no room moves before it is taken.
        """
        parked = self._step.parked
        for connection in parked:
            session = connection.session
            for member in (session.memberships or {}).values() if session is not None else ():
                if member.live and member.room.stored:
                    self._stop_live(member)
                elif member.live:
                    member.room.targets = None
        parked.clear()

    def forget(self, room: Room) -> None:
        """Lets go of what is kept for a room that has no members any more."""
        self._tails.clear(room.tail)

    # ---- the log moves --------------------------------------------------------------------------

    def advanced(self, input: RoomAdvanced) -> None:
        """Brings new entries to the live members, in one group of shared bytes at a time."""
        if self._step.parked:
            self.take_out_parked()
        room = self._step.rooms.get(input.room)
        if room is None or not room.stored:
            return
        if not room.known:
            # A first position is being asked for; its answer may be older than this.
            room.known, room.ep = True, input.ep
            room.pos = input.entries[0].off - 1 if input.entries else input.head
        elif input.ep != room.ep:
            start = input.entries[0].off - 1 if input.entries else input.head
            self.change_log(room, input.ep, start, 0, "epoch")
            room.floor = -1  # Only the log itself can tell the next one who joins.
        if input.head <= room.pos:
            return
        fresh = [row for row in input.entries if row.off > room.pos]
        if not fresh or fresh[0].off != room.pos + 1:
            self._skip_to(room, fresh[0].off - 1 if fresh else input.head)
        self._bring(room, fresh)
        self._wake(room)

    def _bring(self, room: Room, rows: list[StoredMessage]) -> None:
        group, size = list[bytes](), 0
        for row in rows:
            frame = encode_frame(TEXT, wire.stored_message(row))
            self._tails.add(room.tail, row.off, row.id, frame)
            group.append(frame)
            size += len(frame)
            room.pos = row.off
            if size >= _GROUP_BYTES:
                self._broadcast(room, group)
                group, size = [], 0
        if group:
            self._broadcast(room, group)

    def _broadcast(self, room: Room, frames: list[bytes]) -> None:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        for codec, connections, ids in self.targets(room):
            self._outbox.share(connections, ids, codec.share(data), len(frames))
        if self._step.parked:
            self.take_out_parked()

    def targets(self, room: Room) -> tuple[Target, ...]:
        """Who gets what is new, by kind of connection: tuples that stay the same objects while they do."""
        if self._step.parked:
            self.take_out_parked()
        targets = room.targets
        if targets is None:
            live = [m.connection for m in room.members.values() if m.live and not m.connection.parked]
            targets = room.targets = grouped(live)
        return targets

    def _skip_to(self, room: Room, pos: int) -> None:
        """Entries up to `pos` did not come by: the live members read them."""
        for member in room.members.values():
            if member.live:
                self._stop_live(member)
                room.waiting[member.connection.id] = member
        room.pos = pos
        self._tails.clear(room.tail)

    def _stop_live(self, member: Member) -> None:
        member.live = False
        member.room.targets = None
        member.cursor = member.room.pos
        self._queue_up(member)

    @staticmethod
    def _queue_up(member: Member) -> None:
        """Puts a member among those of its session that read on, in turn."""
        session = member.session
        if session.catching_up is None:
            session.catching_up = deque()
        session.catching_up.append(member)

    def _wake(self, room: Room) -> None:
        """Lets those members read on who waited for the room to reach or pass their cursor."""
        if room.waiting:
            waiting, room.waiting = room.waiting, {}
            for member in waiting.values():
                self.catch_up(member.session)

    def change_log(self, room: Room, ep: str, start: int, floor: int, reason: str) -> None:
        """The log under the room is another one: everybody is told and starts anew."""
        self._tails.clear(room.tail)
        room.ep, room.pos, room.floor = ep, start, floor
        for member in tuple(room.members.values()):
            if member.asking:
                continue
            member.cursor = start
            member.announced_head = -1
            if not (member.live or member.held):
                room.waiting[member.connection.id] = member
            self._tell_reset(member, reason)

    def _tell_reset(self, member: Member, reason: str) -> None:
        if member.held:
            member.owed_reset = reason
        elif member.told:
            room = member.room
            payload = {"ep": room.ep, "from": member.cursor, "head": room.pos, "floor": room.floor, "reason": reason}
            self._outbox.answer(member.connection, wire.answer("$reset", room=room.name, payload=payload))

    def hear(self, room: Room, asked: CursorAsked, input: PositionKnown) -> bool:
        """Takes the log's own word on where a room stands; False where it may be an older log's."""
        if not room.known:
            room.known, room.ep, room.pos = True, input.ep, input.head
        elif room.ep != input.ep:
            if room.ep != asked.ep:
                return False
            self.change_log(room, input.ep, input.head, input.floor, "epoch")
        elif room.ep == asked.ep and input.head < asked.pos:
            # What was told to be stored before we asked is not there: the log went back.
            self.change_log(room, input.ep, input.head, input.floor, "ahead")
        room.floor = max(room.floor, input.floor)
        return True

    def begin(self, member: Member, cursor: int, head: int) -> None:
        """Sets a member going at its start: it hears `$live` at `head`, which was announced, and reads on."""
        member.cursor = cursor
        member.announced_head = head
        self.tell_live(member, cursor)  # Nothing was announced: what is sent next is new already.
        if self._step.parked:
            self.take_out_parked()
        self._queue_up(member)
        self.catch_up(member.session)

    # ---- live, and behind ------------------------------------------------------------------------

    def make_live(self, member: Member) -> None:
        """Makes a member that has everything one of those who get what is new."""
        member.live = True
        member.room.targets = None
        self.tell_live(member, member.room.pos)

    def tell_live(self, member: Member, cursor: int) -> None:
        """Tells `$live` once, as soon as the cursor reaches the announced head."""
        head = member.announced_head
        if 0 <= head <= cursor:
            if member.told:
                text = wire.answer("$live", room=member.room.name, payload={"off": head})
                self._outbox.answer(member.connection, text)
            member.announced_head = -1

    def is_current(self, member: Member) -> bool:
        """Whether a membership was neither ended nor replaced."""
        memberships = member.session.memberships
        return memberships is not None and memberships.get(member.room.name) is member

    def attach(self, member: Member) -> None:
        """A membership begins: what is new may be brought to it."""
        member.room.members[member.connection.id] = member

    def detach(self, member: Member) -> None:
        """A membership ends or is replaced: nothing is brought to it any more."""
        if self._step.parked:
            self.take_out_parked()
        member.room.members.pop(member.connection.id, None)
        self._take_out(member)

    def _take_out(self, member: Member) -> None:
        """Nothing is brought to it, and it reads nothing."""
        room, session = member.room, member.session
        room.waiting.pop(member.connection.id, None)
        if member.live:
            member.live = False
            room.targets = None
        if session.catching_up is not None:
            session.catching_up = deque(other for other in session.catching_up if other is not member) or None

    # ---- held -------------------------------------------------------------------------------------

    def hold(self, member: Member) -> None:
        """Nothing of the room is sent to a member until `release`; its cursor stays where it is."""
        if self._step.parked:
            self.take_out_parked()
        if member.live:
            member.cursor = member.room.pos
        member.held = True
        self._take_out(member)
        self._unstored.forget(member.session, member.room.name)

    def release(self, member: Member) -> None:
        """A member that was held reads on; one whose position is not known is the caller's to ask for."""
        member.held = False
        if member.owed_reset:
            reason, member.owed_reset = member.owed_reset, ""
            self._tell_reset(member, reason)
        if not member.room.stored:
            self.make_live(member)
        elif not member.asking:
            self._queue_up(member)
            self.catch_up(member.session)

    def flushed(self, input: BytesFlushed) -> None:
        """Outboxes shrank: who is below its mark reads on."""
        found = self._outbox.flushed(input)
        if found is None:
            return
        for connection in found:
            session = connection.session
            if connection.parked:
                self._outbox.unpark(connection)
                if session is not None:
                    self._unpark(session)
            elif session is not None:
                self.catch_up(session)

    def _unpark(self, session: Session) -> None:
        """Goes on where the cursors stand, once it was told what it missed of rooms that are not stored."""
        if self._step.parked:
            self.take_out_parked()
        for member in (session.memberships or {}).values():
            member.room.targets = None
        self._unstored.tell(session)
        self._pages.unparked(session)
        self.catch_up(session)

    def catch_up(self, session: Session) -> None:
        """Sends what the cursors of a session still lack, one page at a time, its rooms in turn."""
        connection, low = session.connection, self._step.config.unsent_bytes_low
        turns = len(session.catching_up) if session.catching_up else 0
        while session.catching_up and turns:
            if connection.parked or connection.unsent >= low or session.page_pending or connection.state is GONE:
                return
            member = session.catching_up[0]
            room = member.room
            if member.cursor == room.pos and member.announced_head <= room.pos:
                session.catching_up.popleft()
                turns -= 1
                self.make_live(member)
            elif member.cursor >= room.pos:  # The log is ahead of the room: what is between is on its way.
                room.waiting[connection.id] = member
                session.catching_up.rotate(-1)
                turns -= 1
            elif room.tail.covers(member.cursor):
                self._send_tail(member)
                if member.cursor != room.pos and len(session.catching_up) > 1:
                    session.catching_up.rotate(-1)
            elif session.retry_at == FAR:
                self._pages.ask(member)
                return
            else:
                return

    def _send_tail(self, member: Member) -> None:
        config, connection = self._step.config, member.connection
        budget = min(config.page_bytes_max, config.unsent_bytes_low - connection.unsent)
        frames: list[bytes] = []
        size = 0
        for off, _, frame in member.room.tail.after(member.cursor):
            if frames and size + len(frame) > budget:
                break
            frames.append(frame)
            size += len(frame)
            member.cursor = off
            if off == member.announced_head:
                break
        self._send_group(member, frames)

    def read(self, asked: PageAsked, input: StoreRead) -> None:
        """Sends a page to whoever asked for it and still wants it."""
        frames = [(row.off, encode_frame(TEXT, wire.stored_message(row))) for row in input.rows]
        for member in self._pages.answered(asked):
            session = member.session
            waits = self.is_current(member) and not (member.live or member.asking or member.connection.parked)
            waits = waits and not member.held
            if waits and member.room.ep == asked.key[1] and member.cursor == asked.key[2]:
                self._take_page(member, input, frames, asked.until)
            self.catch_up(session)

    def _take_page(self, member: Member, page: StoreRead, frames: list[tuple[int, bytes]], until: int) -> None:
        """Sends a page that was asked for up to `until`; the room may have moved on since it was read."""
        room = member.room
        if page.ep != room.ep:
            self.change_log(room, page.ep, page.head, page.floor, "epoch")
            return
        if page.head < until:
            self.change_log(room, page.ep, page.head, page.floor, "ahead")
            return
        if page.floor > room.floor:
            room.floor = page.floor
        if page.floor > member.cursor:
            self._gap(member, page.floor)
        rest, group, cursor, last = frames, list[bytes](), member.cursor, frames[-1][0] if frames else 0
        if last - cursor == len(frames) and last <= room.pos and not cursor < member.announced_head < last:
            # Nothing is missing and nothing to be told in between: a page that many share costs each of them little.
            rest, group, member.cursor = [], list(map(_FRAME, frames)), last
        for off, frame in rest:
            if off <= member.cursor or off > room.pos:
                continue
            if off != member.cursor + 1:  # The store holds the rows around it, and this one is damaged.
                self._send_group(member, group)
                self._gap(member, off - 1)
            group.append(frame)
            member.cursor = off
            if off == member.announced_head:
                self._send_group(member, group)
        self._send_group(member, group)
        if not frames and member.cursor < until:
            # At least one row is read where one exists: none of these can be read any more.
            self._gap(member, until)
        in_turn = member.session.catching_up
        assert in_turn is not None  # The member stands first in it: it was its turn, and one read at a time.
        in_turn.rotate(-1)

    def _send_group(self, member: Member, group: list[bytes]) -> None:
        if group:
            connection = member.connection
            self._outbox.put(connection, connection.codec.share(b"".join(group)), len(group))
            group.clear()
        self.tell_live(member, member.cursor)
        if self._step.parked:
            self.take_out_parked()

    def _gap(self, member: Member, upto: int) -> None:
        """Tells that the entries from the cursor on up to `upto` are no more (PROTOCOL §3: never silence)."""
        if member.told:
            payload = {"from": member.cursor + 1, "to": upto}
            self._outbox.answer(member.connection, wire.answer("$gap", room=member.room.name, payload=payload))
        member.cursor = upto
        self.tell_live(member, upto)
        if self._step.parked:
            self.take_out_parked()

    def read_failed(self, asked: PageAsked) -> None:
        """A page could not be read: asked again later."""
        for member in self._pages.answered(asked):
            self._pages.retry_later(member.session)
