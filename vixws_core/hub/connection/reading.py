"""Whether a connection is read: the reasons to pause, and what waits meanwhile."""

from __future__ import annotations

from ...effects import PauseReading, ResumeReading
from ..model import CLOSED, CLOSING, FAR, GONE, HANDLED, OPEN, Connection, Pause, Session
from ..step import Step
from .timers import Timers

__all__ = ["BACKLOG_BYTES", "Reading"]

BACKLOG_BYTES = 131_072
"""Unparsed bytes of one connection above which it is not read; two reads' worth."""


class Reading:
    """Pauses and resumes connections."""

    __slots__ = ("_crowded", "_step", "_timers", "received_total")

    def __init__(self, step: Step, timers: Timers) -> None:
        self._step = step
        self._timers = timers
        self._crowded: dict[int, Connection] = {}
        self.received_total: int = 0
        """Bytes that all connections hold and that are not handled yet."""

    def pause(self, connection: Connection, why: int) -> None:
        """Stops reading for one more reason; what only reading can do in time is suspended (for `CROWDED` in part)."""
        state = connection.state
        if state is CLOSING:
            return  # The peer's close is awaited, and must be read.
        if not connection.pauses and state is not CLOSED and state is not GONE:
            self._step.out.append(PauseReading(connection.id))
        connection.pauses |= why

    def resume(self, connection: Connection, why: int) -> None:
        """Takes one reason away; with the last one reading goes on, and the suspended deadlines begin anew."""
        if not connection.pauses & why:
            return
        connection.pauses &= ~why
        if why & (Pause.HOLDING | Pause.CROWDED):
            self.look_at_held(connection)
        state = connection.state
        if connection.pauses or state is CLOSED or state is GONE:
            return
        self._timers.begin_anew(connection)
        self._step.out.append(ResumeReading(connection.id))
        self._timers.rearm(connection)

    def read_to_the_end(self, connection: Connection) -> None:
        """Our close frame is sent and the peer's is awaited: it is read, whatever held it up before."""
        if connection.pauses:
            connection.pauses = 0
            self._step.out.append(ResumeReading(connection.id))

    def rest(self, connection: Connection, until: float) -> None:
        """Stops reading until a time: it sent more than its rate allows."""
        connection.resume_at = until
        self.forget_ready(connection)
        self.pause(connection, Pause.RATE)
        self._timers.arm(connection, until)

    def rested(self, connection: Connection) -> None:
        """Its time to rest is over."""
        connection.resume_at = FAR
        self.resume(connection, Pause.RATE)

    def look_at_held(self, connection: Connection) -> None:
        """Goes on with the frames that were held back, in the next step, unless another reason holds them."""
        reader = connection.reader
        if reader is None or not reader.held or connection.state not in HANDLED:
            return
        holding = connection.pauses & Pause.HOLDING and connection.state is not GONE
        if not holding and not connection.pauses & Pause.QUEUED:
            self.come_back(connection)

    def come_back(self, connection: Connection) -> None:
        """Looks at a connection again in the next step: its bytes wait, or it may be drained."""
        self._step.ready[connection.id] = None

    def forget_ready(self, connection: Connection) -> None:
        """Nothing of a connection waits for the next step any more."""
        self._step.ready.pop(connection.id, None)

    # ---- what all of them hold ----------------------------------------------------------------------

    @property
    def is_crowded(self) -> bool:
        """Whether all connections together hold more than they may."""
        return self.received_total > self._step.config.received_bytes_total

    def weigh(self, connection: Connection, count: int) -> None:
        """It holds so many bytes now; over the budget of all it is not read, and below it they are again."""
        self.received_total += count - connection.received
        connection.received = count
        budget = self._step.config.received_bytes_total
        if self.received_total > budget and count and connection.state is OPEN:
            if not connection.pauses & Pause.CROWDED:
                self._crowded[connection.id] = connection
                self.pause(connection, Pause.CROWDED)
                self._timers.rearm(connection)
        elif self._crowded and self.received_total <= budget - budget // 4:
            crowded, self._crowded = self._crowded, {}
            for one in crowded.values():
                self.resume(one, Pause.CROWDED)

    # ---- what is asked and not answered -----------------------------------------------------------

    def owe(self, session: Session, weight: int = 1) -> None:
        """A publish or a question of the session is under way; with too many of them it is not read."""
        session.unanswered += weight
        if session.unanswered >= self._step.config.publishes_max:
            self.pause(session.connection, Pause.UNANSWERED)

    def paid(self, session: Session, weight: int = 1) -> None:
        """One of them is answered."""
        session.unanswered -= weight
        connection = session.connection
        if connection.pauses & Pause.UNANSWERED and session.unanswered <= self._step.config.publishes_max // 2:
            self.resume(connection, Pause.UNANSWERED)
