"""A pump that keeps what passes its door until somebody takes it and writes it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..effects import Effect
from ..inputs import Input
from ..protocols import Consumer
from ..pump import Door, Pump
from .lines import ALIKE, INPUTS, Line, Outcome, outcome_of

__all__ = ["TracedPump"]

_NAMES: Final[dict[type[Any], str]] = {kind: name for name, kind in INPUTS.items()}
_IS_ALIKE: Final = 1 << 32
"""A bit above those by which a pump knows who sees a step."""


class TracedPump(Pump[Input, Effect]):
    """Drives a hub as `Pump` does, and notes each step before anybody sees it, those included at which the hub raises.

    `full` is called as soon as `steps_max` steps are kept, and has to `take` them. It is a pump and no consumer, as
    no consumer is shown what raised, and as a call for each step would cost more than all the rest of a trace.
    """

    __slots__ = ("_full", "_steps_max", "lines", "outcomes")

    def __init__(
        self,
        door: Door[Input, Effect],
        clock: Callable[[], float],
        consumers: Sequence[Consumer],
        calls: Mapping[Any, Callable[[Any], object]] | None,
        full: Callable[[], object],
        steps_max: int,
    ) -> None:
        super().__init__(door, clock, consumers, calls)
        self.lines: list[Line] = []
        """The steps, and maybe one more than there are outcomes."""
        self.outcomes: list[Outcome] = []
        self._full = full
        self._steps_max = steps_max
        for kind in ALIKE:
            self._marks[kind] = self._marks.get(kind, 0) | _IS_ALIKE

    def take(self) -> tuple[list[Line], list[Outcome]]:
        """The steps that are kept, and are kept no more."""
        lines, outcomes = self.lines, self.outcomes
        self.lines, self.outcomes = [], []
        return lines, outcomes

    def _step(self, input: Input) -> list[Effect]:
        now = self.clock()
        try:
            effects = self.door.handle(input, now)
        except Exception as exc:
            name = type(exc).__name__
            self.lines.append((now, type(input).__name__, input, name))
            self.outcomes.append(name)
            raise
        marks, bits = self._marks, 0
        for effect in effects:
            bits |= marks.get(type(effect), 0)
        self.lines.append((now, _NAMES[type(input)], input))
        outcomes = self.outcomes
        if bits < _IS_ALIKE:
            outcomes.append(effects)
        else:
            outcomes.append(outcome_of(effects))
            bits &= _IS_ALIKE - 1
        if len(outcomes) >= self._steps_max:
            self._full()
        for see in self._sees[bits >> 1]:
            see(now, input, effects)
        if bits & 1:
            calls = self._calls
            for effect in effects:
                call = calls.get(type(effect))
                if call is not None:
                    self._waiting.append((call, effect))
        return effects
