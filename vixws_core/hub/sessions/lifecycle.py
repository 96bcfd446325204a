"""How connections end: by either side, by a fault, by time, or because the server goes.

Rooms never close anybody, so whatever ends a connection (and takes it out of its rooms) stands above them.
"""

from __future__ import annotations

from typing import Final

from ...codes import CLOSE_DRAIN, CLOSE_NO_FRAME, CLOSE_NORMAL, CLOSE_OWN_LAST, CLOSE_RESTART
from ...effects import Closed, CloseTransport, Closing, Drained
from ...errors import LocalError
from ...inputs import Close, Disconnected, Shutdown
from ...wire import envelope as wire
from ...wire.frames import CloseReceived, encode_close
from ...wire.http import http_answer
from ..asks import Asks
from ..connection.outbox import Outbox
from ..connection.reading import Reading
from ..connection.timers import Timers
from ..model import ASKED, CLOSED, CLOSING, ENDING, FAR, GONE, HEAD, OPEN, SENDABLE, Connection, Session
from ..rooms.members import Members
from ..step import Step
from .rates import Rates

__all__ = ["DISCARDED_MAX", "Lifecycle", "farewell_s"]

DISCARDED_MAX: Final = 1_048_576
"""Bytes discarded behind our close frame, over which a peer is cut: sixteen reads, for what may be under way."""

FAREWELL_MAX_S: Final = 1.0
"""Longest time between the last close frames of a drain and its end."""


def farewell_s(drain_s: float) -> float:
    """How long before its end a drain closes whoever is left, so that the close frame arrives."""
    return min(FAREWELL_MAX_S, drain_s / 8)


class Lifecycle:
    """Ends connections, one at a time or all of them."""

    __slots__ = (
        "_asks",
        "_close_at",
        "_drain_until",
        "_drained",
        "_members",
        "_outbox",
        "_overdue",
        "_rates",
        "_reading",
        "_step",
        "_timers",
        "draining",
        "sessions",
    )

    def __init__(
        self,
        step: Step,
        timers: Timers,
        reading: Reading,
        outbox: Outbox,
        asks: Asks,
        members: Members,
        rates: Rates,
    ) -> None:
        self._step = step
        self._timers = timers
        self._reading = reading
        self._outbox = outbox
        self._asks = asks
        self._members = members
        self._rates = rates
        self.sessions: int = 0
        """Open WebSockets."""
        self.draining: bool = False
        """Whether `Shutdown` was asked."""
        self._close_at = FAR
        """When a drain closes whoever is left; `FAR` where it did."""
        self._drain_until = FAR
        self._overdue = False
        """The time for the drain is over."""
        self._drained = False

    def begin(self, connection: Connection) -> None:
        """A transport was accepted: the connection is known from now on, until its end was told."""
        self._step.connections[connection.id] = connection

    def know(self, session: Session) -> None:
        """A session proved who it is: it is found by its user."""
        assert session.identity is not None and session.identity.user is not None  # It was proved.
        self._step.users.setdefault(session.identity.user, {})[session.connection.id] = session

    def opened(self, connection: Connection, since: float) -> None:
        """A request was accepted: messages flow from now on."""
        connection.move(OPEN, since)
        self.sessions += 1
        self._outbox.forget_everyone()

    # ---- closing ----------------------------------------------------------------------------------

    def close_asked(self, input: Close) -> None:
        """The application's close. Raises: `LocalError` for a code that is none (RFC 6455 §7.4)."""
        if not CLOSE_NORMAL <= input.code <= CLOSE_OWN_LAST:
            raise LocalError(f"a close code must be from 1000 to 4999, got {input.code}")
        connection = self._step.connections.get(input.conn)
        if connection is not None:
            self.close(connection, input.code, input.reason)

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """Starts the closing handshake (RFC 6455 §7.1.2); what was not handled yet is dropped."""
        if connection.state not in SENDABLE:
            return
        by_peer = connection.state is ENDING
        step, session = self._step, connection.session
        assert session is not None  # It was accepted.
        self._outbox.send(connection, encode_close(code, reason))
        connection.move(CLOSING, step.now)
        step.out.append(Closing(connection.id))
        session.drop_queue()
        self._reading.weigh(connection, 0)
        self._leave_rooms(session)
        self._reading.forget_ready(connection)
        if by_peer:  # The peer's close frame is here already.
            self.end_transport(connection)
            return
        connection.close_reason = reason
        self._reading.read_to_the_end(connection)
        self._timers.arm(connection, step.now + step.config.close_timeout_s)
        if connection.reader is not None and connection.reader.held:
            self.read_to_close(connection, b"")

    def read_to_close(self, connection: Connection, data: bytes) -> None:
        """After our close frame all data is discarded until the peer's (RFC 6455 §1.4), up to a budget."""
        assert connection.reader is not None  # It was open.
        connection.discarded += len(data)
        event = connection.reader.skim(data)
        if isinstance(event, CloseReceived):
            connection.close_code, connection.close_reason = event.code, event.reason
            self.end_transport(connection)
        elif event is not None:
            self.end_transport(connection)
        elif connection.discarded > DISCARDED_MAX:
            self.end_transport(connection, abort=True)

    def begin_ending(self, connection: Connection, code: int, reason: str, *, by_peer: bool) -> None:
        """Notes how it ends once all before that is handled: the peer closed, or broke the framing."""
        connection.close_code, connection.close_reason, connection.close_by_peer = code, reason, by_peer
        if connection.state is OPEN:
            connection.move(ENDING, self._step.now)
            self._timers.arm(connection, self._timers.next_of(connection))

    def tell_ending(self, connection: Connection) -> None:
        """Tells, behind the messages that came before it, that the peer ends, or broke the framing."""
        if connection.state is ENDING:
            self._step.out.append(Closing(connection.id))

    def conclude(self, connection: Connection) -> None:
        """Ends the connection once everything before its end is handled."""
        session = connection.session
        if session is None or session.busy or session.queue or connection.id in self._step.ready:
            return
        if connection.state is GONE:
            self._forget(connection)
        elif connection.state is ENDING and not self._owes_answers(session):
            self.reply_close(connection)

    def _owes_answers(self, session: Session) -> bool:
        """Whether something that it asked is not answered yet."""
        return bool(session.unanswered) or self._members.owes_answers(session)

    def settle(self, connection: Connection) -> None:
        """Something of a connection is finished: one that only waited for that ends now."""
        state = connection.state
        if state is ENDING or state is GONE:
            self.conclude(connection)
        elif self.draining:
            self.drain(connection)

    def reply_close(self, connection: Connection) -> None:
        """Sends our half of a close that the peer, or its fault, began; then ends the transport."""
        # RFC 6455 §5.5.1: "the endpoint typically echos the status code it received".
        reason = "" if connection.close_by_peer else connection.close_reason
        self._outbox.send(connection, encode_close(connection.close_code, reason))
        self.end_transport(connection)

    def give_up(self, connection: Connection, code: int, *, sent: str, kept: str, abort: bool = False) -> None:
        """Ends a connection that does not answer, with a close frame that may not reach it.

        `sent` is the reason in the frame, `kept` the one that `Closed` tells.
        """
        connection.close_reason = kept
        self._outbox.send(connection, encode_close(code, sent))
        self.end_transport(connection, abort=abort)

    def answer_http(
        self, connection: Connection, status: int, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> None:
        """Answers a request with a plain response, then ends the transport."""
        handshake = connection.handshake
        request = handshake.request if handshake is not None else None
        head_only = request is not None and request.method == "HEAD"
        self._outbox.send(connection, http_answer(status, headers, body, head_only=head_only))
        self.end_transport(connection)

    def end_transport(self, connection: Connection, *, abort: bool = False) -> None:
        """Ends the transport once its outbox is flushed, or at once; nothing more is sent or read."""
        step = self._step
        # First: nothing is sent behind the close frame, whatever leaving rooms answers.
        if connection.state is not CLOSED:
            connection.move(CLOSED, step.now)
        if connection.session is not None:
            self._leave_rooms(connection.session)
        self._reading.forget_ready(connection)
        step.out.append(CloseTransport(connection.id, abort))
        if not abort:
            self._timers.arm(connection, connection.since + step.config.close_timeout_s)

    def _leave_rooms(self, session: Session) -> None:
        self._outbox.forget_everyone()
        self._members.leave_all(session)

    def disconnected(self, input: Disconnected) -> None:
        """A transport ended: the connection leaves its rooms, and is over once nothing of it is unfinished."""
        connection = self._step.connections.get(input.conn)
        if connection is None or connection.state is GONE:
            return
        before, session = connection.state, connection.session
        connection.move(GONE, self._step.now)
        self._outbox.drop(connection)
        if session is None:
            del self._step.connections[connection.id]
            return
        if before not in SENDABLE:
            session.drop_queue()  # Only what an open connection had sent is still handled.
        self._reading.weigh(connection, session.queued)
        self._leave_rooms(session)
        if before in SENDABLE:
            self._step.out.append(Closing(connection.id))
            self._reading.look_at_held(connection)
        if session.hello:
            # Who says goodbye does not come back: it was lost long ago.
            lost_at = -FAR if connection.close_by_peer else self._step.now
            self._step.lost.append((connection.id, lost_at, connection.last_received))
        if connection.close_code == CLOSE_NO_FRAME and not connection.close_reason:
            connection.close_reason = input.reason
        self.conclude(connection)

    def _forget(self, connection: Connection) -> None:
        del self._step.connections[connection.id]
        self._reading.weigh(connection, 0)
        session = connection.session
        if session is not None and connection.budget is not None:
            self._rates.leave(session)
        if session is not None and session.identity is not None and session.identity.user is not None:
            found = self._step.users.get(session.identity.user, {})
            found.pop(connection.id, None)
            if not found:
                self._step.users.pop(session.identity.user, None)
        connection.part()
        self.sessions -= 1
        self._step.out.append(Closed(connection.id, connection.close_code, connection.close_reason))

    # ---- the end of all ---------------------------------------------------------------------------

    def shutdown(self, input: Shutdown) -> None:
        """Tells every connection that the server goes, each with its slot for coming back; or hurries a drain."""
        step, config = self._step, self._step.config
        close_at = step.now + input.drain_s - farewell_s(input.drain_s)
        if self.draining:
            self._drain_until = min(self._drain_until, step.now + input.drain_s)
            self._close_at = FAR if self._close_at == FAR else min(self._close_at, close_at)
            return
        self.draining = True
        self._drain_until, self._close_at = step.now + input.drain_s, close_at
        slot = 0
        for connection in tuple(step.connections.values()):
            if connection.state in (HEAD, ASKED):
                self.answer_http(connection, 503, (("retry-after", "1"),), b"shutting down\n")
            elif connection.state in SENDABLE and (session := connection.session) is not None:
                if session.hello:
                    # PROTOCOL §11: another slot for every connection.
                    delay = config.reconnect_first_s + 1.25 * slot / config.handshakes_per_s
                    slot += 1
                    left = close_at - step.now if self._is_unfinished(session) else 0.0
                    payload = {"reconnect_in_ms": round(delay * 1000), "close_in_ms": round(left * 1000)}
                    self._outbox.answer(connection, wire.answer("$drain", payload=payload))
                step.out.append(Closing(connection.id))
                self.drain(connection)

    def _is_unfinished(self, session: Session) -> bool:
        """Whether something of it is under way, which a drain lets end first."""
        ready = session.connection.id in self._step.ready
        return session.busy or bool(session.queue) or ready or self._owes_answers(session)

    def drain(self, connection: Connection) -> None:
        """Closes a connection of a hub that shuts down, once nothing of it is unfinished."""
        session = connection.session
        if self.draining and session is not None and not self._is_unfinished(session):
            self._say_goodbye(connection, session)

    def _say_goodbye(self, connection: Connection, session: Session) -> None:
        self.close(connection, CLOSE_DRAIN if session.hello else CLOSE_RESTART, "the server shuts down")

    def drain_time_passed(self) -> None:
        """Closes whoever is left shortly before a drain's end, and ends every connection at once at its end."""
        if not self.draining:
            return
        if self._step.now >= self._drain_until:
            self._close_at = self._drain_until = FAR
            self._overdue = True
            for connection in tuple(self._step.connections.values()):
                if connection.state is not GONE:
                    self.end_transport(connection, abort=True)
        elif self._step.now >= self._close_at:
            self._close_at = FAR
            for connection in tuple(self._step.connections.values()):
                if connection.state is ENDING:
                    self.reply_close(connection)
                elif connection.session is not None:
                    self._say_goodbye(connection, connection.session)

    def drain_deadline(self) -> float:
        """When a drain has to be looked after next; `FAR` where that is over, or nothing is drained."""
        return FAR if self._drained else min(self._close_at, self._drain_until)

    def check_drained(self) -> None:
        """Tells, once, that a hub that shuts down is empty."""
        if self._drained:
            return
        connections = self._step.connections
        if self._overdue:  # Neither a store nor a handler that hangs holds the end up.
            over = all(connection.state is GONE for connection in connections.values())
        else:
            over = not connections and not self._asks.appends
        if over:
            self._drained = True
            self._step.out.append(Drained())
