"""What a file knows of ordered producers: for each of a room its epoch, its last number, and the day of that.

Functions over an open connection; those that change something run inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.effects import StoreAppend
from vixws_core.inputs import StoreFailed
from vixws_core.mids import numbered
from vixws_core.producers import KEPT_DAYS, Kept, day_of, judge

from .at_once import Rows
from .chunks import CHUNKS, chunks
from .schema import NO_CRC

__all__ = [
    "Key",
    "ProducerRow",
    "find_producers",
    "forget_producers",
    "producer_crc",
    "put_producers",
    "read_producers",
]

FORGOTTEN_AT_ONCE: Final = 500
"""Producers that one commit forgets, at most."""

_COLUMNS: Final = (
    *("CAST(p.room AS BLOB)", "CAST(p.scope AS BLOB)", "CAST(p.producer AS BLOB)"),
    *("p.epoch", "p.seq", "p.day", "p.crc"),
)
_FIND: Final = {
    count: Rows(
        ("k.column1", "k.column2", "k.column3", *_COLUMNS),
        f"(VALUES {', '.join(['(?, ?, ?)'] * count)}) k CROSS JOIN ws_producers p"
        " ON p.room = k.column1 AND p.scope = k.column2 AND p.producer = k.column3",
        bytes=(3, 4, 5),
    )
    for count in CHUNKS
}
_ALL: Final = f"SELECT {', '.join(_COLUMNS)} FROM ws_producers p"
_PUT: Final = (
    "INSERT OR REPLACE INTO ws_producers (room, scope, producer, epoch, seq, day, crc) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_FORGET: Final = (
    "DELETE FROM ws_producers WHERE (room, scope, producer) IN"
    " (SELECT room, scope, producer FROM ws_producers WHERE day < ? LIMIT ?)"
)

Key = tuple[str, str, str]
"""Room, scope and name of a producer."""


class ProducerRow(NamedTuple):
    """One row, texts as bytes; `is_sound`: it is what was written."""

    room: Any
    scope: Any
    producer: Any
    kept: Kept
    is_sound: bool


def producer_crc(room: Any, scope: Any, producer: Any, epoch: Any, seq: Any, day: Any) -> int:
    """The CRC-32 of a row with texts as bytes; `NO_CRC` where its types are wrong."""
    try:
        return crc32(b"%b\0%b\0%b\0%d %d %d" % (room, scope, producer, epoch, seq, day))
    except TypeError:
        return NO_CRC


def find_producers(db: sqlite3.Connection, keys: Collection[Key]) -> dict[Key, Kept | None]:
    """What is known of producers; None for one whose row is damaged. Raises: `sqlite3.Error`."""
    found: dict[Key, Kept | None] = {}
    for part in chunks([text for key in keys for text in key], 3):
        for room, scope, producer, *row in _FIND[len(part) // 3].fetch(db, part):
            *what, crc = row
            found[room, scope, producer] = Kept(*what[3:]) if producer_crc(*what) == crc else None
    return found


def put_producers(db: sqlite3.Connection, kept: Mapping[Key, Kept]) -> None:
    """Writes down what is known of producers. Raises: `sqlite3.Error`."""
    rows: list[tuple[Any, ...]] = []
    for (room, scope, producer), what in kept.items():
        epoch, seq, day = what
        crc = producer_crc(room.encode(), scope.encode(), producer.encode(), epoch, seq, day)
        rows.append((room, scope, producer, epoch, seq, day, crc))
    db.executemany(_PUT, rows)


def forget_producers(db: sqlite3.Connection, today: int) -> bool:
    """Forgets some of those that published nothing for too long; whether there may be more. Raises: `sqlite3.Error`."""
    return db.execute(_FORGET, (today - KEPT_DAYS, FORGOTTEN_AT_ONCE)).rowcount >= FORGOTTEN_AT_ONCE


def read_producers(db: sqlite3.Connection) -> Iterator[ProducerRow]:
    """All rows. Raises: `sqlite3.Error`."""
    for room, scope, producer, epoch, seq, day, crc in db.execute(_ALL):
        is_sound = producer_crc(room, scope, producer, epoch, seq, day) == crc
        yield ProducerRow(room, scope, producer, Kept(epoch, seq, day), is_sound)


class Numbers:
    """Ordered producers, as of the transaction that runs."""

    def __init__(self) -> None:
        self._today = 0
        self._swept = 0
        self._known: dict[Key, Kept | None] = {}
        self._taken: dict[Key, Kept] = {}

    def begin(self, db: sqlite3.Connection, asks: Sequence[StoreAppend], ts: str) -> None:
        """Reads what is known of those who append now, at the time `ts`."""
        keys: set[Key] = set()
        for ask in asks:
            if (asked := numbered(ask.mid or "")) is not None:
                keys.add((ask.room, ask.scope, asked.producer))
        self._taken.clear()
        if keys:
            self._today = day_of(ts)
            self._known = find_producers(db, keys)

    def take(self, ask: StoreAppend) -> StoreFailed | None:
        """Notes the number of a message that is stored next; or says why it is not."""
        asked = numbered(ask.mid or "")
        if asked is None:
            return None
        key = (ask.room, ask.scope, asked.producer)
        kept = self._known.get(key)
        if kept is None and key in self._known:
            message = f"what is known of producer {asked.producer!r} here is damaged; see vixws store repair"
            return StoreFailed(ask.request, STORE_UNAVAILABLE, message, True)
        found = judge(kept, ask, asked, self._today)
        if isinstance(found, StoreFailed):
            return found
        self._known[key] = self._taken[key] = found
        return None

    def write(self, db: sqlite3.Connection) -> None:
        """Writes down what was taken, and forgets some of whom nothing was heard of for long."""
        if self._taken:
            put_producers(db, self._taken)
            if self._swept != self._today and not forget_producers(db, self._today):
                self._swept = self._today
