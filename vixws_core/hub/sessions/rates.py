"""What a client may do in a second: messages, questions for the log, new rooms. Over it it is not read for a while.

Nothing is refused and nothing is lost: what it sends waits in its own connection. Somebody who proved who they are has
one allowance for all connections, besides that of each one.

Coming back is no new allowance: what a connection had spent when it ended, the next ones of its address and of its user
lack, until as much time has passed as it would have needed itself. Many share an address, so nobody pays for more than
one connection's burst, and nobody waits for more than a second because of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeAlias

from ...bucket import TokenBucket
from ..connection.reading import Reading
from ..identity import Budget
from ..model import FAR, SENDABLE, Connection, Session
from ..step import Step

__all__ = ["ROWS_PER_ASK", "Rates"]

ROWS_PER_ASK = 50
"""Rows of a page that count as one question more: 500 tiny ones cost about ten times what a position does."""


_FORGET_AT = 1_024
"""Users that are remembered before those with a full allowance are forgotten; debts, before those paid are."""

_DEBTS_MAX: Final = 16_384
"""Addresses and users whose debts are remembered: over it the oldest are forgotten."""

_DEBT_BURSTS_MAX: Final = 16
"""A debt's bound: what so many connections may spend at once."""

_DEBT_WAIT_S: Final = 1.0
"""How long a newcomer may have to wait because of others."""

Allowance: TypeAlias = tuple[TokenBucket | None, float, float]
"""What is left, the rate a second, and the most there can be at once."""


class Rates:
    """Counts against the allowances, and lets connections rest."""

    __slots__ = ("_debts", "_debts_kept", "_kept", "_reading", "_step", "_users")

    def __init__(self, step: Step, reading: Reading) -> None:
        self._users: dict[str, Budget] = {}
        """What users have, those included who are gone for a while: coming back is no new allowance."""
        self._kept = 0  # How many were left when those with a full allowance were forgotten.
        self._debts: dict[str, tuple[TokenBucket, ...]] = {}
        """By address and by user what those who are gone had spent, in the order of `_allowances`: never above 0."""
        self._debts_kept = 0  # How many were left when those that are paid were forgotten.
        self._step = step
        self._reading = reading

    def begin(self, connection: Connection, limited: bool | str) -> None:
        """A connection is open; `limited`: rates hold for it, and a text is the address whose debts it takes over."""
        if limited:
            config = self._step.config
            connection.budget = self._budget("" if limited is True else limited)
            if config.messages_per_s > 0 or config.user_messages_per_s > 0:
                connection.message_allowance = TokenBucket(float(config.messages_burst), self._step.now)
            if limited is not True:
                self._inherit(connection, f"address {limited}")

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
            self._inherit(session.connection, f"user {identity.user}")

    @property
    def remembered(self) -> int:
        """Users whose allowances are remembered, those included who are gone."""
        return len(self._users)

    # ---- what who is gone had spent ---------------------------------------------------------------

    @property
    def debts(self) -> int:
        """Addresses and users whose debts are remembered."""
        return len(self._debts)

    def _allowances(self, connection: Connection) -> tuple[Allowance, ...]:
        """What a connection has for itself, kind by kind."""
        config, budget = self._step.config, connection.budget
        assert budget is not None  # Rates hold for it.
        inflated = config.inflated_bytes_per_s
        return (
            (connection.message_allowance, config.messages_per_s, config.messages_burst),
            (connection.inflated_allowance, inflated, inflated),
            (budget.asks, config.asks_per_s, config.asks_burst),
            (budget.rooms, config.new_rooms_per_min / 60.0, config.new_rooms_per_min),
        )

    def leave(self, session: Session) -> None:
        """A connection for which rates hold is over: what it has not regained, others will lack."""
        connection, now = session.connection, self._step.now
        allowances = self._allowances(connection)
        spent = [
            burst - bucket.left(rate, burst, now) if bucket is not None and rate > 0 else 0.0
            for bucket, rate, burst in allowances
        ]
        if max(spent) < 1.0:
            return
        assert connection.budget is not None  # Rates hold for it.
        if connection.budget.address:
            self._owe(f"address {connection.budget.address}", spent, allowances)
        if session.identity is not None and session.identity.budget is not None:
            self._owe(f"user {session.identity.user}", spent, allowances)

    def _owe(self, who: str, spent: Sequence[float], allowances: Sequence[Allowance]) -> None:
        now, debts = self._step.now, self._debts.get(who)
        if debts is None:
            if len(self._debts) >= 2 * self._debts_kept + _FORGET_AT or len(self._debts) >= _DEBTS_MAX:
                self._forget_debts(allowances)
            debts = self._debts[who] = tuple(TokenBucket(0.0, now) for _ in allowances)
        for owed, count, (_, rate, burst) in zip(debts, spent, allowances, strict=True):
            if rate > 0:
                room = _DEBT_BURSTS_MAX * burst + owed.left(rate, 0.0, now)
                owed.take(max(0.0, min(count, room)), rate, 0.0, now)

    def _inherit(self, connection: Connection, who: str) -> None:
        """A newcomer begins with as much less as is owed: with what one connection may owe, at most."""
        debts, now = self._debts.get(who), self._step.now
        if debts is None:
            return
        for owed, (bucket, rate, burst) in zip(debts, self._allowances(connection), strict=True):
            debt = -owed.left(rate, 0.0, now) if rate > 0 else 0.0
            if debt <= 0:
                continue
            if bucket is None:
                bucket = connection.inflated_allowance = TokenBucket(burst, now)
            count = min(debt, burst + rate * _DEBT_WAIT_S)
            owed.take(-count, rate, 0.0, now)
            # Its address and its user are often the same one's: what it lacks already it does not pay twice.
            lacks = burst - bucket.left(rate, burst, now)
            self._take(connection, bucket, max(0.0, count - lacks), rate, burst)

    def _forget_debts(self, allowances: Sequence[Allowance]) -> None:
        """Forgets debts that are paid; a look at all, each time they have doubled. Then the oldest, over the bound."""
        now = self._step.now
        for who, debts in tuple(self._debts.items()):
            if all(owed.left(rate, 0.0, now) >= 0 for owed, (_, rate, _) in zip(debts, allowances, strict=True)):
                del self._debts[who]
        for who in tuple(islice(self._debts, max(0, len(self._debts) - _DEBTS_MAX // 2))):
            del self._debts[who]
        self._debts_kept = len(self._debts)

    # ---- users --------------------------------------------------------------------------------------

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

    def _budget(self, address: str = "") -> Budget:
        config, now = self._step.config, self._step.now
        return Budget(
            TokenBucket(float(config.user_messages_burst), now),
            TokenBucket(float(config.asks_burst), now),
            TokenBucket(float(config.new_rooms_per_min), now),
            address,
        )

    # ---- what is counted ----------------------------------------------------------------------------

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

    def _take(self, connection: Connection, bucket: TokenBucket, count: float, rate: float, burst: float) -> None:
        now = self._step.now
        left = bucket.take(count, rate, burst, now)
        if left < 0 and connection.state in SENDABLE:
            until = now - left / rate
            if connection.resume_at == FAR or until > connection.resume_at:
                self._reading.rest(connection, until)
