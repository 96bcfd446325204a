"""Randomness of a world: one stream per purpose, so that one decision more or less changes no other."""

from __future__ import annotations

from random import Random

__all__ = ["Chance"]


class Chance:
    """All draws of one world, from one seed. The same seed gives the same draws under any hash seed."""

    def __init__(self, seed: int | str, without: frozenset[tuple[str, int]] = frozenset()) -> None:
        self.seed: int | str = seed
        self.injected: dict[str, int] = {}
        """How many faults of each kind happened, those left out included."""
        self._without = without
        self._streams: dict[str, Random] = {}

    def of(self, purpose: str) -> Random:
        """The stream of draws for one purpose."""
        stream = self._streams.get(purpose)
        if stream is None:
            stream = self._streams[purpose] = Random(f"{self.seed}/{purpose}")
        return stream

    def fault(self, kind: str, rate: float) -> bool:
        """Whether a fault of this kind happens now. Draws in any case; one that is left out is counted too."""
        if self.of(kind).random() >= rate:
            return False
        number = self.injected.get(kind, 0)
        self.injected[kind] = number + 1
        return (kind, number) not in self._without
