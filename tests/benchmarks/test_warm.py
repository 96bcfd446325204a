"""A server counts as warm when two passes in a row agree, and is not waited for without end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from benchmarks.warm import PASSES_MAX, WARM_S_MAX, Warming, Warmth, warm_up, warmth


class Passes:
    """A server whose passes cost what is given, each taking `pass_s` on a clock that only they move."""

    def __init__(self, costs: Iterable[float], pass_s: float = 0.0) -> None:
        self._costs = iter(costs)
        self._pass_s = pass_s
        self._now = 1000.0

    def run(self) -> float:
        self._now += self._pass_s
        return next(self._costs)

    def clock(self) -> float:
        return self._now


def warm(passes: Passes) -> Warming:
    return warm_up(passes.run, passes.clock)


@pytest.mark.parametrize("costs", [[], [36.0], [36.0, 21.0], [36.0, 21.0, 36.0], [20.0, 20.0, 36.0]])
def test_a_server_is_cold_until_its_last_two_passes_agree(costs: list[float]) -> None:
    assert warmth(costs, 0.0) is Warmth.COLD


@pytest.mark.parametrize("costs", [[17.0, 17.0], [36.0, 21.0, 21.5], [36.0, 21.5, 21.0]])
def test_a_server_is_warm_when_its_last_two_passes_agree(costs: list[float]) -> None:
    assert warmth(costs, 0.0) is Warmth.WARM


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([100.0, 105.0], Warmth.WARM),
        ([105.0, 100.0], Warmth.WARM),
        ([100.0, 105.1], Warmth.COLD),
        ([105.1, 100.0], Warmth.COLD),
    ],
)
def test_five_percent_more_is_still_agreement(costs: list[float], expected: Warmth) -> None:
    assert warmth(costs, 0.0) is expected


def test_passes_that_agree_but_are_not_neighbours_do_not_count() -> None:
    assert warmth([21.0, 36.0, 21.0], 0.0) is Warmth.COLD


def test_agreement_at_a_bound_is_agreement() -> None:
    costs = [10.0 * 2**number for number in range(PASSES_MAX - 1)]

    assert warmth([*costs, costs[-1]], WARM_S_MAX) is Warmth.WARM


def test_a_server_whose_first_pass_is_dear_gets_three() -> None:
    assert warm(Passes([36.0, 21.0, 21.5, 99.0])) == Warming(3, steady=True)


def test_a_server_that_costs_the_same_all_along_gets_two() -> None:
    assert warm(Passes([17.0, 17.1, 99.0])) == Warming(2, steady=True)


def test_a_server_that_never_gets_steady_is_given_up_after_the_most_passes() -> None:
    swinging = [10.0, 20.0] * PASSES_MAX

    assert warm(Passes(swinging)) == Warming(PASSES_MAX, steady=False)


def test_no_pass_starts_after_the_most_seconds() -> None:
    swinging = [10.0, 20.0] * PASSES_MAX

    assert warm(Passes(swinging, pass_s=WARM_S_MAX / 4)) == Warming(4, steady=False)


def test_a_pass_that_takes_all_the_seconds_is_the_last() -> None:
    assert warm(Passes([10.0], pass_s=WARM_S_MAX)) == Warming(1, steady=False)
