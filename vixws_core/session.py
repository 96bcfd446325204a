"""The life of a connection: its request, what it is sent, its pauses, its closing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .effects import (
    Closed,
    CloseTransport,
    Opened,
    PauseReading,
    PeerMisbehaved,
    Requested,
    ResumeReading,
)
from .errors import LocalError
from .inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    Reject,
    Send,
)
from .state import BACKLOG_BYTES, FAR, Conn, HubState, Pause, Phase
from .wire.frames import BINARY, TEXT, CloseReceived, FrameFailed, FrameReader, encode_close, encode_frame
from .wire.http import HeadReader, HeadRefused, http_answer, http_switching

if TYPE_CHECKING:
    from .cursors import Cursors
    from .deadlines import Deadlines
    from .rooms import Rooms
    from .turns import Turns

__all__ = ["Sessions"]


class Sessions:
    """Moves connections from their first byte to their last."""

    __slots__ = ("_state", "cursors", "deadlines", "rooms", "turns")

    cursors: Cursors
    deadlines: Deadlines
    rooms: Rooms
    turns: Turns

    def __init__(self, state: HubState) -> None:
        self._state = state

    # ---- the handshake --------------------------------------------------------------------------

    def connected(self, input: Connected) -> None:
        """A transport was accepted: its request is awaited, or it is ended where the hub drains."""
        state, config = self._state, self._state.config
        conn = Conn(input.conn, input.peer, state.now, HeadReader(config.head_bytes_max, config.headers_max))
        conn.limited = input.limited and config.messages_per_s > 0
        conn.message_tokens = config.messages_burst
        state.conns[input.conn] = conn
        if state.draining:
            self.end_transport(conn, abort=True)
        else:
            state.arm(conn, state.now + config.handshake_timeout_s)

    def received(self, input: BytesReceived) -> None:
        """Bytes came: they are read as what the connection waits for."""
        conn = self._state.conns.get(input.conn)
        if conn is None or conn.gone:
            return
        # RFC 6455 §5.5.3 lets only a pong answer a ping; any byte shows as well that the peer lives.
        conn.last_received = self._state.now
        conn.ping_sent = FAR
        phase = conn.phase
        if phase is Phase.OPEN:
            self.turns.feed(conn, input.data)
        elif phase is Phase.HEAD:
            self._read_head(conn, input.data)
        elif phase is Phase.ASKED:
            conn.early += input.data
            if len(conn.early) > BACKLOG_BYTES:
                self.pause(conn, Pause.BACKLOG)
        elif phase is Phase.CLOSING:
            self._read_to_close(conn, input.data)

    def _read_head(self, conn: Conn, data: bytes) -> None:
        assert conn.head is not None
        found, rest = conn.head.feed(data)
        if found is None:
            return
        conn.head = None
        if isinstance(found, HeadRefused):
            self._state.out.append(PeerMisbehaved(conn.id, "bad_handshake", found.reason))
            self.answer_http(conn, found.status, found.headers, f"{found.reason}\n".encode())
            return
        conn.phase = Phase.ASKED
        conn.request = found
        conn.early = rest
        self._state.out.append(
            Requested(conn.id, found.method, found.target, found.headers, found.upgrade, found.subprotocols)
        )

    def accept(self, input: Accept) -> None:
        """The application completes an upgrade. Raises: `LocalError` where there is none, or for its subprotocol."""
        state = self._state
        conn = state.conns.get(input.conn)
        if conn is None or conn.phase is not Phase.ASKED or conn.request is None:
            return
        request = conn.request
        if not request.upgrade:
            raise LocalError(f"connection {conn.id} asked for no WebSocket: expected Reject")
        if input.subprotocol is not None and input.subprotocol not in request.subprotocols:
            raise LocalError(f"subprotocol {input.subprotocol!r:.60} was not offered: {request.subprotocols}")
        config = state.config
        early, conn.early, conn.request = conn.early, b"", None
        conn.phase = Phase.OPEN
        conn.since = conn.last_data = conn.last_received = state.now
        conn.reader = FrameReader(message_bytes_max=config.message_bytes_max, fragments_max=config.fragments_max)
        conn.typed, conn.guarded = input.typed, input.guarded
        if input.limited is not None:
            conn.limited = input.limited and config.messages_per_s > 0
        conn.opened = conn.busy = True
        state.sessions += 1
        state.everyone = None
        state.send(conn, http_switching(request.key, input.subprotocol))
        state.out.append(Opened(conn.id, request.target, input.subprotocol))
        conn.armed = FAR
        self.deadlines.look(conn)
        self.resume(conn, Pause.BACKLOG)
        if early:
            self.turns.feed(conn, early)

    def reject(self, input: Reject) -> None:
        """The application answers a request with a plain response. Raises: `LocalError` for a bad header."""
        conn = self._state.conns.get(input.conn)
        if conn is not None and conn.phase is Phase.ASKED and not conn.gone:
            self.answer_http(conn, input.status, input.headers, input.body)

    def answer_http(self, conn: Conn, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        """Answers a request with a plain response, then ends the transport."""
        head_only = conn.request is not None and conn.request.method == "HEAD"
        self._state.send(conn, http_answer(status, headers, body, head_only=head_only))
        self.end_transport(conn)

    # ---- sending --------------------------------------------------------------------------------

    def send(self, input: Send) -> None:
        """The application sends one message."""
        conn = self._state.conns.get(input.conn)
        if conn is None or conn.phase is not Phase.OPEN or conn.gone or (conn.parked and not input.answer):
            return  # Gone is a race; above its mark a directed send is refused: no SendBytes tells the caller.
        self.put(conn, encode_frame(BINARY if input.binary else TEXT, input.data))

    def answer(self, conn: Conn, text: bytes) -> None:
        """Sends one message of the protocol; it is not refused above the mark, since requests are bounded."""
        if conn.phase is Phase.OPEN and not conn.gone:
            self.put(conn, encode_frame(TEXT, text))

    def put(self, conn: Conn, data: bytes, frames: int = 1) -> None:
        """Sends data frames, joined, and parks the connection where that takes it over its mark."""
        conn.last_data = self._state.now
        self._state.send(conn, data, frames)
        self.weigh(conn)

    def weigh(self, conn: Conn) -> None:
        """Parks the connection where it holds too much (PROTOCOL §5)."""
        config = self._state.config
        if conn.parked or conn.unsent <= config.unsent_bytes_low:
            return
        if conn.unsent > config.unsent_bytes_high or self._state.unsent_total > config.unsent_bytes_total:
            conn.parked = True
            conn.last_flush = self._state.now
            self._state.everyone = None
            self.cursors.park(conn)
            self.pause(conn, Pause.UNSENT)
            self._state.arm(conn, self._state.now + config.flush_stall_s)

    def flushed(self, input: BytesFlushed) -> None:
        """Outboxes shrank: who is below its mark reads on."""
        state = self._state
        conns, low = state.conns, state.config.unsent_bytes_low
        for id, count in input.flushed:
            conn = conns.get(id)
            if conn is None or conn.gone:
                continue
            conn.unsent -= count
            state.unsent_total -= count
            conn.last_flush = state.now
            if conn.parked:
                if conn.unsent < low:
                    conn.parked = False
                    state.everyone = None
                    self.resume(conn, Pause.UNSENT)
                    self.cursors.unpark(conn)
            elif conn.behind and conn.unsent < low:
                self.cursors.catch_up(conn)

    def pause(self, conn: Conn, why: Pause) -> None:
        """Stops reading for one more reason; every deadline that only reading can meet is suspended."""
        if not conn.pauses and conn.phase is not Phase.CLOSED and not conn.gone:
            self._state.out.append(PauseReading(conn.id))
        conn.pauses |= why

    def resume(self, conn: Conn, why: Pause) -> None:
        """Takes one reason away; with the last one reading goes on, and the suspended deadlines begin anew."""
        if not conn.pauses & why:
            return
        conn.pauses &= ~why
        if why & Pause.HOLDING:
            self._read_held(conn)
        if conn.pauses or conn.gone or conn.phase is Phase.CLOSED:
            return
        now = self._state.now
        conn.last_received = conn.last_data = now
        conn.ping_sent = FAR
        if conn.message_since != FAR:
            conn.message_since = now
        self._state.out.append(ResumeReading(conn.id))
        conn.armed = FAR
        self.deadlines.look(conn)

    def _read_held(self, conn: Conn) -> None:
        """Goes on with the frames that were held back, in the next step."""
        waits = conn.pauses & Pause.PENDING or (conn.pauses & Pause.HOLDING and not conn.gone)
        if conn.phase is Phase.OPEN and conn.reader is not None and conn.reader.held and not waits:
            self._state.ready[conn.id] = None

    # ---- closing --------------------------------------------------------------------------------

    def close_asked(self, input: Close) -> None:
        """The application's close. Raises: `LocalError` for a code that is none (RFC 6455 §7.4)."""
        if not 1000 <= input.code <= 4999:
            raise LocalError(f"a close code must be from 1000 to 4999, got {input.code}")
        conn = self._state.conns.get(input.conn)
        if conn is not None:
            self.close(conn, input.code, input.reason)

    def close(self, conn: Conn, code: int, reason: str) -> None:
        """Starts the closing handshake (RFC 6455 §7.1.2); what was not handled yet is dropped."""
        if conn.phase is not Phase.OPEN or conn.gone:
            return
        state = self._state
        state.send(conn, encode_close(code, reason))
        conn.phase = Phase.CLOSING
        conn.since = state.now
        conn.pending = None
        self._out_of_rooms(conn)
        state.ready.pop(conn.id, None)
        if conn.ending is not None:  # The peer's close frame is here already.
            self.end_transport(conn)
            return
        conn.close_reason = reason
        if conn.pauses:
            conn.pauses = 0
            state.out.append(ResumeReading(conn.id))
        state.arm(conn, state.now + state.config.close_timeout_s)
        if conn.reader is not None and conn.reader.held:
            self._read_to_close(conn, b"")

    def _read_to_close(self, conn: Conn, data: bytes) -> None:
        """After our close frame all data is discarded until the peer's (RFC 6455 §1.4)."""
        assert conn.reader is not None
        for event in conn.reader.feed(data):
            if isinstance(event, CloseReceived):
                conn.close_code, conn.close_reason = event.code, event.reason
                self.end_transport(conn)
            elif isinstance(event, FrameFailed):
                self.end_transport(conn)

    def begin_ending(self, conn: Conn, code: int, reason: str, *, by_peer: bool) -> None:
        """Notes how it ends once all before that is handled: the peer closed, or broke the framing."""
        conn.ending = (code, reason, by_peer)
        conn.close_code, conn.close_reason = code, reason
        conn.since = self._state.now
        self._state.arm(conn, conn.since + self._state.config.close_timeout_s)

    def conclude(self, conn: Conn) -> None:
        """Ends the connection once everything before its end is handled."""
        if conn.busy or conn.pending or conn.id in self._state.ready:
            return
        if conn.gone:
            del self._state.conns[conn.id]
            self._state.sessions -= 1
            self._state.out.append(Closed(conn.id, conn.close_code, conn.close_reason))
        elif conn.phase is Phase.OPEN and conn.ending is not None:
            self.reply_close(conn, conn.ending)

    def reply_close(self, conn: Conn, ending: tuple[int, str, bool]) -> None:
        """Sends our half of a close that the peer, or its fault, began; then ends the transport."""
        code, reason, by_peer = ending
        # RFC 6455 §5.5.1: "the endpoint typically echos the status code it received".
        self._state.send(conn, encode_close(code, "" if by_peer else reason))
        self.end_transport(conn)

    def end_transport(self, conn: Conn, *, abort: bool = False) -> None:
        """Ends the transport once its outbox is flushed, or at once; nothing more is sent or read."""
        conn.phase = Phase.CLOSED  # First: nothing is sent behind the close frame, whatever leaving rooms answers.
        if conn.opened:
            self._out_of_rooms(conn)
        conn.since = self._state.now
        conn.early = b""
        self._state.ready.pop(conn.id, None)
        self._state.out.append(CloseTransport(conn.id, abort))
        if not abort:
            self._state.arm(conn, conn.since + self._state.config.close_timeout_s)

    def _out_of_rooms(self, conn: Conn) -> None:
        self._state.everyone = None
        self.rooms.leave_all(conn)

    def disconnected(self, input: Disconnected) -> None:
        """A transport ended: the connection leaves its rooms, and is over once nothing of it is unfinished."""
        state = self._state
        conn = state.conns.get(input.conn)
        if conn is None or conn.gone:
            return
        conn.gone = True
        state.unsent_total -= conn.unsent
        conn.unsent = 0
        if not conn.opened:
            del state.conns[conn.id]
            return
        self._out_of_rooms(conn)
        self._read_held(conn)
        if conn.close_code == 1006 and not conn.close_reason:
            conn.close_reason = input.reason
        self.conclude(conn)
