"""What a client may do in a second: messages, questions for the log, new rooms. Over it it is not read for a while.

Nothing is refused and nothing is lost: what it sends waits in its own connection. Somebody who proved who they are has
one allowance for all connections, besides that of each one.
"""

from __future__ import annotations

from ...bucket import TokenBucket
from ..connection.reading import Reading
from ..identity import Budget
from ..model import FAR, SENDABLE, Connection, Session
from ..step import Step

__all__ = ["ROWS_PER_ASK", "Rates"]

ROWS_PER_ASK = 50
"""Rows of a page that count as one question more: 500 tiny ones cost about ten times what a position does."""


class Rates:
    """Counts against the allowances, and lets connections rest."""

    __slots__ = ("_reading", "_step")

    def __init__(self, step: Step, reading: Reading) -> None:
        self._step = step
        self._reading = reading

    def begin(self, connection: Connection, limited: bool) -> None:
        """A connection opens; `limited`: rates hold for it."""
        if limited:
            config = self._step.config
            connection.budget = self._budget()
            if config.messages_per_s > 0 or config.user_messages_per_s > 0:
                connection.message_allowance = TokenBucket(float(config.messages_burst), self._step.now)

    def share(self, session: Session) -> None:
        """It is known who it is: all their connections share one allowance."""
        identity = session.identity
        assert identity is not None and identity.user is not None  # It was proved.
        if session.connection.budget is not None:
            for other in self._step.users.get(identity.user, {}).values():
                if other.identity is not None and other.identity.budget is not None:
                    identity.budget = other.identity.budget
                    return
            identity.budget = self._budget()

    def _budget(self) -> Budget:
        config, now = self._step.config, self._step.now
        return Budget(
            TokenBucket(float(config.user_messages_burst), now),
            TokenBucket(float(config.asks_burst), now),
            TokenBucket(float(config.new_rooms_per_min), now),
        )

    def messages(self, session: Session, count: int) -> None:
        """Frames of messages came: a fragment costs as much as a message."""
        config, connection = self._step.config, session.connection
        if connection.message_allowance is not None and config.messages_per_s > 0:
            self._take(connection, connection.message_allowance, count, config.messages_per_s, config.messages_burst)
        identity = session.identity
        if identity is not None and identity.budget is not None and config.user_messages_per_s > 0:
            rate, burst = config.user_messages_per_s, config.user_messages_burst
            self._take(connection, identity.budget.messages, count, rate, burst)

    def inflated(self, connection: Connection, cost: int) -> None:
        """Compressed messages came: what they cost, however few bytes they were; it holds for everybody."""
        rate, allowance = self._step.config.inflated_bytes_per_s, connection.inflated_allowance
        if allowance is None:
            allowance = connection.inflated_allowance = TokenBucket(float(rate), self._step.now)
        self._take(connection, allowance, cost, rate, rate)

    def asks(self, session: Session, count: int) -> None:
        """A join, or a question for the log, or the rows of its answer."""
        budget, config = self._budget_of(session), self._step.config
        if budget is not None and config.asks_per_s > 0:
            self._take(session.connection, budget.asks, count, config.asks_per_s, config.asks_burst)

    def new_room(self, session: Session) -> None:
        """A publish began the log of a room."""
        budget, config = self._budget_of(session), self._step.config
        if budget is not None and config.new_rooms_per_min > 0:
            rate = config.new_rooms_per_min / 60.0
            self._take(session.connection, budget.rooms, 1, rate, config.new_rooms_per_min)

    @staticmethod
    def _budget_of(session: Session) -> Budget | None:
        identity = session.identity
        if identity is not None and identity.budget is not None:
            return identity.budget
        return session.connection.budget

    def _take(self, connection: Connection, bucket: TokenBucket, count: int, rate: float, burst: float) -> None:
        now = self._step.now
        left = bucket.take(count, rate, burst, now)
        if left < 0 and connection.state in SENDABLE:
            until = now - left / rate
            if connection.resume_at == FAR or until > connection.resume_at:
                self._reading.rest(connection, until)
