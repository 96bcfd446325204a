"""Rooms: a room is a log, a member is a cursor in it (PROTOCOL §3).

Members whose cursor is at the room's position are live and share one tuple of targets; every other member
is behind and reads on, from the room's tail or from the store, as fast as its connection takes it. Only
`RoomAdvanced` moves a room.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

from . import wire
from .effects import Broadcast, FindPosition, Joined, Left, ReadStore
from .errors import BadRoom, TooManyRooms
from .frames import TEXT, encode_frame
from .inputs import Join, PositionKnown, RoomAdvanced, Since, StoreRead
from .message import StoredMessage
from .state import FAR, Conn, HubState, Phase
from .tail import Tail, Tails

if TYPE_CHECKING:
    from .session import Sessions

__all__ = ["Member", "Room", "Rooms", "check_room"]

_GROUP_BYTES = 65_536
"""Frames of one commit are broadcast in groups of about this many bytes, so that a mark is passed by one group only."""

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


@lru_cache(8192)
def check_room(name: str) -> str:
    """Returns the name of a room, or raises.

    1–128 bytes of UTF-8, in NFC, without control or invisible characters; names below `@` are the protocol's.

    Raises: `BadRoom`, which says what was expected.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadRoom(f"room {name!r:.60} must be valid Unicode") from None
    if not 1 <= size <= 128:
        raise BadRoom(f"room name must have 1 to 128 bytes, got {size}")
    if not name.isascii() and not unicodedata.is_normalized("NFC", name):
        raise BadRoom(f"room {name!r:.60} must be in Unicode normal form C")
    if any(unicodedata.category(char) in _INVISIBLE for char in name):
        raise BadRoom(f"room {name!r:.60} must not have control or invisible characters")
    if name[0] == "@":
        raise BadRoom(f"room {name!r:.60} is reserved: names that begin with @ belong to the protocol")
    return name


class Member:
    """One connection's place in one room."""

    __slots__ = ("asking", "conn", "cursor", "from_floor", "last", "live", "live_at", "ref", "room", "since", "wire")

    def __init__(self, conn: Conn, room: Room, ask: Join, ref: str | None, wire: bool) -> None:
        self.conn = conn
        self.room = room
        self.cursor = 0
        """The last offset sent; meaningless while `live`, when it is the room's position."""
        self.live = False
        self.asking = True
        """Its position is being asked for."""
        self.live_at: int | None = None
        """The announced head, until `$live` was told."""
        self.since = ask.since
        self.last = ask.last
        self.from_floor = ask.from_floor
        self.ref = ref
        self.wire = wire
        """Whether the client hears `$joined`, `$live`, `$gap` and `$reset`."""


class Room:
    """What the hub knows of one room that has members."""

    __slots__ = ("asking", "ep", "floor", "known", "live", "live_ids", "members", "name", "pos", "stored", "tail")

    def __init__(self, name: str, stored: bool) -> None:
        self.name = name
        self.stored = stored
        self.known = not stored
        """Whether `ep` and `pos` are known."""
        self.ep = ""
        self.pos = 0
        """The offset up to which live members have everything."""
        self.floor = -1
        """The highest trimmed offset; -1 until the log itself was asked."""
        self.members: dict[int, Member] = {}
        self.live: list[Member] | None = None
        self.live_ids: tuple[int, ...] = ()
        self.asking = 0
        self.tail = Tail()


class Rooms:
    """All rooms of a hub."""

    __slots__ = ("_asks", "_reads", "_shared", "_state", "_tails", "_unstored", "by_name", "sessions")

    sessions: Sessions

    def __init__(self, state: HubState) -> None:
        self._state = state
        self.by_name: dict[str, Room] = {}
        self._asks: dict[int, Member] = {}
        self._reads: dict[int, tuple[tuple[str, str, int, int], list[Member]]] = {}
        self._shared: dict[tuple[str, str, int, int], int] = {}
        self._tails = Tails(state.config.tail_bytes_room, state.config.tail_bytes_total)
        self._unstored: dict[str, bool] = {}

    def is_stored(self, name: str) -> bool:
        """Whether messages of the room are stored: all are, but for the configured patterns."""
        patterns = self._state.config.unstored_rooms
        return not any(_matches(pattern, name) for pattern in patterns) if patterns else True

    # ---- membership -----------------------------------------------------------------------------

    def join_asked(self, input: Join) -> None:
        """An application's join."""
        name = check_room(input.room)
        conn = self._state.conns.get(input.conn)
        if conn is None or conn.gone or conn.phase is not Phase.OPEN:
            return
        if conn.rooms is not None and name in conn.rooms and input.since is None and not input.last:
            return
        self.join(conn, input, None, conn.hello)

    def join(self, conn: Conn, ask: Join, ref: str | None, wire: bool) -> None:
        """Makes `conn` a member, or gives a member a new cursor.

        Raises: `TooManyRooms`.
        """
        rooms = conn.rooms
        if rooms is None:
            rooms = conn.rooms = {}
        old = rooms.get(ask.room)
        if old is None and len(rooms) >= self._state.config.rooms_max:
            raise TooManyRooms(f"a connection may be in {self._state.config.rooms_max} rooms (rooms_max)")
        room = self.by_name.get(ask.room)
        if room is None:
            room = self.by_name[ask.room] = Room(ask.room, self.is_stored(ask.room))
        if old is not None:
            self._detach(old)
        member = Member(conn, room, ask, ref, wire)
        room.members[conn.id] = rooms[ask.room] = member
        if old is None:
            self._state.out.append(Joined(conn.id, room.name))
        if not room.stored:
            member.asking = False
            self._tell_joined(member, {"stored": False})
            self._make_live(member)
        elif not self._place_at_once(member):
            room.asking += 1
            self._find_position(member)

    def _place_at_once(self, member: Member) -> bool:
        """Places a member without asking the log, where what is known here is certain."""
        room, since = member.room, member.since
        if not room.known or room.floor < 0:
            return False
        if since is None:
            if member.last:
                return False
            self._place(member, room.pos, "fresh", room.pos)
            return True
        found = room.tail.id_at(since.off)
        if since.ep != room.ep or found is None or (since.id is not None and since.id != found):
            return False
        self._place(member, since.off, None, room.pos)
        return True

    def _find_position(self, member: Member) -> None:
        request = self._state.request()
        self._asks[request] = member
        off = member.since.off if member.since is not None else None
        self._state.out.append(FindPosition(request, member.room.name, off))

    def position_known(self, input: PositionKnown) -> bool:
        """Places the member that asked; False where the request is not one of ours."""
        member = self._asks.pop(input.request, None)
        if member is None:
            return False
        if not self._is_current(member):
            return True
        room, since = member.room, member.since
        if not room.known:
            room.known, room.ep, room.pos = True, input.ep, input.head
        elif room.ep != input.ep:
            self._change_log(room, input.ep, input.head, input.floor, "epoch")
        elif since is not None and since.ep == room.ep and input.head < since.off <= room.pos:
            self._find_position(member)  # The room moved past the answer: only a new one can tell about this offset.
            return True
        room.asking -= 1
        room.floor = max(room.floor, input.floor)
        head = max(input.head, room.pos)
        start, reason = _start(member, input, head)
        self._place(member, start, reason, head)
        return True

    def _place(self, member: Member, cursor: int, reason: str | None, head: int) -> None:
        """Tells the member where it stands, and sets it going."""
        room = member.room
        member.asking = False
        member.cursor = cursor
        member.live_at = head
        payload: dict[str, object] = {
            "ep": room.ep,
            "from": cursor,
            "head": head,
            "floor": room.floor,
            "recovered": reason is None,
            "stored": True,
        }
        if reason is not None:
            payload["reason"] = reason
        self._tell_joined(member, payload)
        self._settle(member)

    def _tell_joined(self, member: Member, payload: dict[str, object]) -> None:
        if member.wire:
            self.sessions.answer(member.conn, wire.answer("$joined", member.ref, member.room.name, payload))
            member.ref = None

    def _settle(self, member: Member) -> None:
        """Lets a member read on; where it has everything already it becomes live."""
        conn = member.conn
        if conn.gone or conn.phase is not Phase.OPEN:
            return
        if conn.behind is None:
            conn.behind = deque()
        conn.behind.append(member)
        self.catch_up(conn)

    def _make_live(self, member: Member) -> None:
        member.live = True
        member.room.live = None
        self._tell_live(member, member.room.pos)

    def _tell_live(self, member: Member, cursor: int) -> None:
        """Tells `$live` once, as soon as the cursor reaches the announced head."""
        if member.live_at is not None and cursor >= member.live_at:
            if member.wire:
                text = wire.answer("$live", room=member.room.name, payload={"off": member.live_at})
                self.sessions.answer(member.conn, text)
            member.live_at = None

    def leave(self, conn: Conn, name: str) -> bool:
        """Ends a membership; False where there is none."""
        member = conn.rooms.pop(name, None) if conn.rooms is not None else None
        if member is None:
            return False
        self._detach(member)
        room = member.room
        if not room.members:
            del self.by_name[name]
            self._tails.clear(room.tail)
        self._state.out.append(Left(conn.id, name))
        return True

    def leave_all(self, conn: Conn) -> None:
        """Ends every membership of a connection, in the order of joining."""
        for name in tuple(conn.rooms or ()):
            self.leave(conn, name)

    def _detach(self, member: Member) -> None:
        room, conn = member.room, member.conn
        room.members.pop(conn.id, None)
        if member.asking:
            room.asking -= 1
        if member.live:
            member.live = False
            room.live = None
        if conn.behind is not None:
            conn.behind = deque(other for other in conn.behind if other is not member) or None

    def _is_current(self, member: Member) -> bool:
        rooms = member.conn.rooms
        return rooms is not None and rooms.get(member.room.name) is member

    # ---- the log moves --------------------------------------------------------------------------

    def advanced(self, input: RoomAdvanced) -> None:
        """Brings new entries to the live members, in one group of shared bytes at a time."""
        room = self.by_name.get(input.room)
        if room is None or not room.stored:
            return
        if not room.known:
            # A first position is being asked for; its answer may be older than this.
            room.known, room.ep = True, input.ep
            room.pos = input.entries[0].off - 1 if input.entries else input.head
        elif input.ep != room.ep:
            start = input.entries[0].off - 1 if input.entries else input.head
            self._change_log(room, input.ep, start, 0, "epoch")
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

    def _change_log(self, room: Room, ep: str, start: int, floor: int, reason: str) -> None:
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

    # ---- reading on -----------------------------------------------------------------------------

    def park(self, conn: Conn) -> None:
        """Takes a connection that takes nothing out of the live targets; its cursors stay where they are."""
        for member in tuple((conn.rooms or {}).values()):
            if member.live and member.room.stored:
                self._stop_live(member)
            elif member.live:
                member.room.live = None

    def unpark(self, conn: Conn) -> None:
        """Goes on where the cursors stand, and tells what was dropped of rooms that are not stored."""
        for member in (conn.rooms or {}).values():
            member.room.live = None
        dropped, conn.dropped = conn.dropped, None
        for name, count in (dropped or {}).items():
            self.sessions.answer(conn, wire.answer("$gap", room=name, payload={"dropped": count}))
        self.catch_up(conn)

    def retry(self, conn: Conn) -> None:
        """Asks again what could not be read."""
        for member in tuple((conn.rooms or {}).values()):
            if member.asking and member not in self._asks.values():
                self._find_position(member)
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
                self._make_live(member)
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
        self.sessions.put(conn, b"".join(frames))
        self._tell_live(member, member.cursor)

    def _read(self, member: Member) -> None:
        """Asks the store for the next page; the same page that another one waits for is asked for once."""
        config, conn, room = self._state.config, member.conn, member.room
        conn.reading = True
        size = min(config.page_bytes_max, config.unsent_bytes_low - conn.unsent)
        size = max(1, size - size % 16_384)  # In steps, so that readers who hold about the same share a read.
        key = (room.name, room.ep, member.cursor, size)
        request = self._shared.get(key)
        if request is not None:
            self._reads[request][1].append(member)
            return
        request = self._state.request()
        self._shared[key] = request
        self._reads[request] = (key, [member])
        self._state.out.append(ReadStore(request, room.name, member.cursor, room.pos, config.page_rows_max, size))

    def read(self, input: StoreRead) -> bool:
        """Sends a page to whoever asked for it and still wants it; False where the request is not one of ours."""
        found = self._reads.pop(input.request, None)
        if found is None:
            return False
        key, members = found
        self._shared.pop(key, None)
        frames = [(row.off, encode_frame(TEXT, wire.stored_message(row))) for row in input.rows]
        for member in members:
            conn = member.conn
            conn.reading = False
            waits = self._is_current(member) and not member.live and not member.asking
            if waits and member.room.ep == key[1] and member.cursor == key[2]:
                self._take_page(member, input, frames)
            self.catch_up(conn)
        return True

    def _take_page(self, member: Member, page: StoreRead, frames: list[tuple[int, bytes]]) -> None:
        room = member.room
        if page.ep != room.ep:
            self._change_log(room, page.ep, page.head, page.floor, "epoch")
            return
        if page.head < room.pos:
            self._change_log(room, page.ep, page.head, page.floor, "ahead")
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
        if not frames and member.cursor < room.pos:
            # At least one row is read where one exists: none of these can be read any more.
            self._gap(member, room.pos)
        if member.conn.behind and member.conn.behind[0] is member:
            member.conn.behind.rotate(-1)

    def _send_group(self, member: Member, group: list[bytes]) -> None:
        if group:
            self.sessions.put(member.conn, b"".join(group))
            group.clear()
        self._tell_live(member, member.cursor)

    def _gap(self, member: Member, upto: int) -> None:
        """Tells that the entries from the cursor on up to `upto` are no more (PROTOCOL §3: never silence)."""
        if member.wire:
            payload = {"from": member.cursor + 1, "to": upto}
            self.sessions.answer(member.conn, wire.answer("$gap", room=member.room.name, payload=payload))
        member.cursor = upto
        self._tell_live(member, upto)

    def failed(self, request: int, code: str, message: str) -> bool:
        """A read or a position could not be had: asked again later, or refused to the client that asked."""
        later = self._state.now + self._state.config.store_retry_s
        found = self._reads.pop(request, None)
        if found is not None:
            key, members = found
            self._shared.pop(key, None)
            for member in members:
                member.conn.reading = False
                self._retry_later(member.conn, later)
            return True
        asked = self._asks.pop(request, None)
        if asked is None:
            return False
        if self._is_current(asked):
            if asked.ref is not None:
                self.sessions.answer(asked.conn, wire.error(code, message, asked.ref, asked.room.name))
                self.leave(asked.conn, asked.room.name)
            else:
                self._retry_later(asked.conn, later)
        return True

    def _retry_later(self, conn: Conn, when: float) -> None:
        conn.retry_at = min(conn.retry_at, when)
        self._state.arm(conn, when)

    # ---- messages that are not stored -----------------------------------------------------------

    def broadcast_unstored(self, name: str, text: bytes) -> None:
        """Sends a message that no log keeps to the members who are live, or whose position is still being asked."""
        room = self.by_name.get(name)
        if room is None:
            return
        targets = self.live_ids(room)
        members = room.live or []
        if room.asking:
            members = members + [m for m in room.members.values() if m.asking and not m.conn.parked]
            targets = tuple(member.conn.id for member in members)
        if targets:
            self.fan_out(members, targets, encode_frame(TEXT, text), 1)
        if not room.stored and len(targets) < len(room.members):
            for member in room.members.values():
                conn = member.conn
                if conn.parked and conn.id not in targets:
                    if conn.dropped is None:
                        conn.dropped = {}
                    conn.dropped[name] = conn.dropped.get(name, 0) + 1


def _start(member: Member, input: PositionKnown, head: int) -> tuple[int, str | None]:
    """Where a cursor starts, and why it did not recover (PROTOCOL §3's table)."""
    since: Since | None = member.since
    if since is None:
        return max(input.floor, head - member.last) if member.last else head, "fresh"
    if since.ep != input.ep:
        return head, "epoch"
    if since.off < input.floor:
        return (input.floor if member.from_floor else head), "trimmed"
    if since.off > head:
        return head, "ahead"
    if since.id is not None and since.off and since.off <= input.head and input.id_at != since.id:
        return head, "fork"
    return since.off, None


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern, in which `*` stands for any run of characters, fits a name."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at
