"""Replays a trace into a fresh hub, and compares what comes out with the checks that the trace holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from ..effects import Effect
from ..hub.hub import Hub
from .lines import Check, Head, Outcome, Record, TraceError, digest_of, outcome_of

__all__ = ["Difference", "Replay", "Step"]


UNCHECKED_MAX: Final = 1_000
"""Most steps without a check; a server writes one after 64 at most, and what they gave is kept until then."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step that was replayed. `number` counts from 0, the hub's first; `at` is in seconds since the first one."""

    number: int
    at: float
    now: float
    name: str
    input: Any
    effects: list[Effect]
    raised: str


class Difference(msgspec.Struct, frozen=True, gc=False):
    """Where a replay is not what was recorded: in one of the steps `first` to `last`, whose last line is `line`."""

    first: int
    last: int
    line: int
    what: str


class Replay:
    """A hub made by a trace's head, to which the records are given one after another.

    `difference` is the first one found; what comes after it is replayed all the same, and proves nothing.
    """

    def __init__(self, head: Head) -> None:
        if head.first:
            raise TraceError(f"the trace begins with step {head.first}: expected the hub's first steps, or no replay")
        self.head: Head = head
        self.hub: Hub = Hub(head.hub, seed=head.seed, secret=head.secret, policy=head.policy)
        self.steps: int = 0
        """Replayed so far."""
        self.began: float = 0.0
        """The time of the first step,"""
        self.now: float = 0.0
        """and of the last one."""
        self.cut: bool = False
        """Whether the file ends within a line."""
        self.difference: Difference | None = None
        self._outcomes: list[Outcome] = []
        """Of the steps since the last check."""

    @property
    def unchecked(self) -> int:
        """Steps at the end that no check covers: the writer was killed."""
        return len(self._outcomes)

    def run(self, found: Iterable[Record | Check | None], until: int | None = None) -> Iterator[Step]:
        """Replays records, each as the caller takes it, up to the first check behind the step `until`.

        Raises: `TraceError`.
        """
        for each in found:
            if each is None:
                self.cut = True
                return
            if isinstance(each, Check):
                self._check(each)
                if until is not None and self.steps > until:
                    return
                continue
            yield self._step(each)

    def _step(self, record: Record) -> Step:
        number, now = self.steps, record.now
        if len(self._outcomes) >= UNCHECKED_MAX:
            raise TraceError(f"line {record.line}: expected a check after {UNCHECKED_MAX} steps at most")
        if not number:
            self.began = now
        self.steps, self.now = number + 1, now
        effects: list[Effect] = []
        raised = record.raised
        if record.input is None:
            if not raised:
                self._differs(number, record.line, f"its {record.name} could not be written down")
        else:
            raised = ""
            try:
                effects = self.hub.handle(record.input, now)
            except Exception as exc:  # As it was when it was recorded; else it is the difference.
                raised = type(exc).__name__
            if raised != record.raised:
                what = f"the hub raised {raised or 'nothing'}, and {record.raised or 'nothing'} when it was recorded"
                self._differs(number, record.line, what)
        self._outcomes.append(raised or outcome_of(effects))
        return Step(number, now - self.began, now, record.name, record.input, effects, raised)

    def _check(self, check: Check) -> None:
        outcomes, self._outcomes = self._outcomes, []
        first = self.steps - len(outcomes)
        if check.steps != len(outcomes):
            raise TraceError(
                f"line {check.line}: expected a check of {len(outcomes)} steps, got one of {check.steps}: "
                "lines are missing"
            )
        if digest_of(outcomes) != check.crc:
            self._differs(first, check.line, "the hub gave other effects than when it was recorded")

    def _differs(self, first: int, line: int, what: str) -> None:
        if self.difference is None:
            self.difference = Difference(first, self.steps - 1, line, what)
