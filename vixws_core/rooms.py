"""Rooms: who is in them, and where each member's cursor starts (PROTOCOL §3).

A room is a log, a member is a cursor in it; only `RoomAdvanced` moves a room.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import wire
from .cursors import Cursors
from .effects import FindPosition, Joined, Left
from .errors import TooManyRooms
from .inputs import Join, PositionKnown
from .names import check_room, matches
from .room import Member, Room, start_of
from .state import Conn, HubState, Phase
from .wire.frames import TEXT, encode_frame

if TYPE_CHECKING:
    from .session import Sessions

__all__ = ["Rooms", "check_room"]


class Rooms:
    """All rooms of a hub."""

    __slots__ = ("_asks", "_by_name", "_cursors", "_state", "sessions")

    sessions: Sessions

    def __init__(self, state: HubState, cursors: Cursors) -> None:
        self._state = state
        self._cursors = cursors
        self._by_name = state.rooms
        self._asks: dict[int, tuple[Member, str, int]] = {}
        """Positions being asked for: the member, and the room's epoch and position when it was asked."""

    def is_stored(self, name: str) -> bool:
        """Whether messages of the room are stored: all are, but for the configured patterns."""
        patterns = self._state.config.unstored_rooms
        return not any(matches(pattern, name) for pattern in patterns) if patterns else True

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
        room = self._by_name.get(ask.room)
        if room is None:
            room = self._by_name[ask.room] = Room(ask.room, self.is_stored(ask.room))
        if old is not None:
            self._detach(old)
        member = Member(conn, room, ask, ref, wire)
        room.members[conn.id] = rooms[ask.room] = member
        if old is None:
            self._state.out.append(Joined(conn.id, room.name))
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
        self._place(member, room.pos, "fresh", room.pos)
        return True

    def _find_position(self, member: Member) -> None:
        request = self._state.request()
        room = member.room
        self._asks[request] = (member, room.ep, room.pos)
        off = member.since.off if member.since is not None else None
        self._state.out.append(FindPosition(request, room.name, off))

    def position_known(self, input: PositionKnown) -> bool:
        """Places the member that asked; False where the request is not one of ours."""
        asked = self._asks.pop(input.request, None)
        if asked is None:
            return False
        member, ep_then, pos_then = asked
        if not self._cursors.is_current(member):
            return True
        room, since = member.room, member.since
        if not room.known:
            room.known, room.ep, room.pos = True, input.ep, input.head
        elif room.ep != input.ep:
            if room.ep != ep_then:  # The room heard of a new log meanwhile: the answer may be the old one's.
                self._find_position(member)
                return True
            self._cursors.change_log(room, input.ep, input.head, input.floor, "epoch")
        elif room.ep == ep_then and input.head < pos_then:
            # What was told to be stored before we asked is not there: the log went back.
            self._cursors.change_log(room, input.ep, input.head, input.floor, "ahead")
        elif since is not None and since.ep == room.ep and input.head < since.off <= room.pos:
            self._find_position(member)  # The room moved past the answer: only a new one can tell about this offset.
            return True
        room.asking -= 1
        room.floor = max(room.floor, input.floor)
        head = max(input.head, room.pos)
        start, reason = start_of(member, input, head)
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
        self._cursors.tell_live(member, cursor)  # Nothing was announced: what is sent next is new already.
        self._settle(member)

    def _tell_joined(self, member: Member, payload: dict[str, object]) -> None:
        if member.wire:
            self.sessions.answer(member.conn, wire.answer("$joined", member.ref, member.room.name, payload))
            member.ref = None

    def _settle(self, member: Member) -> None:
        """Lets a member read on; where it has everything already it becomes live."""
        conn = member.conn
        if conn.behind is None:
            conn.behind = deque()
        conn.behind.append(member)
        self._cursors.catch_up(conn)

    def leave(self, conn: Conn, name: str) -> bool:
        """Ends a membership; False where there is none."""
        member = conn.rooms.pop(name, None) if conn.rooms is not None else None
        if member is None:
            return False
        self._detach(member)
        if conn.dropped is not None:
            conn.dropped.pop(name, None)
        room = member.room
        if not room.members:
            del self._by_name[name]
            self._cursors.forget(room)
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
            self._refuse(member, "bad_message", "the room was left or joined again before this join was answered")
        if member.live:
            member.live = False
            room.live = None
        if conn.behind is not None:
            conn.behind = deque(other for other in conn.behind if other is not member) or None

    def _refuse(self, member: Member, code: str, message: str) -> None:
        """Answers a client's join that comes to nothing: every ref gets its one final answer (PROTOCOL §11)."""
        if member.ref is not None:
            self.sessions.answer(member.conn, wire.error(code, message, member.ref, member.room.name))
            member.ref = None

    def retry(self, conn: Conn) -> None:
        """Asks again what could not be read."""
        for member in tuple((conn.rooms or {}).values()):
            if member.asking and all(asked is not member for asked, _, _ in self._asks.values()):
                self._find_position(member)
        self._cursors.catch_up(conn)

    def position_failed(self, request: int, code: str, message: str) -> bool:
        """A position could not be had: refused to the client that asked, or asked again later."""
        asked, _, _ = self._asks.pop(request, (None, "", 0))
        if asked is None:
            return False
        if self._cursors.is_current(asked):
            if asked.ref is not None:
                self._refuse(asked, code, wire.store_error(code, message))
                self.leave(asked.conn, asked.room.name)
            else:
                self._cursors.retry_later(asked.conn)
        return True

    # ---- messages that are not stored -----------------------------------------------------------

    def broadcast_unstored(self, name: str, text: bytes) -> None:
        """Sends a message that no log keeps to the members who are live, or whose position is still being asked."""
        room = self._by_name.get(name)
        if room is None:
            return
        targets = self._cursors.live_ids(room)
        members = room.live or []
        if room.asking:
            members = members + [m for m in room.members.values() if m.asking and not m.conn.parked]
            targets = tuple(member.conn.id for member in members)
        if targets:
            self._cursors.fan_out(members, targets, encode_frame(TEXT, text), 1)
        if not room.stored and len(targets) < len(room.members):
            for member in room.members.values():
                conn = member.conn
                if conn.parked and conn.id not in targets:
                    if conn.dropped is None:
                        conn.dropped = {}
                    conn.dropped[name] = conn.dropped.get(name, 0) + 1
