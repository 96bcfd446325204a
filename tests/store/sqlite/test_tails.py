"""Write-ahead logs that go on behind what is committed: nobody is refused for it, and none of it is taken for sound."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.damaged import TS, ask, codes, writing
from vixws_core.errors import StoreError
from vixws_store.sqlite.files import FRAME_HEADER, HEADER, close_untouched
from vixws_store.sqlite.writer import LogWriter

FRAME = FRAME_HEADER + 4_096


def torn(folder: Path) -> Path:
    """A file whose log ends with most of a transaction: its writer was killed, or the power cut, before the rest."""
    path, image = folder / "a.db", folder / "image.db"
    with writing(path) as writer:
        for number in range(1, 4):
            writer.commit([ask(number)], TS)
        before = os.stat(f"{path}-wal").st_size
        writer.commit([ask(number) for number in range(4, 84)], TS)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{image}{suffix}")
    size = os.stat(f"{image}-wal").st_size
    assert (size - before) // FRAME > 4
    os.truncate(f"{image}-wal", size - FRAME)
    return image


def spill(db: sqlite3.Connection) -> None:
    """Writes more than SQLite keeps in memory, so that some of it is in the log before it is committed."""
    for number in range(300):
        db.execute("INSERT INTO ws_meta (key, value) VALUES (?, zeroblob(20000))", (f"spilled {number}",))


@pytest.mark.threat(23)
@pytest.mark.threat(27)
@pytest.mark.parametrize("reads", [False, True])
def test_a_log_with_an_unfinished_transaction_takes_messages_at_once(tmp_path: Path, reads: bool) -> None:
    path = torn(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader, writing(path) as writer:
        if reads:  # The log cannot be begun anew, and the new frames are written over the unfinished ones.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM ws_messages").fetchone()
        offsets = [codes(writer.commit([ask(number)], TS)) for number in range(4, 40)]

        assert offsets == [[off] for off in range(4, 40)]
        if reads:
            reader.execute("COMMIT")


@pytest.mark.threat(24)
@pytest.mark.parametrize("reads", [False, True])
def test_a_transaction_that_failed_leaves_nothing_that_refuses_the_next(tmp_path: Path, reads: bool) -> None:
    path = tmp_path / "a.db"

    def fail(db: sqlite3.Connection) -> None:
        spill(db)
        raise OSError(5, "the disk is broken")

    with writing(path) as writer, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        writer.commit([ask(1)], TS)
        if reads:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM ws_messages").fetchone()
        before = os.stat(f"{path}-wal").st_size
        with pytest.raises(OSError, match="the disk is broken"):
            writer.change("FULL", fail)
        assert os.stat(f"{path}-wal").st_size > before + 10 * FRAME
        offsets = [codes(writer.commit([ask(number)], TS)) for number in range(2, 40)]

        assert offsets == [[off] for off in range(2, 40)]


@pytest.mark.threat(27)
def test_a_cut_behind_a_transaction_that_was_not_answered_is_still_noticed(tmp_path: Path) -> None:
    path = torn(tmp_path)
    writer = LogWriter(str(path), "FULL", 0.1, None)
    db = writer.open()
    for number in range(4, 8):
        writer.commit([ask(number)], TS)
    os.truncate(f"{path}-wal", HEADER + FRAME)

    with pytest.raises(StoreError, match="was cut"):
        writer.commit([ask(8)], TS)
    close_untouched(db, str(path))


@pytest.mark.threat(27)
def test_a_log_that_is_cut_in_the_first_transaction_after_it_was_emptied_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def cut(db: sqlite3.Connection) -> None:
        spill(db)
        os.truncate(f"{path}-wal", 0)

    writer = LogWriter(str(path), "FULL", 0.1, None)
    db = writer.open()
    writer.commit([ask(1)], TS)
    assert writer.checkpoint(0.1)
    assert writer.files.are_whole()
    with pytest.raises(StoreError, match="was cut"):
        writer.change("FULL", cut)

    assert not writer.files.are_whole()
    close_untouched(db, str(path))


@pytest.mark.threat(24)
def test_a_log_of_half_a_header_lacks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = LogWriter(str(path), "FULL", 0.1, None)
    with closing(writer.open()):
        writer.commit([ask(1)], TS)
        assert writer.checkpoint(0.1)
    Path(f"{path}-wal").write_bytes(bytes.fromhex("377f0682002de2180000100000000003"))  # Then the disk was full.

    with closing(writer.open()):  # The same store opens its file again.
        assert codes(writer.commit([ask(2)], TS)) == [2]
