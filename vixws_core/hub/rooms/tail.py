"""The newest messages of rooms, encoded, so that a short catch-up needs no read of the store."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

__all__ = ["Entry", "Tail", "Tails"]

Entry = tuple[int, str, bytes]
"""Offset, id and frame of an entry."""

_NOTHING: Final[deque[Entry]] = deque(maxlen=0)
"""What every tail without entries has: an empty deque of its own takes 624 bytes."""


class Tail:
    """One room's newest frames: consecutive offsets, `(off, id, frame)`."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: deque[Entry] = _NOTHING
        self.size: int = 0

    def covers(self, cursor: int) -> bool:
        """Whether the entry after `cursor` is here."""
        entries = self.entries
        return bool(entries) and entries[0][0] <= cursor + 1 <= entries[-1][0]

    def after(self, cursor: int) -> Iterator[Entry]:
        """The entries behind `cursor`, which must be covered."""
        return islice(self.entries, cursor + 1 - self.entries[0][0], None)

    def page(self, cursor: int, stop_at: int, bytes_max: int) -> list[Entry]:
        """Entries behind `cursor`, which must be covered: up to the offset `stop_at`, if it is here, and so many bytes.

        At least one.
        """
        found: list[Entry] = []
        size = 0
        for entry in self.after(cursor):
            size += len(entry[2])
            if found and size > bytes_max:
                break
            found.append(entry)
            if entry[0] == stop_at:
                break
        return found


class Tails:
    """The tails of all rooms, within one budget: over it the tail that was added to longest ago goes first."""

    __slots__ = ("_by_age", "_room_max", "_size", "_total_max")

    def __init__(self, room_max: int, total_max: int) -> None:
        self._room_max = room_max
        self._total_max = total_max
        self._by_age: OrderedDict[Tail, None] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes held by all tails."""
        return self._size

    def extend(self, tail: Tail, added: Sequence[Entry]) -> None:
        """Adds the next entries, one at least and without gaps, and drops what is over the budgets, oldest first."""
        entries = tail.entries
        if entries and entries[-1][0] + 1 != added[0][0]:
            self.clear(tail)
            entries = tail.entries
        if entries is _NOTHING:
            entries = tail.entries = deque()
        entries.extend(added)
        size = sum([len(frame) for _, _, frame in added])
        tail.size += size
        self._size += size
        while tail.size > self._room_max:
            self._drop(tail)
        self._by_age[tail] = None
        self._by_age.move_to_end(tail)
        while self._size > self._total_max:
            self.clear(next(iter(self._by_age)))

    def _drop(self, tail: Tail) -> None:
        size = len(tail.entries.popleft()[2])
        tail.size -= size
        self._size -= size

    def clear(self, tail: Tail) -> None:
        """Forgets a tail's entries."""
        self._size -= tail.size
        tail.size = 0
        tail.entries = _NOTHING
        self._by_age.pop(tail, None)
