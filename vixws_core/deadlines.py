"""Time and ends: what is due for a connection, and how a hub that shuts down lets its connections go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wire
from .effects import PeerMisbehaved
from .state import FAR, Conn, HubState, Pause, Phase
from .wire.frames import PING, encode_close, encode_frame

if TYPE_CHECKING:
    from .rooms import Rooms
    from .session import Sessions

__all__ = ["Deadlines"]


class Deadlines:
    """Looks at connections when their time has come. Each has one entry in the heap, re-armed lazily."""

    __slots__ = ("_rooms", "_sessions", "_state")

    def __init__(self, state: HubState, sessions: Sessions, rooms: Rooms) -> None:
        self._state = state
        self._sessions = sessions
        self._rooms = rooms

    def time_passed(self) -> None:
        """Goes on with the bytes that waited for this step, and looks at whose time has come."""
        state = self._state
        if state.ready:
            for id in tuple(state.ready):
                del state.ready[id]
                self._sessions.turns.feed(state.conns[id], b"")
        while (late := state.due()) is not None:
            self.look(late)

    def look(self, conn: Conn) -> None:
        """Does what is due for one connection and arms its next deadline."""
        phase = conn.phase
        if conn.gone:
            return
        if phase is Phase.OPEN and conn.ending is None:
            when = self._look_open(conn)
            if conn.phase is Phase.OPEN and when != FAR:
                self._state.arm(conn, when)
            return
        config = self._state.config
        limit = config.handshake_timeout_s if phase <= Phase.ASKED else config.close_timeout_s
        if self._state.now < conn.since + limit:
            self._state.arm(conn, conn.since + limit)
        elif phase is Phase.HEAD:
            self._state.out.append(PeerMisbehaved(conn.id, "handshake_timeout", "no complete request in time"))
            self._sessions.answer_http(conn, 408, (), b"the request did not come in time\n")
        elif phase is Phase.ASKED:
            self._sessions.answer_http(conn, 503, (("retry-after", "1"),), b"no answer in time\n")
        elif phase is Phase.OPEN:
            assert conn.ending is not None
            self._sessions.reply_close(conn, conn.ending)  # The handler that it waited for takes too long.
        else:
            self._sessions.end_transport(conn, abort=True)

    def _look_open(self, conn: Conn) -> float:
        """Does what is due for an open connection; returns when to look again."""
        state, config, now = self._state, self._state.config, self._state.now
        when = FAR
        if conn.parked:
            when = conn.last_flush + config.flush_stall_s
            if now >= when:
                state.out.append(PeerMisbehaved(conn.id, "slow", "took no byte in time"))
                conn.close_reason = "took no byte in time"
                state.send(conn, encode_close(4108, "slow"))
                self._sessions.end_transport(conn, abort=True)
                return FAR
        if now >= conn.retry_at:
            conn.retry_at = FAR
            self._rooms.retry(conn)
        if now >= conn.resume_at:
            conn.resume_at = FAR
            self._sessions.resume(conn, Pause.RATE)
        when = min(when, conn.retry_at, conn.resume_at)
        if conn.pauses:
            return when
        if now >= conn.ping_sent + config.pong_timeout_s:
            state.out.append(PeerMisbehaved(conn.id, "ping_timeout", "ping unanswered"))
            conn.close_reason = "ping unanswered"
            state.send(conn, encode_close(1011, "ping unanswered"))
            self._sessions.end_transport(conn)
            return FAR
        if now >= conn.message_since + config.message_timeout_s:
            state.out.append(PeerMisbehaved(conn.id, "message_timeout", "message not complete in time"))
            self._sessions.close(conn, 1008, "message not complete in time")
            return FAR
        if config.idle_timeout_s and now >= conn.last_data + config.idle_timeout_s:
            self._sessions.close(conn, 1001, "idle")
            return FAR
        if config.ping_interval_s and conn.ping_sent == FAR and now >= conn.last_received + config.ping_interval_s:
            conn.ping_sent = now
            state.send(conn, encode_frame(PING, b""))
        if conn.ping_sent != FAR:
            when = min(when, conn.ping_sent + config.pong_timeout_s)
        elif config.ping_interval_s:
            when = min(when, conn.last_received + config.ping_interval_s)
        if config.idle_timeout_s:
            when = min(when, conn.last_data + config.idle_timeout_s)
        return min(when, conn.message_since + config.message_timeout_s)

    # ---- draining -------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Tells every connection that the server goes, each with its slot for coming back."""
        state, config = self._state, self._state.config
        slot = 0
        for conn in tuple(state.conns.values()):
            if conn.phase <= Phase.ASKED:
                self._sessions.answer_http(conn, 503, (("retry-after", "1"),), b"shutting down\n")
            elif conn.phase is Phase.OPEN and not conn.gone:
                if conn.hello:
                    # PROTOCOL §11: another slot for every connection.
                    delay = config.reconnect_first_s + 1.25 * slot / config.handshakes_per_s
                    slot += 1
                    payload = {
                        "reconnect_in_ms": round(delay * 1000),
                        "close_in_ms": round((state.drain_deadline - state.now) * 1000),
                    }
                    self._sessions.answer(conn, wire.answer("$drain", payload=payload))
                self.drain(conn)

    def drain(self, conn: Conn) -> None:
        """Closes a connection of a hub that shuts down, once nothing of it is unfinished."""
        if conn.busy or conn.pending or conn.owed or conn.id in self._state.ready:
            return
        self._sessions.close(conn, 4200 if conn.hello else 1012, "the server shuts down")

    def abort_all(self) -> None:
        """The drain took too long."""
        for conn in tuple(self._state.conns.values()):
            if not conn.gone:
                self._sessions.end_transport(conn, abort=True)
