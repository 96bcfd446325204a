"""A connection's turn with the application: what its frames hold, in order, one record at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from . import wire
from .effects import AppMessage, MessageReceived, PeerMisbehaved
from .errors import BadMessage
from .inputs import HandlerFinished
from .state import BACKLOG_BYTES, FAR, Conn, HubState, Pause, Pending, Phase
from .wire.envelope import Envelope
from .wire.frames import PONG, CloseReceived, FrameFailed, PingReceived, PongReceived, Received, encode_frame

if TYPE_CHECKING:
    from .deadlines import Deadlines
    from .protocol import Protocol
    from .session import Sessions

__all__ = ["Turns"]

_FAILURES: Final = {1002: "protocol_error", 1007: "bad_utf8", 1008: "too_many_fragments", 1009: "too_large"}


class Turns:
    """Takes the messages of connections from their bytes, and gives each its turn."""

    __slots__ = ("_state", "deadlines", "protocol", "sessions")

    deadlines: Deadlines
    protocol: Protocol
    sessions: Sessions

    def __init__(self, state: HubState) -> None:
        self._state = state

    def feed(self, conn: Conn, data: bytes) -> None:
        """Parses bytes and gives the messages in them their turn."""
        reader = conn.reader
        assert reader is not None
        state = self._state
        # Threats row 32: who does not take its answers, or has too many to come, is not heard further.
        holding = conn.pauses & Pause.HOLDING and not conn.gone
        most = 0 if holding else state.config.events_per_step_max
        events = reader.feed(data, most)
        if holding:
            state.ready.pop(conn.id, None)
        elif len(events) >= most and reader.held:
            # Threat row 7: so many events a step; the rest waits for the next.
            state.ready[conn.id] = None
            if reader.held > BACKLOG_BYTES:
                self.sessions.pause(conn, Pause.BACKLOG)
            conn.message_since = FAR
        else:
            if state.ready:
                state.ready.pop(conn.id, None)
            if conn.pauses & Pause.BACKLOG:
                self.sessions.resume(conn, Pause.BACKLOG)
            if not reader.in_message:
                conn.message_since = FAR
            elif conn.message_since == FAR or any(type(event) in (str, bytes) for event in events):
                # Another message began; control frames in the midst of one give it no more time.
                conn.message_since = state.now
                state.arm(conn, state.now + state.config.message_timeout_s)
        if events:
            self._sort(conn, events)
        if conn.ending is not None or conn.gone:
            self.sessions.conclude(conn)
        elif state.draining:
            self.deadlines.drain(conn)

    def _sort(self, conn: Conn, events: list[Received]) -> None:
        """Turns what the frames held into messages in turn, and answers pings."""
        items: list[Pending] = []
        pong: PingReceived | None = None
        controls = 0
        for event in events:
            kind = type(event)
            if kind is str:
                item = self._item(conn, event)  # type: ignore[arg-type]  # `kind` says it is a str.
                if item is not None:
                    items.append(item)
            elif kind is bytes:
                items.append(event)  # type: ignore[arg-type]  # `kind` says it is bytes.
            elif isinstance(event, CloseReceived):
                self.sessions.begin_ending(conn, event.code, event.reason, by_peer=True)
            elif isinstance(event, FrameFailed):
                self._state.out.append(
                    PeerMisbehaved(conn.id, _FAILURES.get(event.code, "protocol_error"), event.reason)
                )
                self.sessions.begin_ending(conn, event.code, event.reason, by_peer=False)
            else:
                controls += 1
                if isinstance(event, PingReceived):
                    pong = event
                else:
                    assert isinstance(event, PongReceived)
        if items:
            conn.last_data = self._state.now
            self._deliver(conn, items)
        if conn.limited:
            self._charge(conn, len(events) - controls)
        if controls:
            self._count_controls(conn, controls)
        if pong is not None and conn.phase is Phase.OPEN and not conn.gone:
            # RFC 6455 §5.5.3: an endpoint may answer only the most recent ping.
            self._state.send(conn, encode_frame(PONG, pong.payload))

    def _item(self, conn: Conn, text: str) -> Pending | None:
        """Decides whose business a text message is; None where it was refused."""
        typed = conn.typed
        if not typed and not text.startswith("{"):
            return text
        try:
            envelope = wire.decode(text, self._state.config.json_depth_max)
        except BadMessage as exc:
            if not typed:
                return text
            self.protocol.refuse(conn, exc.code, str(exc), wire.find_ref(text))
            return None
        if envelope.type[0] == "$":
            return envelope
        if envelope.room is not None and envelope.type not in conn.guarded:
            return envelope
        if not typed and envelope.room is None:
            return text
        payload = bytes(envelope.payload)
        return AppMessage(text, envelope.type, payload, envelope.kind, envelope.ref, envelope.room, envelope.mid)

    def _deliver(self, conn: Conn, items: Sequence[Pending]) -> None:
        """Gives messages their turn, in order: a record for the application ends before one for the hub."""
        if conn.phase is not Phase.OPEN and not conn.gone:
            return
        if conn.busy:
            if conn.pending is None:
                conn.pending = deque()
            for item in items:
                if type(item) is Envelope and item.type == "$ping":
                    self.protocol.take(conn, item)
                else:
                    conn.pending.append(item)
            if len(conn.pending) >= self._state.config.pending_messages_max:
                self.sessions.pause(conn, Pause.PENDING)
                self._state.ready.pop(conn.id, None)
            return
        run: list[AppMessage | str | bytes] = []
        for at, item in enumerate(items):
            if type(item) is not Envelope:
                run.append(item)  # type: ignore[arg-type]  # Everything but an Envelope is the application's.
            elif not run or item.type == "$ping":
                self.protocol.take(conn, item)
                if conn.phase is not Phase.OPEN and not conn.gone:
                    return
            else:
                conn.pending = deque(items[at:]) if not isinstance(items, deque) else deque(list(items)[at:])
                break
        if run:
            conn.heard = conn.busy = True
            self._state.out.append(MessageReceived(conn.id, tuple(run)))

    def finished(self, input: HandlerFinished) -> None:
        """The application is done with a record: what waits behind it has its turn."""
        conn = self._state.conns.get(input.conn)
        if conn is None or not conn.busy:
            return
        conn.busy = False
        if input.failed:
            conn.pending = None
            self._state.ready.pop(conn.id, None)
            self.sessions.close(conn, 1011, "a handler failed")
        elif conn.pending:
            items, conn.pending = conn.pending, None
            self._deliver(conn, tuple(items))
        else:
            conn.pending = None
        if not conn.busy and conn.pauses & Pause.PENDING:
            self.sessions.resume(conn, Pause.PENDING)
            if conn.reader is not None and conn.reader.held and conn.phase is Phase.OPEN:
                self._state.ready[conn.id] = None
        if conn.ending is not None or conn.gone:
            self.sessions.conclude(conn)
        elif self._state.draining:
            self.deadlines.drain(conn)

    def _charge(self, conn: Conn, count: int) -> None:
        """Counts messages against the connection's rate; over it nothing more is read until they are due."""
        config, now = self._state.config, self._state.now
        gained = (now - conn.message_at) * config.messages_per_s
        conn.message_at = now
        conn.message_tokens = min(config.messages_burst, conn.message_tokens + gained) - count
        if conn.message_tokens < 0 and conn.phase is Phase.OPEN:
            conn.resume_at = now - conn.message_tokens / config.messages_per_s
            self._state.ready.pop(conn.id, None)
            self.sessions.pause(conn, Pause.RATE)
            self._state.arm(conn, conn.resume_at)

    def _count_controls(self, conn: Conn, count: int) -> None:
        config = self._state.config
        if conn.control_tokens < 0:
            conn.control_tokens = config.control_frames_burst
        gained = (self._state.now - conn.control_at) * config.control_frames_per_s
        conn.control_at = self._state.now
        conn.control_tokens = min(config.control_frames_burst, conn.control_tokens + gained) - count
        if conn.control_tokens < 0:
            conn.control_tokens = 0
            self._state.out.append(PeerMisbehaved(conn.id, "rate_limited", "too many control frames"))
            self.sessions.close(conn, 1008, "too many control frames")
