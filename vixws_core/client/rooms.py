"""The rooms a client wants, and how far it is in each: a room is a log, a subscription is a cursor (PROTOCOL §3).

Each room has two positions. The cursor is the last message told; duplicates and jumps are judged by it, and a
reconnect goes on from it. The position is the last message *handled*, with all before it: what a program
keeps to go on after its own end, so that a crash in a handler loses nothing.

A stored room whose messages are not handled in time is left (parked) and joined again at its cursor, so a
slow reader costs bounded memory and never holds up the answers that it may itself be waiting for.
"""

from __future__ import annotations

from ..codes import PROTOCOL_ERROR
from ..effects import MessageSkipped
from ..errors import LocalError
from ..message import encode_json
from ..names import check_name
from ..wire.envelope import Incoming, Place, client_message
from ..wire.payloads import ErrorPayload, GapPayload, JoinedPayload, LivePayload, decode_payload
from .config import ClientConfig
from .cursor import Phase, Position, RoomCursor
from .link import FAR, Link
from .records import (
    ClientJoin,
    ClientLeave,
    ClientMessage,
    RoomGap,
    RoomJoined,
    RoomLeft,
    RoomLive,
    RoomReset,
)

__all__ = ["ClientRooms"]


class ClientRooms:
    """All rooms of a client, and the account of messages told and not handled."""

    def __init__(self, link: Link, config: ClientConfig) -> None:
        self._link = link
        self._config = config
        self._backoff = (config.backoff_min_s, config.backoff_max_s)
        self._rooms: dict[str, RoomCursor] = {}
        self._refs = 0
        self._number = 0
        self._leaving: dict[str, int] = {}
        """Rooms whose `$left` is on its way, and how many: what still comes of them belongs to the past."""
        self._told: dict[int, tuple[RoomCursor | None, int]] = {}
        """Messages told and not handled: the stored room whose entry it is, and its size."""
        self.unhandled: int = 0
        """Messages told and not handled that are no entries of a stored room."""
        self.unhandled_bytes: int = 0
        self.duplicates: int = 0
        """Entries dropped because they had been told."""
        self.jumps: int = 0
        """Times a room was joined again because offsets were missing."""
        self.late: int = 0
        """Messages dropped because they belong to no membership of ours."""
        self.retry_at: float = FAR

    def __contains__(self, room: str) -> bool:
        return room in self._rooms

    def names(self) -> tuple[str, ...]:
        """The rooms that are wanted."""
        return tuple(self._rooms)

    def positions(self) -> dict[str, Position]:
        """Where each stored room's handled messages end."""
        return {name: room.handled for name, room in self._rooms.items() if room.handled is not None}

    def cursors(self) -> dict[str, Position]:
        """Where each stored room's told messages end."""
        return {name: room.at for name, room in self._rooms.items() if room.at is not None}

    @property
    def full(self) -> bool:
        """Whether messages other than stored rooms' wait up to their limits."""
        return self.unhandled >= self._config.unhandled_max or self.unhandled_bytes >= self._config.unhandled_bytes_max

    @property
    def waiting(self) -> bool:
        """Whether any message told is not handled."""
        return bool(self._told)

    # ---- the application ------------------------------------------------------------------------

    def join(self, ask: ClientJoin) -> None:
        """Takes a room to the wanted ones. Raises: `LocalError` for a bad name, a second join, one too many."""
        check_name(ask.room)
        if ask.room in self._rooms:
            raise LocalError(f"room {ask.room!r} is joined already, expected it to be left first")
        if len(self._rooms) >= self._config.rooms_max:
            raise LocalError(f"{len(self._rooms)} rooms are joined, at most {self._config.rooms_max} may be")
        room = self._rooms[ask.room] = RoomCursor(ask)
        if self._link.is_open:
            self._ask(room)

    def leave(self, ask: ClientLeave) -> None:
        """Takes a room from the wanted ones."""
        room = self._rooms.get(ask.room)
        if room is None:
            return
        self._forget(room)
        if room.phase in (Phase.ASKED, Phase.IN) and self._link.is_open:
            self._send_leave(room.name)
        self._link.tell(RoomLeft(room.name))

    def handled(self, number: int) -> None:
        """Takes note that a message is handled; a number not known is ignored."""
        told = self._told.pop(number, None)
        if told is None:
            return
        room, size = told
        if room is None:
            self.unhandled -= 1
            self.unhandled_bytes -= size
            return
        room.unhandled -= 1
        room.unhandled_bytes -= size
        room.done.add(number)
        room.stalls = 0
        room.settle()
        config = self._config
        low = (
            room.unhandled <= config.room_unhandled_max // 2
            and room.unhandled_bytes <= config.room_unhandled_bytes_max // 2
        )
        if room.phase is Phase.PARKED and low:
            room.phase = Phase.OUT
            if self._link.is_open:
                self._ask(room)

    # ---- the connection -------------------------------------------------------------------------

    def opened(self) -> None:
        """Joins every room on a new connection, each from its own cursor."""
        for room in self._rooms.values():
            if room.phase is Phase.OUT:
                self._ask(room)

    def lost(self) -> None:
        """Takes note that the connection ended."""
        self.retry_at = FAR
        self._leaving.clear()
        for room in self._rooms.values():
            room.retry_at = FAR
            if room.phase is not Phase.PARKED:
                room.phase = Phase.OUT

    def due(self) -> None:
        """Joins again the rooms that the server asked to try later."""
        now = self._link.now
        if now < self.retry_at:
            return
        for room in self._rooms.values():
            if room.retry_at <= now:
                self._ask(room)
        self.retry_at = min((room.retry_at for room in self._rooms.values()), default=FAR)

    def _ask(self, room: RoomCursor) -> None:
        self._refs += 1
        room.ref = f"~j{self._refs}"
        room.phase = Phase.ASKED
        room.retry_at = FAR
        payload: dict[str, object] = {}
        if room.at is not None:
            ep, off, id = room.at
            payload["since"] = {"ep": ep, "off": off} if id is None else {"ep": ep, "off": off, "id": id}
        elif room.asked.last:
            payload["last"] = room.asked.last
        if room.asked.from_floor:
            payload["on_fail"] = "floor"
        self._link.send(client_message("$join", encode_json(payload), ref=room.ref, room=room.name))

    def _send_leave(self, room: str) -> None:
        self._leaving[room] = self._leaving.get(room, 0) + 1
        self._link.send(client_message("$leave", b"{}", room=room))

    def _member(self, name: str | None) -> RoomCursor | None:
        """The room of that name, where the server has let us in."""
        room = self._rooms.get(name or "")
        return room if room is not None and room.phase is Phase.IN else None

    # ---- what the server says -------------------------------------------------------------------

    def joined(self, message: Incoming) -> None:
        """`$joined`: the position at which the room begins for us."""
        room = self._rooms.get(message.room or "")
        if room is None or room.phase is not Phase.ASKED or message.ref != room.ref:
            return
        found = decode_payload(JoinedPayload, message.payload)
        room.phase = Phase.IN
        room.failures = 0
        recovered = found.recovered
        reason = found.reason or ""
        if not found.stored:
            room.at = None
        elif not recovered:
            room.note(0, (found.ep, found.from_, found.id or None))
        elif not room.is_at(found.ep, found.from_, found.id):
            # Recovered to another position than ours is not recovered.
            self._link.blame(PROTOCOL_ERROR, f"recovered room {room.name!r} at another position")
            recovered, reason = False, "fork"
            room.note(0, (found.ep, found.from_, found.id or None))
        told = RoomJoined(
            room.name, found.ep, found.from_, found.head, found.floor, recovered, reason, found.stored, found.id
        )
        self._link.tell(told)

    def left(self, message: Incoming) -> None:
        """`$left`: nothing more comes of that membership."""
        name = message.room or ""
        waiting = self._leaving.pop(name, 0) - 1
        if waiting > 0:
            self._leaving[name] = waiting

    def live(self, message: Incoming) -> None:
        """`$live`: all that was announced has come."""
        room = self._member(message.room)
        if room is not None:
            found = decode_payload(LivePayload, message.payload)
            self._link.progress()
            self._link.tell(RoomLive(room.name, found.off))

    def gap(self, message: Incoming) -> None:
        """`$gap`: offsets that nobody can have any more."""
        room = self._member(message.room)
        if room is None:
            return
        found = decode_payload(GapPayload, message.payload)
        if room.at is None:
            self._link.tell(RoomGap(room.name, dropped=found.dropped))
            return
        ep, off, _ = room.at
        if found.from_ > off + 1:
            self._jump(room)
        elif found.to > off:
            room.note(0, (ep, found.to, found.id or None))
            self._link.tell(RoomGap(room.name, off + 1, found.to, id=found.id))

    def reset(self, message: Incoming) -> None:
        """`$reset`: the log is another one."""
        room = self._member(message.room)
        if room is None:
            return
        found = decode_payload(JoinedPayload, message.payload)
        room.note(0, (found.ep, found.from_, found.id or None))
        reason = found.reason or ""
        self._link.tell(RoomReset(room.name, found.ep, found.from_, found.head, found.floor, reason, found.id))

    def kicked(self, message: Incoming) -> None:
        """`$kicked`: put out by the server."""
        room = self._member(message.room)
        if room is not None:
            error = decode_payload(ErrorPayload, message.payload)
            self._forget(room)
            self._link.tell(RoomLeft(room.name, error.code, error.msg))

    def refused(self, ref: str | None, error: ErrorPayload) -> bool:
        """`$err`; False where it answers no join of ours."""
        if ref is None or ref[:2] != "~j":
            return False
        for room in self._rooms.values():
            if room.ref == ref and room.phase is Phase.ASKED:
                self._refused(room, error)
                return True
        return True

    def _refused(self, room: RoomCursor, error: ErrorPayload) -> None:
        if not error.retry:
            self._forget(room)
            self._link.tell(RoomLeft(room.name, error.code, error.msg))
            return
        delay = self._link.chance.backoff(room.failures, *self._backoff)
        room.failures += 1
        if error.after_ms is not None:
            delay += min(error.after_ms / 1000, self._config.reconnect_told_max_s)
        self._ask_later(room, delay)

    def _ask_later(self, room: RoomCursor, delay: float) -> None:
        """Joins a room again after a while; what comes of it meanwhile is not asked for."""
        room.phase = Phase.OUT
        room.retry_at = self._link.now + delay
        self.retry_at = min(self.retry_at, room.retry_at)

    def _forget(self, room: RoomCursor) -> None:
        """Takes a room from the wanted ones; what is told of it need not be handled any more."""
        del self._rooms[room.name]
        for number, _ in room.ledger:
            self._told.pop(number, None)

    # ---- messages -------------------------------------------------------------------------------

    def message(self, data: str, message: Incoming) -> None:
        """A message of a room."""
        name = message.room or ""
        room = self._rooms.get(name)
        if room is None and name not in self._leaving:
            self.tell(data, message)  # The server's application has put us into this room.
        elif room is None or room.phase is not Phase.IN:
            self.late += 1
        elif not message.off:
            self.tell(data, message)
        elif room.at is None or message.ep != room.at[0] or message.off > room.at[1] + 1:
            self._jump(room)
        elif message.off <= room.at[1]:
            self.duplicates += 1
        elif (
            room.unhandled >= self._config.room_unhandled_max
            or room.unhandled_bytes >= self._config.room_unhandled_bytes_max
        ):
            room.phase = Phase.PARKED
            self._send_leave(room.name)
        else:
            room.unhandled += 1
            room.unhandled_bytes += len(data)
            number = self._tell(data, message, room)
            room.note(number, (message.ep, message.off, message.id or None))

    def pass_over(self, place: Place) -> bool:
        """An entry that is no message: the room goes on behind it; False where nothing is known of the room's log."""
        room = self._member(place.room)
        if room is None or room.at is None or not place.off:
            return False
        ep, off, _ = room.at
        if place.ep != ep or place.off > off + 1:
            self._jump(room)
        elif place.off <= off:
            self.duplicates += 1
        else:
            room.note(0, (ep, place.off, place.id or None))
            self._link.tell(MessageSkipped(self._link.conn, "unreadable"))
            self._link.tell(RoomGap(room.name, place.off, place.off, id=place.id, unreadable=True))
        return True

    def tell(self, data: str | bytes, message: Incoming | None = None) -> None:
        """A message that is no entry of a stored room; at most once, so what nobody takes is skipped in the end."""
        config = self._config
        if (
            self.unhandled >= config.unhandled_max * config.skip_factor
            or self.unhandled_bytes >= config.unhandled_bytes_max * config.skip_factor
        ):
            self._link.tell(MessageSkipped(self._link.conn, "unhandled"))
            return
        self.unhandled += 1
        self.unhandled_bytes += len(data)
        self._tell(data, message, None)

    def _tell(self, data: str | bytes, message: Incoming | None, room: RoomCursor | None) -> int:
        self._number += 1
        number = self._number
        self._told[number] = (room, len(data))
        self._link.progress()
        if message is None:
            self._link.tell(ClientMessage(number, data))
            return number
        told = ClientMessage(
            number,
            data,
            message.type,
            bytes(message.payload),
            message.room,
            message.kind,
            message.ep,
            message.off,
            message.id,
            message.ts,
            message.mid,
            message.sender,
            message.ref,
        )
        self._link.tell(told)
        return number

    def _jump(self, room: RoomCursor) -> None:
        """Offsets are missing and nobody said why: ask for them, again and again only with pauses that grow."""
        self.jumps += 1
        if not room.stalls:
            self._ask(room)
        else:
            self._ask_later(room, self._link.chance.backoff(room.stalls - 1, *self._backoff))
        room.stalls += 1
