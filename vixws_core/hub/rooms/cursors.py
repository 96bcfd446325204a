"""Cursors: how what is new reaches the live members, and how the others read on (PROTOCOL §3, §5).

Members whose cursor is at the room's position are live and share one tuple of targets; every other member
is behind and reads on, from the room's tail or from the store, as fast as its connection takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...inputs import BytesFlushed, PositionKnown, RoomAdvanced, StoreRead
from ...message import StoredMessage
from ..asks import CursorAsked, PageAsked
from ..connection.outbox import Outbox, grouped
from ..model import GONE, Member, Room, Session, Target
from ..step import Step
from .continuity import differ, is_confirmed, is_other
from .pages import Pages, is_current
from .tail import Tails
from .telling import NONE, Frames, Telling, frames_of, groups_of, whole_page
from .unstored import Unstored

__all__ = ["Cursors"]


class Cursors:
    """Moves rooms and the cursors in them."""

    __slots__ = ("_outbox", "_pages", "_step", "_tails", "_telling", "_unstored")

    def __init__(self, step: Step, outbox: Outbox, unstored: Unstored, pages: Pages) -> None:
        self._step = step
        self._outbox = outbox
        self._unstored = unstored
        self._pages = pages
        self._telling = Telling(outbox)
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
        """Lets go of what is kept of a room's log, and of what is on its way."""
        self._tails.clear(room.tail)
        room.changes += 1

    # ---- the log moves --------------------------------------------------------------------------

    def advanced(self, input: RoomAdvanced) -> None:
        """Brings new entries to the live members, in one group of shared bytes at a time."""
        if self._step.parked:
            self.take_out_parked()
        room = self._step.rooms.get(input.room)
        if room is None or not room.stored:
            return
        start, start_id = input.entries[0].off - 1 if input.entries else input.head, input.prev_id or ""
        if not room.known:
            # A first position is being asked for; its answer may be older than this.
            room.known, room.ep, room.pos, room.pos_id = True, input.ep, start, start_id
        elif input.ep != room.ep or (input.prev_id != room.pos_id and is_other(room, input, start)):
            floor = 0 if input.ep != room.ep else max(0, min(room.floor, start))
            self.change_log(room, input.ep, start, start_id, floor)
            room.floor = -1  # Only the log itself can tell the next one who joins.
        elif input.head <= room.pos:
            return  # It was told before.
        fresh = input.entries if start >= room.pos else [row for row in input.entries if row.off > room.pos]
        if start > room.pos:
            self._skip_to(room, start, start_id)
        self._bring(room, fresh)
        self._wake(room)

    def _bring(self, room: Room, rows: Sequence[StoredMessage]) -> None:
        for entries, plain in groups_of(frames_of(rows, self._step.config.message_bytes_max)):
            off, id, _ = entries[-1]
            if plain:
                self._tails.extend(room.tail, entries)  # type: ignore[arg-type]  # Each has a frame.
                room.pos, room.pos_id = off, id
                self._broadcast(room, plain)
            else:  # Nobody can read it: the live members pass over it as those do who come later.
                self._skip_to(room, off, id)

    def _broadcast(self, room: Room, frames: list[bytes]) -> None:
        data = b"".join(frames)  # One frame stays the object that it is.
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

    def _skip_to(self, room: Room, pos: int, pos_id: str) -> None:
        """Entries up to `pos` did not come by: the live members read them."""
        for member in room.members.values():
            if member.live:
                self._stop_live(member)
                room.waiting[member.connection.id] = member
        room.pos, room.pos_id = pos, pos_id
        self._tails.clear(room.tail)

    def _stop_live(self, member: Member) -> None:
        member.live = False
        member.room.targets = None
        member.cursor, member.cursor_id = member.room.pos, member.room.pos_id
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

    def change_log(self, room: Room, ep: str, start: int, start_id: str, floor: int) -> None:
        """The log is not the one that was told, or went back to `start`: whoever has more than is left starts anew.

        In another epoch that is everybody; in the same one not who is before `start`, or there and saw `start_id`.
        """
        known, at, at_id = room.ep == ep, room.pos, room.pos_id
        room.changes += 1
        self._tails.clear(room.tail)
        room.ep, room.pos, room.pos_id, room.floor = ep, start, start_id, floor
        for member in tuple(room.members.values()):
            if member.asking:
                continue
            cursor, id = (at, at_id) if member.live else (member.cursor, member.cursor_id)
            if not (member.live or member.held):
                room.waiting[member.connection.id] = member
            if not known or cursor > start or (cursor == start and differ(id, start_id)):
                reason = "epoch" if not known else "ahead" if cursor > start else "fork"
                self._start_anew(member, start, start_id, reason)
            elif member.announced_head > start:  # Part of what was announced to it is not there any more.
                self._start_anew(member, cursor, id, "ahead")
        if self._step.parked:  # By what it was told.
            self.take_out_parked()

    def _start_anew(self, member: Member, cursor: int, cursor_id: str, reason: str) -> None:
        """What a member has is not what the log has: it is told, and goes on from another place."""
        member.cursor, member.cursor_id = cursor, cursor_id
        member.announced_head = -1
        self._tell_reset(member, reason)

    def _tell_reset(self, member: Member, reason: str) -> None:
        if member.held:
            member.owed_reset = reason
        else:
            self._telling.reset(member, reason)

    def hear(self, room: Room, asked: CursorAsked, input: PositionKnown) -> bool:
        """Takes the log's own word on where a room stands; False where it may be an older log's."""
        if not room.known:
            room.known, room.ep, room.pos, room.pos_id = True, input.ep, input.head, input.id
        else:
            if (fits := is_confirmed(room, asked, input)) is None:
                return False
            if not fits:
                self.change_log(room, input.ep, input.head, input.id, input.floor)
            elif input.head == room.pos:
                room.pos_id = input.id
        room.floor = max(room.floor, input.floor)
        return True

    def begin(self, member: Member, cursor: int, cursor_id: str, head: int) -> None:
        """Sets a member going at its start: it hears `$live` at `head`, which was announced, and reads on."""
        member.cursor, member.cursor_id = cursor, cursor_id
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
            self._telling.live(member, head)
            member.announced_head = -1

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
            member.cursor, member.cursor_id = member.room.pos, member.room.pos_id
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
                turns = len(session.catching_up)
                if member.cursor != room.pos and len(session.catching_up) > 1:
                    session.catching_up.rotate(-1)
            elif room.pause_s and self._pages.rests(room, session):
                session.catching_up.rotate(-1)
                turns -= 1
            else:
                self._pages.ask(member)
                return

    def _send_tail(self, member: Member) -> None:
        config, connection = self._step.config, member.connection
        budget = min(config.page_bytes_max, config.unsent_bytes_low - connection.unsent)
        entries = member.room.tail.page(member.cursor, member.announced_head, budget)
        member.cursor, member.cursor_id, _ = entries[-1]
        self._send_group(member, [frame for _, _, frame in entries])

    def read(self, asked: PageAsked, input: StoreRead) -> None:
        """Sends a page to whoever asked for it and still wants it."""
        frames = frames_of(input.rows, self._step.config.message_bytes_max)
        for member in self._pages.answered(asked):
            session = member.session
            waits = not (member.live or member.asking or member.held or member.connection.parked)
            if waits and is_current(member) and member.room.changes == asked.key[1] and member.cursor == asked.key[2]:
                self._take_page(member, input, frames, asked.until)
            self.catch_up(session)

    def _take_page(self, member: Member, page: StoreRead, frames: Frames, until: int) -> None:
        """Sends a page that was asked for up to `until`; the room may have moved on since it was read."""
        room = member.room
        if page.ep != room.ep or page.head < until:
            self.change_log(room, page.ep, page.head, page.head_id, page.floor)
            return
        room.floor = max(room.floor, page.floor)
        if page.floor > member.cursor:
            self._gap(member, page.floor, page.floor_id)
        elif differ(page.id_at, member.cursor_id):
            self._start_anew(member, page.head, page.head_id, "fork")
            frames, until = NONE, page.head
        if group := whole_page(member, frames):
            member.cursor, member.cursor_id, _ = frames.entries[-1]
        for off, id, frame in frames.entries if not group else ():
            if off <= member.cursor or off > room.pos:
                continue
            if off != member.cursor + 1:  # The store holds the rows around it, and this one is damaged.
                self._send_group(member, group)
                self._gap(member, off - 1, "")
            if frame is None:
                self._send_group(member, group)
                self._gap(member, off, id)
                continue
            group.append(frame)
            member.cursor, member.cursor_id = off, id
            if off == member.announced_head:
                self._send_group(member, group)
        self._send_group(member, group)
        if not frames.entries and member.cursor < until:
            # At least one row is read where one exists: none of these can be read any more.
            self._gap(member, until, page.head_id if until == page.head else "")
        in_turn = member.session.catching_up
        assert in_turn is not None  # The member stands first in it: it was its turn, and one read at a time.
        in_turn.rotate(-1)

    def _send_group(self, member: Member, group: list[bytes]) -> None:
        if group:
            self._outbox.put(member.connection, member.connection.codec.share(b"".join(group)), len(group))
            group.clear()
        self.tell_live(member, member.cursor)
        if self._step.parked:
            self.take_out_parked()

    def _gap(self, member: Member, upto: int, upto_id: str) -> None:
        """Tells that the entries from the cursor on up to `upto` are no more (PROTOCOL §3: never silence)."""
        self._telling.gap(member, upto, upto_id)
        member.cursor, member.cursor_id = upto, upto_id
        self.tell_live(member, upto)
        if self._step.parked:
            self.take_out_parked()

    def read_failed(self, asked: PageAsked) -> None:
        """A page could not be read: the room rests, and its members' other rooms go on."""
        for member in self._pages.answered(asked, read=False):
            self.catch_up(member.session)
