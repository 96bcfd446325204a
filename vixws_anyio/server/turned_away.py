"""Those who are not let in: each is counted, and the log tells of them once a minute at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from vixws_core.bucket import TokenBucket

from ..logs import log

__all__ = ["TurnedAway"]

LINES_PER_S: Final = 1 / 60
"""The first is told at once, what follows in one line a minute."""


class TurnedAway:
    """Takes note of refused connections and of handshakes that gave way.

    `metrics` counts them where it has `count_refused` and `count_gave_way`; `clock` is in seconds.
    """

    def __init__(self, metrics: object, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count_refused: Callable[[], object] | None = getattr(metrics, "count_refused", None)
        self._count_gave_way: Callable[[], object] | None = getattr(metrics, "count_gave_way", None)
        self._untold: Counter[str] = Counter()
        self._allowance = TokenBucket(1.0, clock())

    def refused(self, setting: str) -> None:
        """A connection was not taken, because of that setting."""
        if self._count_refused is not None:
            self._count_refused()
        self._tell(f"refused over {setting}")

    def gave_way(self) -> None:
        """A handshake was ended for the sake of a newcomer."""
        if self._count_gave_way is not None:
            self._count_gave_way()
        self._tell("dropped before their request was complete, over maxHandshaking")

    def _tell(self, what: str) -> None:
        self._untold[what] += 1
        now = self._clock()
        if self._allowance.left(LINES_PER_S, 1.0, now) >= 1.0:
            self._allowance.take(1.0, LINES_PER_S, 1.0, now)
            self.tell_rest()

    def tell_rest(self) -> None:
        """Writes down what no line told of yet."""
        if self._untold:
            log.warning("connections turned away: %s", ", ".join(f"{n} {what}" for what, n in self._untold.items()))
            self._untold.clear()
