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


_FORGET_AT = 1_024
"""Users that are remembered before those with a full allowance are forgotten."""


class Rates:
    """Counts against the allowances, and lets connections rest."""

    __slots__ = ("_kept", "_reading", "_step", "_users")

    def __init__(self, step: Step, reading: Reading) -> None:
        self._users: dict[str, Budget] = {}
        """What users have, those included who are gone for a while: coming back is no new allowance."""
        self._kept = 0  # How many were left when those with a full allowance were forgotten.
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
            budget = self._users.get(identity.user)
            if budget is None:
                if len(self._users) > 2 * self._kept + _FORGET_AT:
                    self._forget()
                budget = self._users[identity.user] = self._budget()
            identity.budget = budget

    @property
    def remembered(self) -> int:
        """Users whose allowances are remembered, those included who are gone."""
        return len(self._users)

    def _forget(self) -> None:
        """Forgets users who are gone and have all of their allowance; a look at all, each time they have doubled."""
        config, now = self._step.config, self._step.now
        for user, budget in tuple(self._users.items()):
            spent = (
                budget.messages.left(config.user_messages_per_s, config.user_messages_burst, now)
                < config.user_messages_burst
                or budget.asks.left(config.asks_per_s, config.asks_burst, now) < config.asks_burst
                or budget.rooms.left(config.new_rooms_per_min / 60.0, config.new_rooms_per_min, now)
                < config.new_rooms_per_min
            )
            if not spent and user not in self._step.users:
                del self._users[user]
        self._kept = len(self._users)

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
