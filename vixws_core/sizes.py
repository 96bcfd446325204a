"""What the entries of a log in memory take, whose are most, and how seldom it is told that some had to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from .bucket import TokenBucket
from .message import StoredMessage

__all__ = ["MEMORY_BYTES", "Forgetting", "Sizes", "size_of", "sizes_of"]

MEMORY_BYTES: Final = 64 << 20
"""What a log in memory holds where nobody says how much, entries and their keys, over all rooms."""

ENTRY_BYTES: Final = 400
KEY_BYTES: Final = 320
"""What an entry takes besides payload and type, and a key besides its `mid`, measured on CPython 3.13."""

NOTICES_PER_S: Final = 1 / 60


def size_of(row: StoredMessage) -> int:
    """About how many bytes of memory an entry takes, its key included."""
    size = ENTRY_BYTES + len(row.payload_json) + len(row.type)
    return size if row.mid is None else size + KEY_BYTES + len(row.mid)


def sizes_of(rows: Sequence[StoredMessage]) -> int:
    """The same of several, without a call for each."""
    size = ENTRY_BYTES * len(rows)
    for row in rows:
        size += len(row.payload_json) + len(row.type)
        if row.mid is not None:
            size += KEY_BYTES + len(row.mid)
    return size


class Sizes:
    """The bytes of rooms, in all and of each, where one of the biggest is found at once.

    Rooms stand in classes, by the bit length of their sizes; in each, first who came there first. A change takes
    constant time. Memory: one entry for each room that is not empty.
    """

    __slots__ = ("_classes", "_sizes", "total")

    def __init__(self) -> None:
        self._classes: dict[int, OrderedDict[str, None]] = {}
        self._sizes: dict[str, int] = {}
        self.total: int = 0

    def add(self, room: str, size: int) -> None:
        """A room has so many bytes more, or fewer."""
        before = self._sizes.get(room, 0)
        now = before + size
        self.total += size
        if now:
            self._sizes[room] = now
        else:
            self._sizes.pop(room, None)
        if before.bit_length() != now.bit_length():
            self._move(room, before.bit_length(), now.bit_length())

    def _move(self, room: str, before: int, after: int) -> None:
        if before:
            rooms = self._classes[before]
            del rooms[room]
            if not rooms:
                del self._classes[before]
        if after:
            self._classes.setdefault(after, OrderedDict())[room] = None

    def biggest(self) -> tuple[str, int, int]:
        """A room of which no other has twice the bytes: its name, its bytes, and with how many it still is one.

        There must be one that is not empty.
        """
        bits = max(self._classes)
        room = next(iter(self._classes[bits]))
        return room, self._sizes[room], 1 << (bits - 1)


class Forgetting:
    """Adds up what a full log forgets, and tells of it once a minute at most: `tell(entries)` since the last time.

    `clock` is in seconds. The first is told at once.
    """

    __slots__ = ("_allowance", "_clock", "_tell", "_untold")

    def __init__(self, tell: Callable[[int], object], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._allowance = TokenBucket(1.0, clock())
        self._untold = 0

    def add(self, entries: int) -> None:
        """So many entries were forgotten."""
        self._untold += entries
        now = self._clock()
        if self._allowance.left(NOTICES_PER_S, 1.0, now) >= 1.0:
            self._allowance.take(1.0, NOTICES_PER_S, 1.0, now)
            self.tell_rest()

    def tell_rest(self) -> None:
        """Tells of what was not told yet."""
        untold, self._untold = self._untold, 0
        if untold:
            self._tell(untold)
