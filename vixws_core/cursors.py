"""Cursors: how what is new reaches the live members, and how the others read on (PROTOCOL §3, §5).

Members whose cursor is at the room's position are live and share one tuple of targets; every other member
is behind and reads on, from the room's tail or from the store, as fast as its connection takes it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import wire
from .effects import Broadcast, ReadStore
from .inputs import RoomAdvanced, StoreRead
from .message import StoredMessage
from .room import Member, Room
from .state import FAR, Conn, HubState
from .tail import Tails
from .wire.frames import TEXT, encode_frame

if TYPE_CHECKING:
    from .session import Sessions

__all__ = ["Cursors"]

_GROUP_BYTES = 65_536
"""Frames of one commit are broadcast in groups of about this many bytes, so that a mark is passed by one group only."""


class Cursors:
    """Moves rooms and the cursors in them."""

    __slots__ = ("_reads", "_shared", "_state", "_tails", "sessions")

    sessions: Sessions

    def __init__(self, state: HubState) -> None:
        self._state = state
        self._reads: dict[int, tuple[tuple[str, str, int, int], int, list[Member]]] = {}
        """Per request: what is read (room, epoch, after, bytes), up to which offset, and for whom."""
        self._shared: dict[tuple[str, str, int, int], int] = {}
        self._tails = Tails(state.config.tail_bytes_room, state.config.tail_bytes_total)

    def forget(self, room: Room) -> None:
        """Lets go of what is kept for a room that has no members any more."""
        self._tails.clear(room.tail)

    # ---- the log moves --------------------------------------------------------------------------

    def advanced(self, input: RoomAdvanced) -> None:
        """Brings new entries to the live members, in one group of shared bytes at a time."""
        room = self._state.rooms.get(input.room)
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
        group: list[bytes] = []
        size = 0
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
        targets = self.live_ids(room)
        if targets:
            self.fan_out(room.live or (), targets, frames[0] if len(frames) == 1 else b"".join(frames), len(frames))

    def fan_out(
        self, members: tuple[Member, ...] | list[Member], ids: tuple[int, ...], data: bytes, count: int
    ) -> None:
        """Puts the same bytes into many outboxes, and parks whom that takes over its mark."""
        state = self._state
        state.out.append(Broadcast(ids, data, count))
        size = len(data)
        state.unsent_total += size * len(ids)
        low = state.config.unsent_bytes_low
        now = state.now
        heavy: list[Conn] = []
        for member in members:
            conn = member.conn
            conn.unsent += size
            conn.last_data = now
            if conn.unsent > low:
                heavy.append(conn)
        for conn in heavy:
            self.sessions.weigh(conn)

    def live_ids(self, room: Room) -> tuple[int, ...]:
        """The connections that get what is new, as one tuple that stays the same object while they do."""
        if room.live is None:
            room.live = [member for member in room.members.values() if member.live and not member.conn.parked]
            room.live_ids = tuple(member.conn.id for member in room.live)
        return room.live_ids

    def _skip_to(self, room: Room, pos: int) -> None:
        """Entries up to `pos` did not come by: the live members read them."""
        for member in room.members.values():
            if member.live:
                self._stop_live(member)
        room.pos = pos
        self._tails.clear(room.tail)

    def _stop_live(self, member: Member) -> None:
        member.live = False
        member.room.live = None
        member.cursor = member.room.pos
        conn = member.conn
        if conn.behind is None:
            conn.behind = deque()
        conn.behind.append(member)

    def _wake(self, room: Room) -> None:
        """Lets those members read on who waited for the room to reach or pass their cursor."""
        if len(room.members) == len(self.live_ids(room)) + room.asking:
            return
        for member in tuple(room.members.values()):
            if not member.live and not member.asking:
                self.catch_up(member.conn)

    def change_log(self, room: Room, ep: str, start: int, floor: int, reason: str) -> None:
        """The log under the room is another one: everybody is told and starts anew."""
        self._tails.clear(room.tail)
        room.ep, room.pos, room.floor = ep, start, floor
        for member in tuple(room.members.values()):
            if member.asking:
                continue
            member.cursor = start
            member.live_at = None
            self._tell_reset(member, reason)

    def _tell_reset(self, member: Member, reason: str) -> None:
        if member.wire:
            room = member.room
            payload = {"ep": room.ep, "from": member.cursor, "head": room.pos, "floor": room.floor, "reason": reason}
            self.sessions.answer(member.conn, wire.answer("$reset", room=room.name, payload=payload))

    # ---- live, and behind ------------------------------------------------------------------------

    def make_live(self, member: Member) -> None:
        """Makes a member that has everything one of those who get what is new."""
        member.live = True
        member.room.live = None
        self.tell_live(member, member.room.pos)

    def tell_live(self, member: Member, cursor: int) -> None:
        """Tells `$live` once, as soon as the cursor reaches the announced head."""
        if member.live_at is not None and cursor >= member.live_at:
            if member.wire:
                text = wire.answer("$live", room=member.room.name, payload={"off": member.live_at})
                self.sessions.answer(member.conn, text)
            member.live_at = None

    def is_current(self, member: Member) -> bool:
        """Whether a membership was neither ended nor replaced."""
        rooms = member.conn.rooms
        return rooms is not None and rooms.get(member.room.name) is member

    def park(self, conn: Conn) -> None:
        """Takes a connection that takes nothing out of the live targets; its cursors stay where they are."""
        for member in tuple((conn.rooms or {}).values()):
            if member.live and member.room.stored:
                self._stop_live(member)
            elif member.live:
                member.room.live = None

    def unpark(self, conn: Conn) -> None:
        """Goes on where the cursors stand, and tells what was dropped of rooms that are not stored."""
        dropped, conn.dropped = conn.dropped or {}, None
        for name, member in (conn.rooms or {}).items():
            member.room.live = None
            if member.wire and name in dropped:
                self.sessions.answer(conn, wire.answer("$gap", room=name, payload={"dropped": dropped[name]}))
        self.catch_up(conn)

    def catch_up(self, conn: Conn) -> None:
        """Sends what the cursors of a connection still lack, one page at a time, its rooms in turn."""
        config = self._state.config
        turns = len(conn.behind) if conn.behind else 0
        while conn.behind and turns:
            if conn.parked or conn.gone or conn.reading or conn.unsent >= config.unsent_bytes_low:
                return
            member = conn.behind[0]
            room = member.room
            if member.cursor == room.pos and (member.live_at is None or member.live_at <= room.pos):
                conn.behind.popleft()
                turns -= 1
                self.make_live(member)
            elif member.cursor >= room.pos:  # The log is ahead of the room: what is between is on its way.
                conn.behind.rotate(-1)
                turns -= 1
            elif room.tail.covers(member.cursor):
                self._send_tail(member)
                if member.cursor != room.pos and len(conn.behind) > 1:
                    conn.behind.rotate(-1)
            elif conn.retry_at == FAR:
                self._read(member)
                return
            else:
                return

    def _send_tail(self, member: Member) -> None:
        config, conn = self._state.config, member.conn
        budget = min(config.page_bytes_max, config.unsent_bytes_low - conn.unsent)
        frames: list[bytes] = []
        size = 0
        for off, _, frame in member.room.tail.after(member.cursor):
            if frames and size + len(frame) > budget:
                break
            frames.append(frame)
            size += len(frame)
            member.cursor = off
            if off == member.live_at:
                break
        self.sessions.put(conn, b"".join(frames), len(frames))
        self.tell_live(member, member.cursor)

    def _read(self, member: Member) -> None:
        """Asks the store for the next page; the same page that another one waits for is asked for once."""
        config, conn, room = self._state.config, member.conn, member.room
        conn.reading = True
        size = min(config.page_bytes_max, config.unsent_bytes_low - conn.unsent)
        size = max(1, size - size % 16_384)  # In steps, so that readers who hold about the same share a read.
        key = (room.name, room.ep, member.cursor, size)
        request = self._shared.get(key)
        if request is not None:
            self._reads[request][2].append(member)
            return
        request = self._state.request()
        self._shared[key] = request
        self._reads[request] = (key, room.pos, [member])
        self._state.out.append(ReadStore(request, room.name, member.cursor, room.pos, config.page_rows_max, size))

    def read(self, input: StoreRead) -> bool:
        """Sends a page to whoever asked for it and still wants it; False where the request is not one of ours."""
        found = self._reads.pop(input.request, None)
        if found is None:
            return False
        key, until, members = found
        self._shared.pop(key, None)
        frames = [(row.off, encode_frame(TEXT, wire.stored_message(row))) for row in input.rows]
        for member in members:
            conn = member.conn
            conn.reading = False
            waits = self.is_current(member) and not (member.live or member.asking or conn.parked)
            if waits and member.room.ep == key[1] and member.cursor == key[2]:
                self._take_page(member, input, frames, until)
            self.catch_up(conn)
        return True

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
        group: list[bytes] = []
        for off, frame in frames:
            if off <= member.cursor or off > room.pos:
                continue
            if off != member.cursor + 1:  # The store holds the rows around it, and this one is damaged.
                self._send_group(member, group)
                self._gap(member, off - 1)
            group.append(frame)
            member.cursor = off
            if off == member.live_at:
                self._send_group(member, group)
        self._send_group(member, group)
        if not frames and member.cursor < until:
            # At least one row is read where one exists: none of these can be read any more.
            self._gap(member, until)
        behind = member.conn.behind
        assert behind is not None  # The member stands first in it: it was its turn, and one read at a time.
        behind.rotate(-1)

    def _send_group(self, member: Member, group: list[bytes]) -> None:
        if group:
            self.sessions.put(member.conn, b"".join(group), len(group))
            group.clear()
        self.tell_live(member, member.cursor)

    def _gap(self, member: Member, upto: int) -> None:
        """Tells that the entries from the cursor on up to `upto` are no more (PROTOCOL §3: never silence)."""
        if member.wire:
            payload = {"from": member.cursor + 1, "to": upto}
            self.sessions.answer(member.conn, wire.answer("$gap", room=member.room.name, payload=payload))
        member.cursor = upto
        self.tell_live(member, upto)

    def read_failed(self, request: int) -> bool:
        """A page could not be read: asked again later. False where the request is not one of ours."""
        found = self._reads.pop(request, None)
        if found is None:
            return False
        key, _, members = found
        self._shared.pop(key, None)
        for member in members:
            member.conn.reading = False
            self.retry_later(member.conn)
        return True

    def retry_later(self, conn: Conn) -> None:
        """Sees to it that what this connection could not read is asked again."""
        when = self._state.now + self._state.config.store_retry_s
        conn.retry_at = min(conn.retry_at, when)
        self._state.arm(conn, when)
