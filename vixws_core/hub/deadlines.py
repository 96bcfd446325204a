"""Time: what happens when a connection's time has come. `connection/timers.py` says when that is."""

from __future__ import annotations

from itertools import islice
from typing import Final

from ..codes import (
    CLOSE_GOING_AWAY,
    CLOSE_POLICY,
    CLOSE_SERVER_FAULT,
    CLOSE_SLOW,
    HANDSHAKE_TIMEOUT,
    MESSAGE_TIMEOUT,
    PING_TIMEOUT,
    SLOW,
)
from ..effects import PeerMisbehaved
from ..inputs import TimePassed
from ..wire.frames import PING, encode_frame
from .connection.outbox import Outbox
from .connection.reading import Reading
from .connection.timers import Timers
from .model import ASKED, ENDING, FAR, GONE, HEAD, OPEN, SENDABLE, Connection, Pause
from .rooms.members import Members
from .sessions.identity import Identities
from .sessions.inbox import Inbox
from .sessions.lifecycle import Lifecycle
from .step import Step

__all__ = ["READY_PER_STEP_MAX", "Deadlines"]

READY_PER_STEP_MAX: Final = 2
"""Connections whose waiting bytes are looked at in one step, each for as many frames as a step may take of one."""


class Deadlines:
    """Acts on what is due. What is due when stands in `Timers.next_of`: a new deadline needs a line in both."""

    __slots__ = ("_identities", "_inbox", "_lifecycle", "_members", "_outbox", "_reading", "_step", "_timers")

    def __init__(
        self,
        step: Step,
        timers: Timers,
        reading: Reading,
        outbox: Outbox,
        members: Members,
        lifecycle: Lifecycle,
        identities: Identities,
        inbox: Inbox,
    ) -> None:
        self._step = step
        self._timers = timers
        self._reading = reading
        self._outbox = outbox
        self._members = members
        self._lifecycle = lifecycle
        self._identities = identities
        self._inbox = inbox

    def time_passed(self, _: TimePassed) -> None:
        """Goes on with the bytes that waited for this step, and looks at whose time has come."""
        step = self._step
        if step.ready:
            # The others come first in the next step: in between, whoever has little to say is heard.
            for id in tuple(islice(step.ready, READY_PER_STEP_MAX)):
                connection = step.connections[id]
                self._reading.forget_ready(connection)
                self._inbox.feed(connection, b"")
        while (late := self._timers.due()) is not None:
            self._look(late)
        self._lifecycle.drain_time_passed()

    @property
    def timers(self) -> int:
        """Entries in the heap of times."""
        return self._timers.size

    def next(self) -> float | None:
        """When `TimePassed` is due; None where nothing waits for time."""
        if self._step.ready:
            return self._step.now
        deadline, drain = self._timers.deadline(), self._lifecycle.drain_deadline()
        if drain == FAR:
            return deadline
        return drain if deadline is None else min(deadline, drain)

    def _look(self, connection: Connection) -> None:
        """Does what is due for one connection and arms its next deadline."""
        session = connection.session
        identity = None if session is None or connection.state not in SENDABLE else session.identity
        if session is not None and identity is not None and self._step.now >= identity.next_at:
            self._identities.due(session)
        state = connection.state
        if state is OPEN:
            self._look_open(connection)
            if connection.state is not OPEN:
                return
        elif state is not GONE and self._step.now >= self._timers.next_of(connection):
            self._end(connection)
            return
        self._timers.rearm(connection)

    def _end(self, connection: Connection) -> None:
        """A connection that is not open yet, or not any more, took too long."""
        state = connection.state
        if state is HEAD:
            self._step.out.append(PeerMisbehaved(connection.id, HANDSHAKE_TIMEOUT, "no complete request in time"))
            self._lifecycle.answer_http(connection, 408, (), b"the request did not come in time\n")
        elif state is ASKED:
            self._lifecycle.answer_http(connection, 503, (("retry-after", "1"),), b"no answer in time\n")
        elif state is ENDING:
            self._lifecycle.reply_close(connection)  # The handler that it waited for takes too long.
        else:
            self._lifecycle.end_transport(connection, abort=True)

    def _look_open(self, connection: Connection) -> None:
        """Does what is due for an open connection."""
        config, now, session = self._step.config, self._step.now, connection.session
        assert session is not None  # It is open.
        if connection.parked and now >= connection.last_flush + config.flush_stall_s:
            self._blame(connection, SLOW, "took no byte in time")
            self._lifecycle.give_up(connection, CLOSE_SLOW, sent=SLOW, kept="took no byte in time", abort=True)
            return
        if now >= session.retry_at:
            self._members.retry(session)
        if now >= connection.resume_at:
            self._reading.rested(connection)
        if connection.pauses and not (connection.pauses == Pause.CROWDED and self._is_late(connection)):
            return
        silent = self._timers.silent_since(connection)
        if connection.ping_sent > silent and now >= connection.ping_sent + config.pong_timeout_s:
            self._blame(connection, PING_TIMEOUT, "ping unanswered")
            # 1011: what RFC 6455 §7.4.1 has for an endpoint that cannot go on.
            self._lifecycle.give_up(connection, CLOSE_SERVER_FAULT, sent="ping unanswered", kept="ping unanswered")
        elif self._is_late(connection):
            self._blame(connection, MESSAGE_TIMEOUT, "message not complete in time")
            self._lifecycle.close(connection, CLOSE_POLICY, "message not complete in time")
        elif config.idle_timeout_s and now >= self._timers.idle_since(connection) + config.idle_timeout_s:
            self._lifecycle.close(connection, CLOSE_GOING_AWAY, "idle")
        elif config.ping_interval_s and connection.ping_sent <= silent and now >= silent + config.ping_interval_s:
            self._timers.pinged(connection)
            self._outbox.send(connection, encode_frame(PING, b""))

    def _is_late(self, connection: Connection) -> bool:
        """Whether a message is not complete in time; who is not read because of all that is held has no more time."""
        return self._step.now >= connection.message_since + self._step.config.message_timeout_s

    def _blame(self, connection: Connection, word: str, detail: str) -> None:
        self._step.out.append(PeerMisbehaved(connection.id, word, detail))
