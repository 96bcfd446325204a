"""What can be said of a message and a connection where a trace has lost its beginning: from its inputs alone.

Without the first steps no hub can be brought to where it was, so nothing is known of what it sent. What it was told is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    Join,
    Leave,
    LeaveAll,
    RoomAdvanced,
)
from .lines import Record

__all__ = ["Search"]


class Search:
    """Looks through records for one connection, room and offset; `answer` says what they tell."""

    def __init__(self, conn: int, room: str, off: int, first: int) -> None:
        self.conn: int = conn
        self.room: str = room
        self.off: int = off
        self._number = first
        self._first = first
        self._began: float | None = None
        self._found: list[str] = []
        self._told = ""
        self._heads: list[int] = []
        """The first and the last head that was told of the room."""
        self._flushed = 0
        """Bytes flushed to the connection since the message came."""
        self._last_flush = ""
        self._reads = 0
        self._kinds: dict[type, Callable[[Record, str], None]] = {
            RoomAdvanced: self._advanced,
            BytesFlushed: self._flush,
            BytesReceived: self._received,
        }
        self._words: dict[type, str] = {
            Connected: "it connected, from {0.peer}",
            Accept: "it was accepted",
            Disconnected: "its transport ended ({0.reason})",
            Close: "the application closed it with {0.code}",
            LeaveAll: "the application took it out of all rooms",
        }

    def see(self, record: Record) -> None:
        """Takes one record."""
        if self._began is None:
            self._began = record.now
        when = f"at step {self._number}, {record.now - self._began:.3f} s behind the first that is left"
        self._number += 1
        kind: type[Any] = type(record.input)  # pyright: ignore[reportUnknownVariableType] -- it is any input
        note = self._kinds.get(kind)
        if note is not None:
            note(record, when)
        elif getattr(record.input, "conn", None) == self.conn:
            if kind in self._words:
                self._found.append(f"{self._words[kind].format(record.input)} {when}")
            elif kind in (Join, Leave) and record.input.room == self.room:
                self._found.append(f"the application's {record.name} of the room {when}")

    def _advanced(self, record: Record, when: str) -> None:
        input = record.input
        if input.room != self.room:
            return
        self._heads = [self._heads[0] if self._heads else input.head, input.head]
        if any(entry.off == self.off for entry in input.entries):
            self._told = when

    def _flush(self, record: Record, when: str) -> None:
        count = sum(count for conn, count in record.input.flushed if conn == self.conn)
        if count and self._told:
            self._flushed += count
            self._last_flush = when

    def _received(self, record: Record, when: str) -> None:
        self._reads += record.input.conn == self.conn

    def answer(self) -> list[str]:
        """What the inputs tell, and what they cannot."""
        what = f"offset {self.off} of room {self.room!r}"
        lines = [
            f"Not known: the steps before {self._first} are not in the trace any more (traceSize), so what the hub "
            "sent cannot be replayed. What it was told of:"
        ]
        if self._told:
            lines.append(f"{what} was stored {self._told}")
            flushed = f", the last of them {self._last_flush}" if self._last_flush else ""
            lines.append(f"{self._flushed} bytes went to connection {self.conn} since{flushed}")
        elif self._heads:
            lines.append(f"{what} was not stored meanwhile; the room's log went on up to {self._heads[1]}")
        else:
            lines.append(f"nothing was stored in room {self.room!r} meanwhile")
        if not self._found and not self._reads:
            lines.append(f"connection {self.conn} neither came, nor sent anything, nor ended")
            return lines
        lines.append(f"connection {self.conn} sent something {self._reads} times")
        return lines + self._found[:20]
