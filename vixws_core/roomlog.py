"""One room's log in memory."""

from __future__ import annotations

from .message import StoredMessage

__all__ = ["RoomLog"]


class RoomLog:
    """Entries with dense offsets behind `floor`, the highest one that is trimmed, and their keys."""

    __slots__ = ("ep", "floor", "floor_id", "keys", "name", "rows")

    def __init__(self, name: str, ep: str) -> None:
        self.name: str = name
        self.ep: str = ep
        self.floor: int = 0
        self.floor_id: str = ""
        self.rows: list[StoredMessage] = []
        self.keys: dict[tuple[str, str], tuple[int, bytes | None]] = {}
        """Offset and digest of each key, in the order of offsets."""

    def id_at(self, off: int) -> str | None:
        """The id at an offset, that of the floor included; None where there is none."""
        if self.floor < off <= self.head:
            return self.rows[off - self.floor - 1].id
        return self.floor_id if off == self.floor and off else None

    @property
    def head_id(self) -> str:
        """The id of the newest entry, "" where there never was one."""
        return self.rows[-1].id if self.rows else self.floor_id

    @property
    def head(self) -> int:
        """The newest offset."""
        return self.floor + len(self.rows)

    def forget(self, count: int) -> list[StoredMessage]:
        """Takes out the oldest entries, one at least, and their keys; returns them."""
        old = self.rows[:count]
        self.floor_id = old[-1].id
        self.floor += count
        del self.rows[:count]
        keys: list[tuple[str, str]] = []
        for key, (off, _) in self.keys.items():
            if off > self.floor:
                break
            keys.append(key)
        for key in keys:
            del self.keys[key]
        return old
