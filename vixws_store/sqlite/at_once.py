"""Rows that SQLite gives in one step, as one text of JSON.

Each step gives up the interpreter's lock, and while the loop computes it takes up to a switch interval to get it back:
a page of 500 rows, step by step, waits for it 500 times.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

__all__ = ["AtOnce", "Rows", "as_hex", "is_too_big"]

T = TypeVar("T")

_SEVERAL: Final = msgspec.json.Decoder(list[list[Any]])


def as_hex(expression: str) -> str:
    """What gives the bytes of a text or a blob as hexadecimal digits, and NULL for NULL."""
    return f"iif({expression} IS NULL, NULL, hex({expression}))"


def is_too_big(error: sqlite3.Error) -> bool:
    """Whether one value was too much for SQLite: nothing is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_TOOBIG


class AtOnce(Generic[T]):
    """A query whose rows come as JSON. `columns` give integers, texts, NULL and no blobs; `rows` decodes the array."""

    __slots__ = ("_rows", "_statement")

    def __init__(self, columns: Sequence[str], source: str, rows: msgspec.json.Decoder[list[T]]) -> None:
        self._statement: Final = f"SELECT json_group_array(json_array({', '.join(columns)})) FROM {source}"
        self._rows: Final = rows

    def fetch(self, db: sqlite3.Connection, values: Sequence[Any]) -> list[T]:
        """All rows. Raises: `sqlite3.Error`; `msgspec.MsgspecError` or `UnicodeError` where a value is another."""
        (text,) = db.execute(self._statement, values).fetchone()
        return self._rows.decode(text)


class Rows:
    """A query of several rows whose columns named `bytes` give bytes, whatever the connection makes of texts."""

    __slots__ = ("_at_once", "_bytes", "_plain")

    def __init__(self, columns: Sequence[str], source: str, bytes: Sequence[int]) -> None:
        self._bytes: Final = tuple(bytes)
        gathered = [as_hex(column) if at in bytes else column for at, column in enumerate(columns)]
        self._at_once: Final = AtOnce(gathered, source, _SEVERAL)
        self._plain: Final = f"SELECT {', '.join(columns)} FROM {source}"

    def fetch(self, db: sqlite3.Connection, values: Sequence[Any]) -> list[list[Any]]:
        """All rows. Raises: `sqlite3.Error`."""
        try:
            found = self._at_once.fetch(db, values)
            for row in found:
                for at in self._bytes:
                    if row[at] is not None:
                        row[at] = bytes.fromhex(row[at])
        except (msgspec.MsgspecError, UnicodeError):  # A number, or a text, that JSON cannot hold.
            return [
                [_text(value) if at not in self._bytes else value for at, value in enumerate(row)]
                for row in db.execute(self._plain, values)
            ]
        return found


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
