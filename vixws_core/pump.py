"""Runs inputs through a hub to completion, and shows every step to whoever carries it out or counts it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Door", "Pump", "Watcher"]

In = TypeVar("In")
Out = TypeVar("Out")
In_contra = TypeVar("In_contra", contravariant=True)


class Door(Protocol[In_contra, Out]):
    """What a pump drives: a hub, or a client's machine."""

    def handle(self, input: In_contra, now: float, /) -> list[Out]:
        """Takes one input and returns what must be done, in order."""
        ...

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due, in the clock of `now`; None: not before another input."""
        ...


class Watcher(Protocol[In_contra, Out]):
    """Sees every step that passes a door, in order; `protocols.Consumer` is a hub's. Must not raise or wait."""

    def see(self, now: float, input: In_contra, effects: list[Out], /) -> None:
        """Takes note of one step. `effects` is not to be changed."""
        ...


class Pump(Generic[In, Out]):
    """Drives one door. Belongs to one thread; nothing re-enters the door.

    `clock` returns monotonic seconds. After each step every consumer sees it, in the order given; one that has
    `sees_only`, types of effects, sees only the steps with an effect of one of them. `calls` maps types of effects to
    application callbacks: they are called when no input is left, one after another, and what they `do` runs at once,
    inside the call, so that its outcome is visible and its exceptions surface there. Inputs that consumers or
    callbacks `put` wait in line.
    """

    __slots__ = ("_calls", "_inputs", "_marks", "_running", "_sees", "_waiting", "clock", "door")

    def __init__(
        self,
        door: Door[In, Out],
        clock: Callable[[], float],
        consumers: Sequence[Watcher[In, Out]] = (),
        calls: Mapping[Any, Callable[[Any], object]] | None = None,
    ) -> None:
        self.door: Door[In, Out] = door
        self.clock: Callable[[], float] = clock
        self._calls = dict(calls or {})
        self._inputs: deque[In] = deque()
        self._waiting: deque[tuple[Callable[[Any], object], Out]] = deque()
        self._running = False
        self._marks: dict[Any, int] = dict.fromkeys(self._calls, 1)
        """Bits that a type of effect sets: the first where it has a call, one for each consumer that asks for it."""
        self._sees = self._tables(consumers)
        """Who sees a step, by the bits that its effects set, without the first."""

    def _tables(
        self, consumers: Sequence[Watcher[In, Out]]
    ) -> tuple[tuple[Callable[[float, In, list[Out]], None], ...], ...]:
        size = 1
        chosen: list[tuple[int, Callable[[float, In, list[Out]], None]]] = []
        for consumer in consumers:
            kinds: Collection[type[Any]] | None = getattr(consumer, "sees_only", None)
            if kinds is None:
                chosen.append((0, consumer.see))
                continue
            chosen.append((size, consumer.see))
            size *= 2
            for kind in kinds:
                self._marks[kind] = self._marks.get(kind, 0) | size
        return tuple(tuple(see for bit, see in chosen if not bit or bit & bits) for bits in range(size))

    def put(self, *inputs: In) -> None:
        """Hands inputs in. Returns when all is done, unless the pump is running already: then they wait in line."""
        self._inputs.extend(inputs)
        if self._running:
            return
        self._running = True
        queue, waiting = self._inputs, self._waiting
        try:
            while True:
                while queue:
                    self._step(queue.popleft())
                if not waiting:
                    break
                call, effect = waiting.popleft()
                call(effect)
        finally:
            self._running = False

    def do(self, command: In) -> list[Out]:
        """Runs one command at once and returns its effects; what else that causes runs after the current call.

        For applications: from a callback, or from outside while nothing runs. Never from a consumer.
        """
        if self._running:
            return self._step(command)
        self._running = True
        try:
            effects = self._step(command)
        finally:
            self._running = False
        if self._inputs or self._waiting:
            self.put()
        return effects

    def _step(self, input: In) -> list[Out]:
        now = self.clock()
        effects = self.door.handle(input, now)
        marks, bits = self._marks, 0
        for effect in effects:
            bits |= marks.get(type(effect), 0)
        for see in self._sees[bits >> 1]:
            see(now, input, effects)
        if bits & 1:
            calls = self._calls
            for effect in effects:
                call = calls.get(type(effect))
                if call is not None:
                    self._waiting.append((call, effect))
        return effects
