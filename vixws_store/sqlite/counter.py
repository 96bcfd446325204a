"""The counter of ids: where it stands by all that the file tells, and what becomes of it where that is damaged."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

from .damage import FileDamaged
from .rooms import newest_id

__all__ = ["ID_MAX", "find_last_id", "is_id", "mend_sequence", "sequences"]

LOGGER = logging.getLogger("vixws.store")

ID_MAX = (1 << 62) - 1
"""The largest id that is believed without a checksum; what is above would end the numbers soon."""


def is_id(value: object) -> bool:
    """Whether a value can be an id, or 0 for none."""
    return type(value) is int and 0 <= value <= ID_MAX


def sequences(db: sqlite3.Connection) -> list[Any]:
    """What stands in SQLite's own table as the highest id: one integer where it is sound, nothing in a new file."""
    return [seq for (seq,) in db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ws_messages' LIMIT 9")]


def find_last_id(db: sqlite3.Connection) -> int:
    """The highest id that was ever given, by the counter and by the messages.

    Raises: `FileDamaged`, `sqlite3.Error`.
    """
    known = [int(seq) for seq in sequences(db) if is_id(seq)]
    newest = newest_id(db)
    if newest is None:  # A number that is too high does no harm.
        known += [id for id in db.execute("SELECT max(id) FROM ws_messages").fetchone() if is_id(id)]
        if not known:
            raise FileDamaged("neither the counter of ids nor one of the newest messages is what was written")
    return max([newest or 0, *known])


def mend_sequence(db: sqlite3.Connection, path: str, floor_id: int) -> int:
    """The highest id that was ever given, for the opening of a file; a counter that is behind it is set right.

    `floor_id` is the highest one that was trimmed up to. Raises: `FileDamaged`, `sqlite3.Error`.
    """
    last = max(find_last_id(db), floor_id)
    found = sequences(db)
    is_sound = len(found) == 1 and is_id(found[0]) and found[0] >= last
    if not is_sound and (found or last):
        LOGGER.warning("id counter set to %d: file=%r held %.80r", last, path, found)
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'ws_messages'")
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('ws_messages', ?)", (last,))
        db.execute("COMMIT")
    return last
