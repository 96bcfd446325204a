"""The newest messages of rooms, encoded, so that a short catch-up needs no read of the store."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice

__all__ = ["Tail", "Tails"]


class Tail:
    """One room's newest frames: consecutive offsets, `(off, id, frame)`."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: deque[tuple[int, str, bytes]] = deque()
        self.size: int = 0

    def covers(self, cursor: int) -> bool:
        """Whether the entry after `cursor` is here."""
        entries = self.entries
        return bool(entries) and entries[0][0] <= cursor + 1 <= entries[-1][0]

    def after(self, cursor: int) -> Iterator[tuple[int, str, bytes]]:
        """The entries behind `cursor`, which must be covered."""
        return islice(self.entries, cursor + 1 - self.entries[0][0], None)

    def page(self, cursor: int, stop_at: int, bytes_max: int) -> list[tuple[int, str, bytes]]:
        """Entries behind `cursor`, which must be covered: up to the offset `stop_at`, if it is here, and so many bytes.

        At least one.
        """
        found: list[tuple[int, str, bytes]] = []
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

    def add(self, tail: Tail, off: int, id: str, frame: bytes) -> None:
        """Adds the next entry and drops what is over the budgets, oldest first."""
        entries = tail.entries
        if entries and entries[-1][0] + 1 != off:
            self.clear(tail)
        entries.append((off, id, frame))
        tail.size += len(frame)
        self._size += len(frame)
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
        tail.entries.clear()
        self._by_age.pop(tail, None)
