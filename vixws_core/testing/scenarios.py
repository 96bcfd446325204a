"""Worlds with everything in them, and which of their faults made a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from .faults import Faults, Habits, roomy_config, tight_config
from .world import World

__all__ = ["faults_that_count", "run_varied", "varied_world"]

Without = frozenset[tuple[str, int]]
"""Faults that are left out: kind and number."""


def varied_world(seed: int | str, without: Without = frozenset(), *, policed: bool = False) -> World:
    """A world whose size, limits, faults and habits follow from its seed: slow readers and cut connections in each.

    `policed`: its users prove who they are, and what they may do changes all the time.
    """
    stream = Random(f"{seed}/varied")
    rate = stream.choice((0.5, 1.0, 2.0))
    faults = Faults(
        cut=0.004 * rate,
        half_open=0.001 * rate,
        chunk=stream.choice((0.1, 0.5, 0.9)),
        slow=stream.choice((0.3, 0.6)),
        slow_bytes=stream.choice((40, 100, 400)),
        kernel_bytes=stream.choice((300, 1_200, 4_096)),
        store_pace=stream.choice((0.1, 0.4, 0.8)),
        store_fail=0.03 * rate,
        store_down=0.004 * rate,
        store_lie=0.02 * rate,
        trim=stream.choice((0.0, 0.01, 0.03)),
    )
    habits = Habits(
        rooms=("africa", "asia", "europe", "tmp.sea")[: stream.randint(1, 4)],
        act=stream.choice((0.1, 0.3)),
        payload_bytes=stream.choice((50, 200, 800)),
    )
    if policed:
        habits = replace(habits, rooms=(*habits.rooms, "@user/user0"))
    config = stream.choice((tight_config, roomy_config))()
    return World(
        seed,
        clients=stream.randint(2, 4),
        wild=stream.randint(1, 3),
        config=replace(config, tail_bytes_room=stream.choice((300, 1_500, 4_096))),
        faults=faults,
        habits=habits,
        without=without,
        policed=policed,
    )


def run_varied(world: World, steps: int) -> None:
    """Runs a world for so many steps, in 1 to 16 rounds that each end settled. Raises: `OracleFailed`."""
    rounds = Random(f"{world.seed}/rounds").choice((1, 2, 4, 16))
    for number in range(rounds):
        world.run(steps * (number + 1) // rounds - steps * number // rounds)
        world.settle()


def faults_that_count(
    make: Callable[[Without], World], steps: int, kinds: tuple[str, ...], most: int = 3
) -> dict[str, tuple[int, int]]:
    """How many faults of each kind made a difference, of how many that were tried.

    A fault counts only if what passes the door differs without it. `make` builds the world without the faults
    it is given; for each kind the first `most` are left out, one at a time, and the world is run again.
    """
    whole = make(frozenset())
    whole.run(steps)
    found: dict[str, tuple[int, int]] = {}
    for kind in kinds:
        numbers = range(min(most, whole.injected.get(kind, 0)))
        differ = 0
        for number in numbers:
            other = make(frozenset(((kind, number),)))
            other.run(steps)
            differ += other.digest != whole.digest
        found[kind] = (differ, len(numbers))
    return found
