"""A log that is another one while a server runs on it: members are told, and go on in what is there."""

from __future__ import annotations

import pytest

from vixws_core.testing import NO_FAULTS, Faults, Habits, World
from vixws_core.testing.faults import LOG_GOES_BACK


def worlds(faults: Faults, count: int) -> dict[str, int]:
    """Runs worlds in which that happens; what they told, by type."""
    told: dict[str, int] = {}
    for number in range(count):
        world = World(f"back/{number}", clients=3, wild=1, faults=faults, habits=Habits())
        for _ in range(4):
            world.run(60)
            world.settle()
        world.crash()
        for name, times in world.counts.items():
            told[name] = told.get(name, 0) + times
    return told


def test_members_are_told_of_a_log_of_another_epoch() -> None:
    told = worlds(Faults(log_other=0.03), 12)

    assert told["$reset"] > 10


@pytest.mark.xfail(not LOG_GOES_BACK, strict=True, reason="a hub does not look at the ids of what it is told of yet")
def test_members_are_told_of_a_log_that_lost_its_end() -> None:
    told = worlds(Faults(log_back=0.03), 12)

    assert told["$reset"] > 10


def test_who_was_told_of_another_log_goes_on_in_it() -> None:
    world = World("other", clients=1, faults=NO_FAULTS)
    client = world.client(0)
    client.join("africa")
    world.settle()
    world.append("africa", "note", {"n": 1})
    world.back_up()
    world.append("africa", "note", {"n": 2})
    world.settle()
    world.lose_log(new_epoch=True)
    world.append("africa", "note", {"n": 3})
    world.settle()

    assert [(seen.ep, seen.off) for seen in client.seen["africa"]] == [("e1", 1), ("e1", 2), ("e2", 2)]
