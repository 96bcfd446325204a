"""Who holds the connections that are still opening, and whose is to give way where there are too many."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Opening"]


class Opening:
    """Connections that are opening, by who holds them. Whoever holds most is known at once: no call searches.

    A holder is an address as text. Holders stand in one queue for each count of connections, in order of reaching it,
    and move to the next queue with each that begins or ends. Memory: one entry for each connection.
    """

    __slots__ = ("_by_count", "_held", "_holders", "_most")

    def __init__(self) -> None:
        self._holders: dict[int, str] = {}
        self._held: dict[str, OrderedDict[int, float]] = {}
        """For each holder its connections and when they began, oldest first; none is empty."""
        self._by_count: dict[int, OrderedDict[str, None]] = {}
        """For each count that anybody has, those who have it."""
        self._most = 0

    def __len__(self) -> int:
        return len(self._holders)

    def __contains__(self, conn: int) -> bool:
        return conn in self._holders

    @property
    def most(self) -> int:
        """How many the one who holds most has; 0 where nobody has any."""
        return self._most

    def count(self, holder: str) -> int:
        """How many a holder has."""
        return len(self._held.get(holder, ()))

    def begin(self, conn: int, holder: str, now: float) -> None:
        """A connection begins."""
        self._holders[conn] = holder
        held = self._held.setdefault(holder, OrderedDict())
        held[conn] = now
        self._move(holder, len(held) - 1, len(held))
        self._most = max(self._most, len(held))

    def end(self, conn: int) -> None:
        """A connection is not opening any more; nothing happens where it was not."""
        holder = self._holders.pop(conn, None)
        if holder is None:
            return
        held = self._held[holder]
        del held[conn]
        self._move(holder, len(held) + 1, len(held))
        if self._most not in self._by_count:
            self._most -= 1  # It is this holder's count now, or there is none left.
        if not held:
            del self._held[holder]

    def oldest_of_most(self) -> tuple[int, float]:
        """The oldest connection of who holds most, and when it began; of several, of who has held so many longest.

        There must be one.
        """
        return next(iter(self._held[next(iter(self._by_count[self._most]))].items()))

    def _move(self, holder: str, before: int, after: int) -> None:
        if before:
            queue = self._by_count[before]
            del queue[holder]
            if not queue:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, OrderedDict())[holder] = None
