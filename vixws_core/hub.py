"""The hub: one pure state machine that decides everything, behind one door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .config import HubConfig
from .cursors import Cursors
from .deadlines import Deadlines
from .effects import Broadcast, Drained, Effect
from .errors import LocalError
from .inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    Join,
    Leave,
    LeaveAll,
    ListHistory,
    PositionKnown,
    Publish,
    Refuse,
    Reject,
    RoomAdvanced,
    Send,
    SendToAll,
    Shutdown,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
    TimePassed,
)
from .protocol import Protocol
from .rooms import Rooms
from .session import Sessions
from .state import FAR, HubState, Phase
from .turns import Turns
from .wire.frames import BINARY, TEXT, encode_frame

__all__ = ["Hub"]


class Hub:
    """Rooms, sessions and the wire protocol, without IO.

    `handle(input, now)` is the only thing that changes it: it returns what must be done, in order. `now` is
    in monotonic seconds and never goes back. `seed` and `secret` key everything that looks random, so that
    the same inputs give the same effects; tokens come from `secret` (the seed where it is not given), which
    a server draws at random. `wall_zero` is the wall-clock time (Unix seconds) at which `now` is 0.
    """

    __slots__ = ("_cursors", "_deadlines", "_dispatch", "_protocol", "_rooms", "_sessions", "_state", "wall_zero")

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        seed: bytes = b"\0",
        secret: bytes | None = None,
        wall_zero: float = 0.0,
    ) -> None:
        if not 1 <= len(seed) <= 64 or (secret is not None and not 1 <= len(secret) <= 64):
            raise LocalError("seed and secret must have 1 to 64 bytes")
        self.wall_zero = wall_zero
        state = self._state = HubState(config or HubConfig(), seed, secret if secret is not None else seed)
        sessions = self._sessions = Sessions(state)
        cursors = self._cursors = Cursors(state)
        rooms = self._rooms = Rooms(state, cursors)
        protocol = self._protocol = Protocol(state)
        deadlines = self._deadlines = Deadlines(state, sessions, rooms)
        turns = Turns(state)
        sessions.rooms, sessions.turns, sessions.deadlines = rooms, turns, deadlines
        turns.sessions, turns.protocol, turns.deadlines = sessions, protocol, deadlines
        rooms.sessions = cursors.sessions = sessions
        sessions.cursors = cursors
        protocol.sessions, protocol.rooms, protocol.deadlines = sessions, rooms, deadlines
        self._dispatch: dict[type, Callable[[Any], object]] = {
            BytesReceived: sessions.received,
            BytesFlushed: sessions.flushed,
            Send: sessions.send,
            HandlerFinished: turns.finished,
            Connected: sessions.connected,
            Disconnected: sessions.disconnected,
            Accept: sessions.accept,
            Reject: sessions.reject,
            Close: sessions.close_asked,
            Join: rooms.join_asked,
            Leave: self._leave,
            LeaveAll: self._leave_all,
            SendToAll: self._send_to_all,
            Publish: protocol.publish_asked,
            ListHistory: protocol.list_asked,
            Refuse: protocol.refuse_asked,
            StoreAppended: protocol.appended,
            StoreFailed: self._store_failed,
            StoreRead: self._store_read,
            StoreListed: protocol.listed,
            PositionKnown: self._position_known,
            RoomAdvanced: cursors.advanced,
            Shutdown: self._shutdown,
            TimePassed: self._time_passed,
        }

    # ---- the door -------------------------------------------------------------------------------

    def handle(self, input: Input, now: float) -> list[Effect]:
        """Takes one input at the time `now` and returns what must be done, in order.

        Nothing that a peer sends makes it raise. Raises: `LocalError` for a command that its caller should
        not have given; such a command changes nothing.
        """
        state = self._state
        state.now = now
        out: list[Effect] = []
        state.out = out
        self._dispatch[type(input)](input)
        if state.draining:
            self._check_drained()
        return out

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due: a time that is not after `now` means at once, in the next tick."""
        state = self._state
        if state.ready:
            return state.now
        deadline = state.deadline()
        if state.draining and not state.drained:
            deadline = state.drain_deadline if deadline is None else min(deadline, state.drain_deadline)
            return None if deadline == FAR else deadline
        return deadline

    # ---- what can be seen without changing anything ---------------------------------------------

    @property
    def config(self) -> HubConfig:
        """The limits and delays it obeys."""
        return self._state.config

    @property
    def sessions(self) -> int:
        """Open WebSockets."""
        return self._state.sessions

    @property
    def connections(self) -> int:
        """Connections of any kind, those in a handshake or closing included."""
        return len(self._state.conns)

    @property
    def draining(self) -> bool:
        """Whether `Shutdown` was asked."""
        return self._state.draining

    @property
    def unsent_bytes(self) -> int:
        """Bytes in all outboxes."""
        return self._state.unsent_total

    def rooms(self) -> list[str]:
        """Names of the rooms that have members, sorted."""
        return sorted(self._state.rooms)

    def members(self, room: str) -> tuple[int, ...]:
        """The connections in a room, in the order of joining."""
        found = self._state.rooms.get(room)
        return tuple(found.members) if found is not None else ()

    def rooms_of(self, conn: int) -> tuple[str, ...]:
        """The rooms of a connection, in the order of joining."""
        found = self._state.conns.get(conn)
        return tuple(found.rooms or ()) if found is not None else ()

    def is_open(self, conn: int) -> bool:
        """Whether something can still be sent to the connection."""
        found = self._state.conns.get(conn)
        return found is not None and found.phase is Phase.OPEN and not found.gone

    def unsent_bytes_of(self, conn: int) -> int:
        """Bytes in the outbox of one connection."""
        found = self._state.conns.get(conn)
        return found.unsent if found is not None else 0

    # ---- inputs that concern more than one part -------------------------------------------------

    def _leave(self, input: Leave) -> None:
        conn = self._state.conns.get(input.conn)
        if conn is not None:
            self._rooms.leave(conn, input.room)

    def _leave_all(self, input: LeaveAll) -> None:
        conn = self._state.conns.get(input.conn)
        if conn is not None:
            self._rooms.leave_all(conn)

    def _send_to_all(self, input: SendToAll) -> None:
        state = self._state
        if state.everyone is None:
            state.everyone = tuple(
                conn for conn in state.conns.values() if conn.phase is Phase.OPEN and not (conn.gone or conn.parked)
            )
        targets = [conn for conn in state.everyone if conn.id != input.but]
        if not targets:
            return
        frame = encode_frame(BINARY if input.binary else TEXT, input.data)
        state.out.append(Broadcast(tuple(conn.id for conn in targets), frame))
        state.unsent_total += len(frame) * len(targets)
        for conn in targets:
            conn.unsent += len(frame)
            conn.last_data = state.now
        for conn in targets:
            self._sessions.weigh(conn)

    def _store_read(self, input: StoreRead) -> None:
        if not self._cursors.read(input):
            self._protocol.history_read(input)

    def _position_known(self, input: PositionKnown) -> None:
        if not self._rooms.position_known(input):
            self._protocol.position_known(input)

    def _store_failed(self, input: StoreFailed) -> None:
        if not self._cursors.read_failed(input.request) and not self._rooms.position_failed(
            input.request, input.code, input.message
        ):
            self._protocol.failed(input)

    def _time_passed(self, _: TimePassed) -> None:
        state = self._state
        self._deadlines.time_passed()
        if state.draining and state.now >= state.drain_deadline:
            state.drain_deadline = FAR
            state.overdue = True
            self._deadlines.abort_all()

    def _shutdown(self, input: Shutdown) -> None:
        state = self._state
        if state.draining:
            state.drain_deadline = min(state.drain_deadline, state.now + input.drain_s)
            return
        state.draining = True
        state.drain_deadline = state.now + input.drain_s
        self._deadlines.shutdown()

    def _check_drained(self) -> None:
        state = self._state
        if state.drained:
            return
        if state.overdue:  # Neither a store nor a handler that hangs holds the end up.
            over = all(conn.gone for conn in state.conns.values())
        else:
            over = not state.conns and not self._protocol.appends
        if over:
            state.drained = True
            state.out.append(Drained())
