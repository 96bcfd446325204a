"""Worlds with everything in them, and which of their faults made a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from ..app.chat import build as build_chat
from ..config import HubConfig
from .faults import LOG_GOES_BACK, Faults, Habits, roomy_config, tight_config
from .lively import build as build_lively
from .world import World

__all__ = ["faults_that_count", "run_varied", "varied_world"]

Without = frozenset[tuple[str, int]]
"""Faults that are left out: kind and number."""


def varied_world(seed: int | str, without: Without = frozenset(), *, policed: bool = False) -> World:
    """A world whose size, limits, faults and habits follow from its seed: slow readers and cut connections in each.

    `policed`: its users prove who they are, and what they may do changes all the time.
    """
    stream = Random(f"{seed}/varied")
    faults = _varied_faults(stream)
    rooms = ["africa", "asia", "europe", "tmp.sea"]
    stream.shuffle(rooms)
    habits = Habits(
        rooms=tuple(rooms[: stream.randint(1, 4)]),
        act=stream.choice((0.1, 0.3)),
        payload_bytes=stream.choice((50, 200, 800)),
        types=("note", "note", "checked"),
        sends=("work", "shout"),
    )
    if policed:
        # A member whose right is being asked for is told a floor of -1 by `$reset`, which no client takes.
        faults = replace(faults, log_other=0.0)
        habits = replace(habits, rooms=(*habits.rooms, "@user/user0"), types=("note",), sends=())
    return World(
        seed,
        # With rules no guard waits: of what it lets pass behind a `$kicked` more is told than its `mid` alone.
        build=build_chat if policed else build_lively,
        clients=stream.randint(2, 4),
        wild=stream.randint(1, 3),
        config=_varied_config(stream),
        faults=faults,
        habits=habits,
        without=without,
        policed=policed,
    )


def _varied_faults(stream: Random) -> Faults:
    rate = stream.choice((0.5, 1.0, 2.0))
    mangled = stream.choice((0.0, 0.0, 0.03))
    return Faults(
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
        drain=stream.choice((0.001, 0.01)),
        new_epoch=0.3,
        log_back=0.01 if LOG_GOES_BACK else 0.0,
        log_other=stream.choice((0.0, 0.01)),
        repeat=mangled,
        skip=mangled,
        stale=mangled,
        leap=stream.choice((0.01, 0.05)),
    )


def _varied_config(stream: Random) -> HubConfig:
    config = stream.choice((tight_config, roomy_config))()
    return replace(
        config,
        tail_bytes_room=stream.choice((300, 1_500, 4_096)),
        unsent_bytes_total=stream.choice((config.unsent_bytes_total, 2 * config.unsent_bytes_high)),
        idle_timeout_s=stream.choice((600.0, 9.0)),
        message_timeout_s=stream.choice((30.0, 4.0)),
        publishes_max=stream.choice((config.publishes_max, 6)),
        rooms_max=stream.choice((config.rooms_max, 2)),
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
