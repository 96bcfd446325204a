"""Pages: whatever the sizes and bounds, they hold what the rule says, in one step or one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.seeds import base_seed
from vixws_core.effects import StoreAppend
from vixws_core.message import StoredMessage
from vixws_store.sqlite import paging
from vixws_store.sqlite import reader as reader_module
from vixws_store.sqlite.reader import LogReader
from vixws_store.sqlite.schema import row_crc, row_head
from vixws_store.sqlite.writer import LogWriter

TS = "2026-01-02T03:04:05.678Z"
SIZES = (2, 3, 40, 40, 200, 3_000, 70_000)
TEXTS = ("", '"', "\\", "é", "日本🎉", "\x7f", "a\tb")


@contextmanager
def reader_of(path: Path, payloads: Sequence[bytes]) -> Iterator[LogReader]:
    writer = LogWriter(str(path), "NORMAL", 1.0, None)
    with closing(writer.open()):
        writer.commit(
            [
                StoreAppend(at, "africa", "event", f"t{at}", payload, f"m{at}", b"d" * 16, "s", "ada")
                for at, payload in enumerate(payloads)
            ]
            + [StoreAppend(0, "asia", "event", "x", b"{}")],
            TS,
        )
        writer.closed()
        reader = LogReader(str(path), 1.0)
        with closing(reader.open()):
            yield reader


def page_of(rows: Sequence[StoredMessage], rows_max: int, bytes_max: int) -> list[int]:
    """The rule: as many as both bounds let by, and one at least."""
    offs: list[int] = []
    size = 0
    for row in rows:
        size += len(row.payload_json)
        if len(offs) >= rows_max or (offs and size > bytes_max):
            break
        offs.append(row.off)
    return offs


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_pages_hold_what_the_rule_says(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "ROWS_AT_ONCE_MAX", chunk)
    random = Random(f"{base_seed()} pages {chunk}")
    payloads = []
    for _ in range(120):
        text = random.choice(TEXTS) * 3 + "x" * random.choice(SIZES)
        payloads.append(b'{"t":"%b"}' % text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").encode())
    with reader_of(tmp_path / "a.db", payloads) as reader:
        everything = reader.read("africa", 0, 1 << 40, 1_000, 1 << 40, False).rows
        assert [row.payload_json for row in everything] == payloads
        assert [(row.off, row.type, row.mid, row.sender, row.room) for row in everything] == [
            (at + 1, f"t{at}", f"m{at}", "ada", "africa") for at in range(120)
        ]
        for _ in range(300):
            after, until = random.randrange(-1, 121), random.randrange(0, 130)
            rows_max, bytes_max = random.choice((1, 2, 10, 500)), random.choice((1, 300, 5_000, 80_000, 1 << 33))
            down = random.random() < 0.5
            page = reader.read("africa", after, until, rows_max, bytes_max, down).rows
            candidates = [row for row in everything if after < row.off <= until]
            expected = page_of(candidates[::-1] if down else candidates, rows_max, bytes_max)
            assert [row.off for row in page] == expected, (after, until, rows_max, bytes_max, down)
            assert all(row == everything[row.off - 1] for row in page)
        assert [row.off for row in reader.list_by_room("africa", 7, None)] == list(range(114, 121))
        replayed, more = reader.replay_from(int(everything[99].id), 50)
        assert ([row.room for row in replayed], more) == (["africa"] * 20 + ["asia"], False)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE ws_messages SET payload_json = '{\"t\":1}' WHERE off = 5",
        "UPDATE ws_messages SET payload_json = CAST(X'7b22ff227d' AS TEXT) WHERE off = 5",
        "UPDATE ws_messages SET payload_json = X'7b7d' WHERE off = 5",
        "UPDATE ws_messages SET type = 7 WHERE off = 5",
        "UPDATE ws_messages SET kind = 9e999 WHERE off = 5",
        "UPDATE ws_messages SET digest = 'text' WHERE off = 5",
        "UPDATE ws_messages SET crc = -2 WHERE off = 5",
        "UPDATE ws_messages SET sender = NULL WHERE off = 5",
    ],
)
def test_what_is_not_what_was_written_is_left_out_and_nothing_else(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    with reader_of(path, [b'{"n":%d}' % at for at in range(9)]) as reader:
        with closing(sqlite3.connect(path)) as shell:
            shell.execute(damage)
            shell.commit()
        for down in (False, True):
            rows = reader.read("africa", 0, 99, 500, 1 << 20, down).rows
            offs = [row.off for row in rows]
            assert (offs[::-1] if down else offs) == [1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize(("room", "off"), [("asia", 50), ("africa", 50), ("africa", 2)])
def test_an_index_that_leads_elsewhere_serves_no_other_message(tmp_path: Path, room: str, off: int) -> None:
    """The row is sound by itself, and is not the one that the index calls it."""
    path = tmp_path / "a.db"
    with reader_of(path, [b'{"n":%d}' % at for at in range(9)]) as reader:
        (first,) = reader.read("africa", 0, 1, 1, 1, False).rows
        number = int(first.id) + 3
        head = row_head(number, off, first.ep, "event", room, "t3", TS, "s", "m3", "ada")
        with closing(sqlite3.connect(path)) as shell:
            shell.execute("PRAGMA writable_schema = 1")
            (sql,) = shell.execute("SELECT sql FROM sqlite_master WHERE name = 'ws_messages_offset'").fetchone()
            shell.execute("UPDATE sqlite_master SET sql = sql || ' WHERE 0' WHERE name = 'ws_messages_offset'")
            shell.commit()
        with closing(sqlite3.connect(path)) as shell:  # From here on the index is left as it is.
            crc = row_crc(head, b"d" * 16, b'{"n":3}')
            shell.execute("UPDATE ws_messages SET room = ?, off = ?, crc = ? WHERE id = ?", (room, off, crc, number))
            shell.execute("PRAGMA writable_schema = 1")
            shell.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ws_messages_offset'", (sql,))
            shell.commit()
        for down in (False, True):
            rows = reader.read("africa", 0, 99, 500, 1 << 20, down).rows
            offs = [row.off for row in rows]
            assert (offs[::-1] if down else offs) == [1, 2, 3, 5, 6, 7, 8, 9]
            assert {row.room for row in rows} == {"africa"}


@pytest.mark.parametrize(
    ("way", "values", "come", "taken"),
    [
        (reader_module._PAGE, ("africa", 2, 7), [3, 4, 4, 3, 6, 5, 7, 8], [3, 4, 6]),
        (reader_module._NEWEST, ("africa", 2, 7), [8, 7, 6, 6, 4, 5, 3, 2, 1], [6, 4, 3]),
        (reader_module._BELOW, ("africa", 5), [5, 4, 4, 1, 3, 0], [4, 1, 0]),
        (reader_module._ABOVE_ID, (5,), [5, 6, 6, 9, 8], [6, 9]),
    ],
)
def test_what_comes_out_of_order_is_not_taken(
    way: paging.Way, values: tuple[object, ...], come: list[int], taken: list[int]
) -> None:
    place = paging._Place(way, values)

    assert [number for number in come if place.takes(number, "africa", number)] == taken
    assert way.by_id or not paging._Place(way, values).takes(4, "asia", 4)
