"""The token bucket: how many of something a peer may do at once, and how many a second."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """What is left of an allowance, and since when. Pure: the time comes with each call."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens: float = tokens
        """What was left at the time `at`; below 0 where more was taken than there was."""
        self.at: float = at
        """Seconds, in the clock of the calls."""

    def left(self, rate: float, burst: float, now: float) -> float:
        """What is left at `now`, gained at `rate` a second up to `burst`; takes nothing."""
        return min(burst, self.tokens + (now - self.at) * rate)

    def take(self, count: float, rate: float, burst: float, now: float) -> float:
        """Takes `count` and returns what is left: below 0, the debt, where there was less."""
        self.tokens = left = min(burst, self.tokens + (now - self.at) * rate) - count
        self.at = now
        return left
