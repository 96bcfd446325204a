"""Files to damage: what they hold, and what the store and its check make of a damaged one, in this thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from vixws_core.effects import StoreAppend
from vixws_core.inputs import StoreAppended, StoreFailed
from vixws_core.log import BatchResult, Page, Position
from vixws_core.message import StoredMessage
from vixws_store.sqlite.reader import LogReader
from vixws_store.sqlite.writer import LogWriter

ROOMS = ("africa", "asia", "europe", "gone")
TS = "2026-01-02T03:04:05.678Z"


def ask(number: int, room: str = "africa", mid: str | None = None) -> StoreAppend:
    """An append whose payload names it."""
    payload = b'{"n":%d,"text":"%b"}' % (number, b"x" * 120)
    digest = None if mid is None else b"digest-of-%06d" % number
    return StoreAppend(number, room, "event", "note", payload, mid, digest, "scope", "ada")


@contextmanager
def writing(path: Path) -> Iterator[LogWriter]:
    """The writer over a file, closed in good order at the end."""
    writer = LogWriter(str(path), "FULL", 0.1, None)
    db = writer.open()
    try:
        yield writer
        writer.note_heads()
        writer.checkpoint(0.1)
    finally:
        db.close()


def fill(path: Path) -> None:
    """Four rooms: one with keys, one without, one trimmed, and one of which nothing is left but its place."""
    with writing(path) as writer:
        for number in range(1, 41):
            writer.commit([ask(number, "africa", f"mid-{number}")], TS)
        writer.commit([ask(number, "asia") for number in range(1, 16)], TS)
        writer.commit([ask(number, "europe", f"mid-{number}") for number in range(1, 11)], TS)
        writer.commit([ask(number, "gone") for number in range(1, 4)], TS)
        writer.trim("europe", 6)
        writer.trim("gone", 3)


def copy(source: bytes, path: Path) -> Path:
    """A file of these bytes, with nothing beside it."""
    for suffix in ("-wal", "-shm", "-journal"):
        if os.path.exists(f"{path}{suffix}"):
            os.unlink(f"{path}{suffix}")
    path.write_bytes(source)
    return path


def change(path: Path, *statements: str) -> None:
    """Changes a file behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            db.execute(statement)


def change_index(path: Path, index: str, *statements: str) -> None:
    """Changes the entries of an index and not its table: for the while it is taken for a table, named `tree`."""
    columns = {"ws_messages_offset": "room, off, id", "ws_messages_key": "room, scope, mid, id"}[index]
    # A table WITHOUT ROWID is a tree of the very same shape.
    tree = f"CREATE TABLE tree ({columns}, PRIMARY KEY ({columns})) WITHOUT ROWID"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        found = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name = ?"
        row = db.execute(found, (index,)).fetchone()
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
        db.execute("INSERT INTO sqlite_master VALUES ('table', 'tree', 'tree', ?, ?)", (row[3], tree))
    change(path, *statements)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE name = 'tree'")
        db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)


class Served:
    """What a store told of a file: by room its page, its place and its newest messages; all of them; and new ones."""

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.places: dict[str, Any] = {}
        self.lists: dict[str, Any] = {}
        self.all: list[StoredMessage] = []
        self.appended: dict[str, Any] = {}


def serve(path: Path) -> Served:
    """Opens a file as a store does, looks at all of it, and appends to each room. Raises what opening raises."""
    served = Served()
    with writing(path) as writer:
        reader = LogReader(str(path), 0.1, writer.quarantine)
        db = reader.open()
        try:
            for room in ROOMS:
                page, place, listed = reader.run(
                    [
                        ("read", (room, 0, 1 << 40, 500, 1 << 20, False)),
                        ("position", (room, 3)),
                        ("list_by_room", (room, 100, None)),
                    ]
                )
                served.pages[room], served.places[room], served.lists[room] = page, place, listed
            (everything,) = reader.run([("replay_from", (0, 1_000))])
            served.all = [] if isinstance(everything, sqlite3.Error) else everything[0]
            result = writer.commit([ask(number, room) for number, room in enumerate(ROOMS, 1_000)], TS)
            served.appended = dict(zip(ROOMS, result.answers, strict=True))
        finally:
            db.close()
    return served


def faults(clean: Served, found: Served) -> list[str]:
    """What was told that is not true of the file as it was written; to tell nothing is no fault."""
    known = {(row.room, row.off): row for row in clean.all}
    told = [*found.all]
    for rows in found.lists.values():
        told += rows if isinstance(rows, list) else []
    for page in found.pages.values():
        told += page.rows if isinstance(page, Page) else ()
    wrong = [f"{row}" for row in told if known.get((row.room, row.off)) != row]
    newest = max(row.id for row in clean.all)
    for room in ROOMS:
        page, place, answer = found.pages[room], found.places[room], found.appended[room]
        at = clean.places[room]
        if isinstance(page, Page) and not _is_place(room, (page.ep, page.floor, page.head), (at.ep, at.floor, at.head)):
            wrong.append(f"{room}: page of {page.ep} {page.floor} {page.head}")
        # An entry that cannot be found has no id: who was there is told to begin anew.
        if isinstance(place, Position) and place not in (at, replace(at, id_at=None), Position(place.ep, 0, 0, "")):
            wrong.append(f"{room}: {place}")
        if isinstance(place, Position) and not _is_place(
            room, (place.ep, place.floor, place.head), (at.ep, at.floor, at.head)
        ):
            wrong.append(f"{room}: {place}")
        if isinstance(answer, StoreAppended):
            if not _is_place(room, (answer.ep, answer.off - 1), (at.ep, at.head)) or answer.id <= newest:
                wrong.append(f"{room}: appended at {answer.ep} {answer.off} as {answer.id}")
        elif not isinstance(answer, StoreFailed) or answer.code != "store_unavailable":
            wrong.append(f"{room}: {answer}")
    return wrong


def _is_place(room: str, told: tuple[str | int, ...], true: tuple[str | int, ...]) -> bool:
    """Whether a room stands where it stood; or, where nothing but its place was left and that is lost, begins as
    another log."""
    return told == true or (room == "gone" and told[0] != true[0] and not any(told[1:]))


def codes(result: BatchResult) -> list[str | int]:
    """The offsets of what was stored, and the codes of what was not."""
    return [answer.off if isinstance(answer, StoreAppended) else answer.code for answer in result.answers]


def meaning(path: Path) -> object:
    """All that a file says, read without and with its indexes; what SQLite says where that cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as db:
            db.text_factory = bytes
            catalogue = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
            said: list[object] = [[(kind, name, of, (sql or b"").split()) for kind, name, of, sql in catalogue]]
            said += [db.execute(f"SELECT {text}").fetchall() for text in _SAID]
            counters = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ws_messages'").fetchall()
            newest = db.execute("SELECT max(id) FROM ws_messages NOT INDEXED").fetchone()[0]
            floors = db.execute("SELECT max(floor_id) FROM ws_rooms").fetchone()[0]
            least = max(number for number in (newest, floors) if isinstance(number, int))
            # A counter that is ahead costs nothing but numbers.
            said.append([isinstance(seq, int) and least <= seq < 1 << 62 for (seq,) in counters])
            return said
    except (sqlite3.Error, ValueError) as exc:
        return str(exc)


_SAID = (
    "* FROM ws_messages NOT INDEXED ORDER BY id",
    "room, off, id FROM ws_messages INDEXED BY ws_messages_offset ORDER BY room, off",
    "room, scope, mid, id FROM ws_messages INDEXED BY ws_messages_key WHERE mid IS NOT NULL",
    "* FROM ws_rooms",
    "* FROM ws_lost",
    "* FROM ws_meta",
)
