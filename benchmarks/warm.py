"""When a server is warm: unmeasured passes on the same process, until two in a row cost the same.

What warms a server need not be time. `websockets` one by one on CPython 3.11, on a machine with other work, took
66 µs a message in a first pass of 2 s, and 56 and 47 after 10 s on the same connections; on the next connections,
31, 27 and 35. So a pass is a whole run of the load client, with connections of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["DIFFER_PCT_MAX", "PASSES_MAX", "WARM_S_MAX", "Warming", "Warmth", "warm_up", "warmth"]

DIFFER_PCT_MAX = 5
"""Two passes agree where the dearer one costs at most this much more than the other, in server CPU per event."""

PASSES_MAX = 8
"""Passes that one server gets."""

WARM_S_MAX = 20.0
"""Seconds after which no further pass starts."""


class Warmth(enum.Enum):
    """What the passes so far say."""

    COLD = "another pass is needed"
    WARM = "two passes in a row agree"
    UNSTEADY = "no two passes in a row agreed, and there may be no further one"


@dataclass(frozen=True, slots=True)
class Warming:
    """How one server was warmed."""

    passes: int
    steady: bool
    """Whether the last two passes agreed; otherwise a bound was reached."""


def warmth(costs: Sequence[float], spent_s: float) -> Warmth:
    """Judge the server CPU per event of all passes so far, the oldest first, and the seconds they took together."""
    if len(costs) >= 2 and 100 * max(costs[-2:]) <= (100 + DIFFER_PCT_MAX) * min(costs[-2:]):
        return Warmth.WARM
    return Warmth.UNSTEADY if len(costs) >= PASSES_MAX or spent_s >= WARM_S_MAX else Warmth.COLD


def warm_up(one_pass: Callable[[], float], clock: Callable[[], float]) -> Warming:
    """Run passes until the server is warm or a bound is reached; `one_pass` returns its CPU per event."""
    start = clock()
    costs: list[float] = []
    found = Warmth.COLD
    while found is Warmth.COLD:  # at most PASSES_MAX times
        costs.append(one_pass())
        found = warmth(costs, clock() - start)
    return Warming(len(costs), found is Warmth.WARM)
