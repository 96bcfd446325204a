"""A session's inbox: what its frames hold and whose business that is, in order, one record at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ...bucket import TokenBucket
from ...codes import CLOSE_POLICY, CLOSE_SERVER_FAULT, FRAMING_FAULTS, PROTOCOL_ERROR, RATE_LIMITED
from ...effects import AppMessage, MessageReceived, PeerMisbehaved
from ...errors import BadMessage
from ...inputs import HandlerFinished
from ...wire import envelope as wire
from ...wire.envelope import Envelope
from ...wire.frames import PONG, CloseReceived, FrameFailed, FrameReader, PingReceived, Received, encode_frame
from ...wire.inflate import INFLATED_PER_STEP
from ..connection.outbox import Outbox
from ..connection.reading import BACKLOG_BYTES, Reading
from ..connection.timers import Timers
from ..model import FAR, GONE, HANDLED, OPEN, Connection, Pause, Pending, Session
from ..step import Step
from .lifecycle import Lifecycle
from .rates import Rates
from .requests import Requests

__all__ = ["Inbox"]


class Inbox:
    """Takes messages from the bytes of connections, and gives each its turn."""

    __slots__ = ("_lifecycle", "_outbox", "_rates", "_reading", "_requests", "_step", "_timers")

    def __init__(
        self,
        step: Step,
        timers: Timers,
        reading: Reading,
        outbox: Outbox,
        lifecycle: Lifecycle,
        rates: Rates,
        requests: Requests,
    ) -> None:
        self._step = step
        self._timers = timers
        self._reading = reading
        self._outbox = outbox
        self._lifecycle = lifecycle
        self._rates = rates
        self._requests = requests

    def feed(self, connection: Connection, data: bytes) -> None:
        """Parses bytes of a connection that is or was open, and gives the messages in them their turn.

        What a read leads to does not depend on where the bytes were cut: whatever may end a connection, or break the
        framing, comes from the reader in a part of its own, behind what was answered before it.
        """
        reader, session, step = connection.reader, connection.session, self._step
        assert reader is not None and session is not None  # It is or was open.
        left, more, holding = step.config.events_per_step_max, True, 0
        reader.more = False  # What was left belongs to this step.
        crowded = self._reading.received_total > step.config.received_bytes_total
        if crowded:
            left = 1  # What follows may be far larger once it is inflated.
        while more:
            # Threats row 32: who does not take its answers, or has too many to come, is not heard further; nor who
            # would only wait here, where all together hold too much.
            holding = (connection.pauses & Pause.HOLDING and connection.state is not GONE) or (crowded and session.busy)
            events = reader.feed(data, 0 if holding else left, True)
            frames = len(events) + reader.quiet
            if (
                reader.more
                or reader.in_message
                or frames >= left
                or connection.pauses
                or connection.message_since != FAR
                or reader.inflated
                or step.ready
            ):
                more = self._look(connection, reader, events, frames, 0 if holding else left)
                left, data = left - frames, b""
            else:
                more = False  # Whole messages and nothing besides, as nearly always.
            if frames:
                self._sort(connection, session, events, frames)
                more = more and connection.state in HANDLED
        if reader.inflated:
            self._rates.inflated(connection, reader.inflated)
        if holding or connection.received or session.queued or connection.message_since != FAR or step.ready:
            self._reading.weigh(connection, reader.weight + session.queued)
        if connection.state is not OPEN or self._lifecycle.draining:
            self._lifecycle.settle(connection)

    def _look(
        self, connection: Connection, reader: FrameReader, events: list[Received], frames: int, most: int
    ) -> bool:
        """What parsing so many frames left, of `most` that it might take (0: it is held up).

        Returns whether the reader goes on at once.
        """
        if not most:
            self._reading.forget_ready(connection)
        elif reader.more and frames < most and reader.inflated < INFLATED_PER_STEP:
            if connection.message_since != FAR and _has_data(events):
                self._timers.end_message(connection)
            return True
        elif (frames >= most or reader.inflated >= INFLATED_PER_STEP) and reader.held:
            # Threat row 7: so many frames a step, and so much inflated; the rest waits for the next.
            self._reading.come_back(connection)
            if reader.held > BACKLOG_BYTES:
                self._reading.pause(connection, Pause.BACKLOG)
            self._timers.end_message(connection)
        else:
            if self._step.ready:
                self._reading.forget_ready(connection)
            if connection.pauses & Pause.BACKLOG:
                self._reading.resume(connection, Pause.BACKLOG)
            if not reader.in_message:
                if connection.message_since != FAR:
                    self._timers.end_message(connection)
            elif connection.message_since == FAR or _has_data(events):
                # Another message began; control frames in the midst of one give it no more time.
                self._timers.begin_message(connection)
        return False

    def _sort(self, connection: Connection, session: Session, events: list[Received], frames: int) -> None:
        """Gives all that so many frames held its turn, in order, as if each had come alone."""
        items: list[Pending] = []
        controls: list[Received] = []
        answered = 0
        for event in events:
            kind = type(event)
            if kind is str or kind is bytes:
                if controls:
                    answered += self._answer_controls(connection, controls)
                    controls = []
                if kind is bytes:
                    items.append(event)  # type: ignore[arg-type]  # `kind` says it is bytes.
                    continue
                item = self._item(connection, session, event, items)  # type: ignore[arg-type]  # And here a str.
                if item is not None:
                    items.append(item)
                continue
            if items:
                self._outbox.touch(connection)
                self._deliver(session, items)
                items = []
                if connection.state not in HANDLED:
                    break
            if isinstance(event, CloseReceived):
                self._lifecycle.begin_ending(connection, event.code, event.reason, by_peer=True)
                self._lifecycle.tell_ending(connection)
            elif isinstance(event, FrameFailed):
                word = event.word or FRAMING_FAULTS.get(event.code, PROTOCOL_ERROR)
                self._step.out.append(PeerMisbehaved(connection.id, word, event.reason))
                self._lifecycle.begin_ending(connection, event.code, event.reason, by_peer=False)
                self._lifecycle.tell_ending(connection)
            else:
                controls.append(event)
        if items:
            self._outbox.touch(connection)
            self._deliver(session, items)
        if controls:
            answered += self._answer_controls(connection, controls)
        if connection.message_allowance is not None:
            self._rates.messages(session, frames - answered)

    def _item(self, connection: Connection, session: Session, text: str, before: list[Pending]) -> Pending | None:
        """Decides whose business a text message is; None where it was refused, behind those that came `before`."""
        typed = session.typed
        if not typed and (not text.startswith("{") or not (session.speaks or '"$hello"' in text)):
            return text
        try:
            envelope = wire.decode(text, self._step.config.json_depth_max)
        except BadMessage as exc:
            if not typed:
                return text
            if before:
                self._outbox.touch(connection)
                self._deliver(session, before)
                before.clear()
            if connection.state in HANDLED:
                self._requests.refuse(connection, exc.code, str(exc), wire.find_ref(text))
            return None
        if not session.speaks:
            if envelope.type != "$hello":
                return text  # It speaks no protocol of ours, as far as anybody said.
            session.speaks = True
        if envelope.type[0] == "$":
            return envelope
        if envelope.room is not None and not session.guards_all and envelope.type not in session.guarded:
            return envelope
        if not typed and envelope.room is None:
            return text
        payload = bytes(envelope.payload)
        return AppMessage(text, envelope.type, payload, envelope.kind, envelope.ref, envelope.room, envelope.mid)

    def _deliver(self, session: Session, items: Sequence[Pending]) -> None:
        """Gives messages their turn, in order: a record for the application ends before one for the hub."""
        connection = session.connection
        if connection.state not in HANDLED:
            return
        if session.busy:
            self._line_up(session, items)
            return
        run: list[AppMessage | str | bytes] = []
        asking = session.identity is not None
        for at, item in enumerate(items):
            if asking and not (has_turn := self._requests.admits(session, item, not run)):
                if connection.state not in HANDLED:
                    return
                if has_turn is None:
                    continue
                self._keep(session, items[at:])
                session.busy = True
                break
            if type(item) is not Envelope:
                run.append(item)  # type: ignore[arg-type]  # Everything but an Envelope is the application's.
            elif not run or item.type == "$ping":
                waits = not self._requests.handle(session, item)
                if connection.state not in HANDLED:
                    return
                if waits:
                    self._keep(session, items[at:])
                    session.busy = True
                    return
            else:
                self._keep(session, items[at:])
                break
        if run:
            session.busy = True
            if not session.greeting_over:
                self._requests.end_greeting(session)
            self._step.out.append(MessageReceived(connection.id, tuple(run)))

    def _keep(self, session: Session, items: Sequence[Pending]) -> None:
        """What is left of a read waits for its turn; a `$ping` in it does not."""
        session.keep(())
        self._line_up(session, items)

    def _line_up(self, session: Session, items: Sequence[Pending]) -> None:
        """Puts messages behind the record that the application is busy with."""
        queue = session.queue
        if queue is None:
            queue = session.keep(())
        for item in items:
            if type(item) is Envelope and item.type == "$ping":
                self._requests.handle(session, item)
            else:
                session.line_up(item)
        if len(queue) >= self._step.config.pending_messages_max:
            self._reading.pause(session.connection, Pause.QUEUED)
            self._reading.forget_ready(session.connection)

    def finished(self, input: HandlerFinished) -> None:
        """The application is done with a record: what waits behind it has its turn."""
        connection = self._step.connections.get(input.conn)
        session = None if connection is None else connection.session
        if connection is None or session is None or not session.busy:
            return
        if (
            session.queue is None
            and connection.state is OPEN
            and not (input.failed or connection.pauses or self._lifecycle.draining)
        ):
            session.busy = False  # As nearly always: nothing waits for that.
        elif input.failed:
            session.busy = False
            session.drop_queue()
            # After a failure nothing further is handled, whether there is somebody to close or nobody.
            self._reading.forget_ready(connection)
            self._lifecycle.close(connection, CLOSE_SERVER_FAULT, "a handler failed")
            self._lifecycle.settle(connection)
        else:
            self.go_on(session)

    def go_on(self, session: Session) -> None:
        """What a session waited for is there: what waits behind it has its turn."""
        connection = session.connection
        session.busy = False
        items = session.queue
        if items is not None:
            session.drop_queue()
            self._deliver(session, tuple(items))
            if connection.reader is not None:
                self._reading.weigh(connection, connection.reader.weight + session.queued)
        if not session.busy:
            if connection.pauses & Pause.QUEUED:
                self._reading.resume(connection, Pause.QUEUED)
                self._reading.look_at_held(connection)
            elif connection.state is not OPEN or self._reading.is_crowded:  # It was held while all held too much.
                self._reading.look_at_held(connection)
        self._lifecycle.settle(connection)

    # ---- control frames -----------------------------------------------------------------------------

    def _answer_controls(self, connection: Connection, controls: Sequence[Received]) -> int:
        """Answers each ping, up to the rate of control frames, beyond which it closes; returns how many there were."""
        if connection.state is not OPEN:
            return len(controls)  # It is gone, or behind our close.
        config, now, count = self._step.config, self._step.now, len(controls)
        allowance = connection.control_allowance
        if allowance is None:
            allowance = connection.control_allowance = TokenBucket(float(config.control_frames_burst), now)
        left = allowance.take(count, config.control_frames_per_s, config.control_frames_burst, now)
        # One after the other, all but those that went below 0 would have been let by.
        let_by = count if left >= 0 else max(0, count + int(left // 1))
        # RFC 6455 §5.5.3 lets an endpoint answer only the most recent ping; everybody answers all of them.
        pongs = [encode_frame(PONG, each.payload) for each in controls[:let_by] if isinstance(each, PingReceived)]
        if pongs:
            self._outbox.send(connection, b"".join(pongs))
        if left < 0:
            self._step.out.append(PeerMisbehaved(connection.id, RATE_LIMITED, "too many control frames"))
            self._lifecycle.close(connection, CLOSE_POLICY, "too many control frames")
        return count


def _has_data(events: Sequence[Received]) -> bool:
    """Whether a message is among them."""
    return any(type(event) in (str, bytes) for event in events)
