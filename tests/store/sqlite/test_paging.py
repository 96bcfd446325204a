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
from vixws_store.sqlite.reader import LogReader
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


def test_an_index_that_leads_elsewhere_serves_no_other_rooms_message(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with reader_of(path, [b'{"n":%d}' % at for at in range(9)]) as reader:
        with closing(sqlite3.connect(path)) as shell:
            # The index is left behind: its rows lead to what the table has now.
            shell.execute("PRAGMA writable_schema = 1")
            (sql,) = shell.execute("SELECT sql FROM sqlite_master WHERE name = 'ws_messages_offset'").fetchone()
            shell.execute("UPDATE sqlite_master SET sql = sql || ' WHERE 0' WHERE name = 'ws_messages_offset'")
            shell.commit()
        with closing(sqlite3.connect(path)) as shell:
            shell.execute("DELETE FROM ws_messages WHERE off IN (4, 7)")
            shell.execute("UPDATE ws_messages SET id = 4 WHERE room = 'asia'")
            shell.execute("UPDATE ws_messages SET id = 7 WHERE off = 2 AND room = 'africa'")
            shell.execute("PRAGMA writable_schema = 1")
            shell.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ws_messages_offset'", (sql,))
            shell.commit()
        result = reader.run([("read", ("africa", 0, 99, 500, 1 << 20, False))])[0]

    rows = getattr(result, "rows", ())
    assert all(row.room == "africa" for row in rows)
    offs = [row.off for row in rows]
    assert offs == sorted(set(offs))
