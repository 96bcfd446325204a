"""The pump: every step is shown once, in order, and nothing re-enters."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import LocalError, Pump


class Echo:
    """A door that answers a number with itself, and a list with its items; remembers what it was asked."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Any, float]] = []
        self.inside = False

    def handle(self, input: Any, now: float, /) -> list[Any]:
        assert not self.inside, "the door was entered twice"
        self.inside = True
        self.inputs.append((input, now))
        self.inside = False
        if isinstance(input, Exception):
            raise input
        return list(input) if isinstance(input, list) else [input]

    def next_deadline(self) -> float | None:
        return None


class Recorder:
    def __init__(self) -> None:
        self.steps: list[tuple[float, Any, list[Any]]] = []

    def see(self, now: float, input: Any, effects: list[Any], /) -> None:
        self.steps.append((now, input, effects))


def test_every_consumer_sees_every_step_in_order() -> None:
    one, two = Recorder(), Recorder()
    times = iter([1.0, 2.0])
    pump: Any = Pump(Echo(), lambda: next(times), [one, two])
    pump.put(1, [2, 3])

    assert one.steps == two.steps == [(1.0, 1, [1]), (2.0, [2, 3], [2, 3])]


def test_inputs_put_by_a_consumer_wait_in_line() -> None:
    class Asker:
        def see(self, now: float, input: Any, effects: list[Any], /) -> None:
            if input in (1, 2):
                pump.put(input * 10, input * 10 + 1)

    door = Echo()
    pump: Any = Pump(door, lambda: 0.0, [Asker()])
    pump.put(1, 2)

    assert [input for input, _ in door.inputs] == [1, 2, 10, 11, 20, 21]


def test_callbacks_are_called_when_no_input_is_left() -> None:
    door = Echo()
    order: list[Any] = []

    def call(effect: int) -> None:
        order.append((effect, len(door.inputs)))
        if effect == 1:
            pump.put(3)

    pump: Any = Pump(door, lambda: 0.0, [], {int: call})
    pump.put(1, 2)

    assert order == [(1, 2), (2, 3), (3, 3)]


def test_what_a_callback_does_runs_at_once() -> None:
    door = Echo()
    seen: list[Any] = []

    def call(effect: str) -> None:
        seen.append((pump.do(7), len(door.inputs)))

    pump: Any = Pump(door, lambda: 0.0, [], {str: call})
    pump.put("now", 8)

    assert seen == [([7], 3)]
    assert [input for input, _ in door.inputs] == ["now", 8, 7]


def test_what_a_callback_does_raises_inside_it() -> None:
    caught: list[str] = []

    def call(effect: str) -> None:
        try:
            pump.do(LocalError("no"))
        except LocalError as exc:
            caught.append(str(exc))

    pump: Any = Pump(Echo(), lambda: 0.0, [], {str: call})
    pump.put("now")

    assert caught == ["no"]


def test_do_from_outside_runs_all_that_follows() -> None:
    door = Echo()
    calls: list[Any] = []
    recorder = Recorder()
    pump: Any = Pump(door, lambda: 0.0, [recorder], {int: calls.append})

    assert pump.do([1, "x"]) == [1, "x"]
    assert calls == [1]


def test_do_from_outside_runs_what_consumers_put() -> None:
    class Asker:
        def see(self, now: float, input: Any, effects: list[Any], /) -> None:
            if input == 1:
                pump.put(2)

    door = Echo()
    pump: Any = Pump(door, lambda: 0.0, [Asker()])
    pump.do(1)

    assert [input for input, _ in door.inputs] == [1, 2]


@pytest.mark.parametrize("method", ["put", "do"])
def test_pump_works_on_after_an_exception(method: str) -> None:
    door = Echo()
    calls: list[Any] = []
    pump: Any = Pump(door, lambda: 0.0, [], {int: calls.append})
    with pytest.raises(LocalError):
        getattr(pump, method)(LocalError("no"))
    pump.put(5)

    assert calls == [5]


def test_callbacks_left_by_an_exception_are_called_next_time() -> None:
    calls: list[Any] = []

    def call(effect: int) -> None:
        calls.append(effect)
        if effect == 1:
            raise LocalError("no")

    pump: Any = Pump(Echo(), lambda: 0.0, [], {int: call})
    with pytest.raises(LocalError):
        pump.put([1, 2])
    pump.put()

    assert calls == [1, 2]


def test_effects_without_a_callback_are_only_shown() -> None:
    recorder = Recorder()
    pump: Any = Pump(Echo(), lambda: 0.0, [recorder])
    pump.put([])

    assert recorder.steps == [(0.0, [], [])]


def test_do_that_causes_nothing_more_just_returns() -> None:
    pump: Any = Pump(Echo(), lambda: 0.0)

    assert pump.do([]) == []


class Chooser(Recorder):
    def __init__(self, *kinds: type) -> None:
        super().__init__()
        self.sees_only = frozenset(kinds)


def test_a_consumer_that_asks_for_effects_sees_the_steps_that_have_one() -> None:
    all_steps, texts, numbers, both = Recorder(), Chooser(str), Chooser(int), Chooser(str, int)
    pump: Any = Pump(Echo(), lambda: 0.0, [texts, all_steps, numbers, both], {bytes: len})
    for effects in ([], [1, "a"], ["b", b""], [2], [b""]):
        pump.put(effects)

    assert [step[2] for step in all_steps.steps] == [[], [1, "a"], ["b", b""], [2], [b""]]
    assert [step[2] for step in texts.steps] == [[1, "a"], ["b", b""]]
    assert [step[2] for step in numbers.steps] == [[1, "a"], [2]]
    assert [step[2] for step in both.steps] == [[1, "a"], ["b", b""], [2]]


def test_consumers_that_ask_see_in_the_order_given() -> None:
    seen: list[str] = []

    class Named(Chooser):
        def __init__(self, name: str) -> None:
            super().__init__(int)
            self.name = name

        def see(self, now: float, input: Any, effects: list[Any]) -> None:
            seen.append(self.name)

    pump: Any = Pump(Echo(), lambda: 0.0, [Named("a"), Named("b"), Named("c")])
    pump.put([1])

    assert seen == ["a", "b", "c"]
