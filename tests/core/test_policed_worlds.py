"""Worlds whose users prove who they are and whose rights change all the time: PROTOCOL §13, 6 and 14."""

from __future__ import annotations

from collections import Counter

import pytest

from vixws_core.testing import run_varied, varied_world

STEPS = 400


@pytest.mark.parametrize("number", range(16))
def test_nobody_is_told_what_they_have_no_grant_for(number: int) -> None:
    world = varied_world(f"policed/{number}", policed=True)

    run_varied(world, STEPS)

    for trace in world.traces:
        trace.replay()
    judged = sum((Counter(oracle.counts) for oracle in world.grants), Counter[str]())
    assert judged["message"] > 0 and judged["stored"] > 0 and judged["refused"] > 0


def test_these_worlds_have_everything_in_them() -> None:
    counts: Counter[str] = Counter()
    for number in range(12):
        world = varied_world(f"everything/{number}", policed=True)
        run_varied(world, STEPS)
        for oracle in world.grants:
            counts.update(oracle.counts)

    assert all(
        counts[kind] > 10 for kind in ("message", "$joined", "$page", "$position", "stored", "refused", "kicked")
    )
