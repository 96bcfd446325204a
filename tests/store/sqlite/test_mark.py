"""Power cuts of a store that does not sync its commits: no place in a room's log is ever given to two messages."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from random import Random

import anyio
import pytest

from tests.serving import environment
from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import StoreAppended
from vixws_core.log import message_id
from vixws_store import SqliteMessageStore
from vixws_store.sqlite import mark as marks
from vixws_store.sqlite.mark import MARK_IDS, PAGE, PAGES, Mark, Marked, is_complete, mark_of, read_mark

ROOMS = ("africa", "asia", "europe")


def ask(room: str, number: int, mid: str | None = None) -> StoreAppend:
    return StoreAppend(number, room, "event", "note", b'{"n":%d}' % number, mid, b"d" * 16 if mid else None)


async def epochs_of(store: SqliteMessageStore, rooms: tuple[str, ...] = ROOMS) -> set[str]:
    return {(await store.position(room)).ep for room in rooms}


# ---- images ---------------------------------------------------------------------------------------


class Told:
    """What was told to anybody, over all images of a history: who was at which place, and which number was whose."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str, int], str] = {}
        self.owners: dict[str, tuple[str, bytes]] = {}
        self.number = 0

    def stored(self, room: str, ep: str, off: int, id: str, payload: bytes) -> None:
        assert self.places.setdefault((room, ep, off), id) == id, f"{room} {ep} {off} was of another message"
        assert self.owners.setdefault(id, (room, payload)) == (room, payload), f"{id} was of another message"


class Recorder:
    """Notes a store's files after each commit, and its mark as it was synced."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.logs: list[tuple[bytes, bytes]] = []
        self.synced = b""
        self.marks: list[tuple[bytes, bytes]] = []
        sync = os.fsync

        def note(descriptor: int) -> None:
            sync(descriptor)
            self.synced = os.pread(descriptor, PAGE * PAGES, 0)

        monkeypatch.setattr(marks, "_sync", note)

    def note(self) -> None:
        wal = Path(f"{self.path}-wal")
        self.logs.append((self.path.read_bytes(), wal.read_bytes() if wal.exists() else b""))
        self.marks.append((self.synced, Path(mark_of(str(self.path))).read_bytes()))


async def generation(path: Path, told: Told, random: Random, recorder: Recorder) -> list[tuple[int, str]]:
    """One run on the files at `path`, after which nothing is closed in good order; the heads after each commit."""
    heads: list[tuple[int, str]] = []
    store = SqliteMessageStore(path, synchronous="NORMAL")
    async with store.run():
        for room in ROOMS:
            page = await store.read(room, 0, 1 << 40, 10_000, 1 << 30)
            for row in page.rows:
                told.stored(room, page.ep, row.off, row.id, row.payload_json)
                assert row.ep == page.ep
        recorder.note()
        for _ in range(random.randrange(3, 14)):
            count = random.choice((1, 1, 1, 2, 9, 70))
            told.number += count
            asks = [ask(random.choice(ROOMS), told.number - at) for at in range(count)]
            answers = (await store.append_batch(asks)).answers
            for asked, answer in zip(asks, answers, strict=True):
                assert isinstance(answer, StoreAppended)
                told.stored(asked.room, answer.ep, answer.off, answer.id, asked.payload)
            recorder.note()
            heads.append((sum([(await store.position(room)).head for room in ROOMS]), answers[-1].ep))  # type: ignore[union-attr] # checked above
    return heads


@pytest.mark.threat(27)
def test_no_place_and_no_id_is_given_twice_in_200_images_of_power_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = lost = renewed = 0
    for seed in range(50):
        random, told = Random(seed), Told()
        path = tmp_path / f"{seed}-0" / "a.db"
        path.parent.mkdir()
        before = ""
        for number in range(1, 5):
            recorder = Recorder(path, monkeypatch)
            heads = anyio.run(generation, path, told, random, recorder)
            now = heads[-1][1]
            renewed += before not in ("", now)
            at = len(recorder.logs) - 1  # What was told ends with the last commit.
            kept = max(0, at - random.choice((0, 0, 1, 1, 2, 5, 20)))
            database, log = recorder.logs[kept]
            if random.random() < 0.5:
                log = log[: len(log) - random.randrange(0, 200)] + random.randbytes(random.randrange(300))
            path = tmp_path / f"{seed}-{number}" / "a.db"
            path.parent.mkdir()
            path.write_bytes(database)
            Path(f"{path}-wal").write_bytes(log)
            Path(mark_of(str(path))).write_bytes(recorder.marks[at][random.randrange(2)])
            images += 1
            lost += kept < at
            before = now
        anyio.run(generation, path, told, random, Recorder(path, monkeypatch))

    assert images == 200
    assert lost > 80
    assert renewed > 80


def test_a_mark_is_synced_once_for_64_ids_or_four_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(marks, "_sync", synced.append)

    async def run() -> None:
        store = SqliteMessageStore(tmp_path / "a.db", synchronous="NORMAL")
        async with store.run():
            synced.clear()
            for number in range(4 * MARK_IDS):
                await store.append_batch([ask("africa", number)])
            assert len(synced) == 4
            synced.clear()
            for number in range(8):
                await store.append_batch([ask("africa", number)] * 200)
            assert len(synced) in (2, 3)

    anyio.run(run)


# ---- ends that lose nothing ---------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_clean_end_leaves_no_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    seen: set[str] = set()
    heads: list[int] = []
    for run in range(6):
        store = SqliteMessageStore(path, synchronous="NORMAL")
        async with store.run():
            for number in range(0 if run % 3 == 1 else 100):
                await store.append_batch([ask("africa", number)])
            seen |= await epochs_of(store)
            heads.append((await store.position("africa")).head)

    assert len(seen) == 1
    assert heads == [100, 100, 200, 300, 300, 400]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "a.db.lock", "a.db.mark"]
    assert stat.S_IMODE(os.stat(f"{path}.mark").st_mode) == 0o600


@pytest.mark.anyio
async def test_an_end_that_others_keep_from_a_checkpoint_is_a_clean_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL")
    async with store.run():
        await store.append_batch([ask("africa", 1)])
        before = await epochs_of(store)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ws_messages").fetchone()
        await store.append_batch([ask("africa", 2)])
    reader.close()

    async with store.run():
        assert await epochs_of(store) == before
        assert (await store.position("africa")).head == 2


WRITER = """
import sys, anyio
from vixws_store import SqliteMessageStore
async def main():
    store = SqliteMessageStore(sys.argv[1], synchronous="NORMAL")
    async with store.run():
        print((await store.position("africa")).ep, flush=True)
        while True:
            print(await store.append("event", "africa", "note", {}), flush=True)
anyio.run(main)
"""


def killed(path: Path) -> tuple[str, list[str]]:
    """The epoch and the ids that a writer told before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    epoch = process.stdout.readline().strip()
    ids = [process.stdout.readline().strip() for _ in range(150)]
    process.kill()
    ids += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    return epoch, ids


MORTAL = """
import os, sys, threading, anyio
from vixws_store import SqliteMessageStore

left = int(sys.argv[2])
NAMES = {"pwrite", "fsync", "fdatasync", "open", "ftruncate", "fchmod", "unlink", "close"}

def mortal(frame, event, argument):
    "Dies before the call of sqlite3, or of the system, that is next when none is left."
    global left
    if event == "c_call" and (
        "sqlite3" in f"{getattr(argument, '__self__', '')!r}" or getattr(argument, "__name__", "") in NAMES
    ):
        left -= 1
        if left < 0:
            os._exit(9)

async def main():
    threading.setprofile(mortal)
    for _ in range(2):
        store = SqliteMessageStore(sys.argv[1], synchronous="NORMAL")
        async with store.run():
            print((await store.position("africa")).ep, flush=True)
            for _ in range(2):
                print(await store.append("event", "africa", "note", {}), flush=True)
    print("end", flush=True)
anyio.run(main)
"""
"""A writer whose threads are killed at their n-th call, with two runs on one file."""


@pytest.mark.threat(23)
@pytest.mark.skipif(not marks.boot_id(), reason="the kernel does not say when it was started")
def test_a_writer_that_is_killed_at_any_call_keeps_epoch_and_messages(tmp_path: Path) -> None:
    deaths = 0
    for calls in range(0, 600, 17):
        path = tmp_path / f"{calls}.db"
        done = subprocess.run(
            [sys.executable, "-c", MORTAL, str(path), str(calls)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.split()
        epochs = {line for line in lines if len(line) == 8}
        told = [line for line in lines if len(line) == 20]
        assert done.returncode == 9 or lines[-1] == "end", done.stderr
        now, ids, new = anyio.run(look, path)
        assert epochs in ({now}, set())
        assert ids[: len(told)] == told
        assert new not in told
        deaths += done.returncode == 9
        if lines[-1:] == ["end"]:
            break

    assert lines[-1] == "end"
    assert deaths > 8


async def look(path: Path) -> tuple[str, list[str], str]:
    store = SqliteMessageStore(path, synchronous="NORMAL")
    async with store.run():
        page = await store.read("africa", 0, 1 << 40, 1 << 20, 1 << 30)
        return page.ep, [row.id for row in page.rows], await store.append("event", "africa", "note", {})


@pytest.mark.threat(23)
@pytest.mark.skipif(not marks.boot_id(), reason="the kernel does not say when it was started")
def test_a_killed_process_keeps_its_epoch_where_the_machine_runs_on(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    epoch, told = killed(path)
    found = read_mark(str(path))
    assert found is not None
    assert found.limit is not None
    now, ids, new = anyio.run(look, path)

    assert (now, ids[: len(told)]) == (epoch, told)
    assert int(new) > found.limit
    assert anyio.run(look, path)[0] == epoch


@pytest.mark.threat(27)
@pytest.mark.parametrize("what", ["another boot", "no boot", "copied", "count"])
def test_what_cannot_be_known_to_be_complete_has_a_new_epoch(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    epoch, told = killed(path)
    if what == "another boot":
        monkeypatch.setattr(marks, "boot_id", lambda: "0" * 36)
    elif what == "no boot":
        monkeypatch.setattr(marks, "boot_id", lambda: "")
    elif what == "copied":
        for end in ("", "-wal", ".mark"):
            shutil.copy(f"{path}{end}", f"{tmp_path}/copy.db{end}")
        path = tmp_path / "copy.db"
    else:
        with open(mark_of(str(path)), "r+b") as file:
            file.seek(2 * PAGE)
            file.write(b"0" * 16)
    now, ids, new = anyio.run(look, path)

    assert now != epoch
    assert ids[: len(told)] == told  # Nothing was lost as it happens.
    assert int(new) > int(told[-1])
    assert "all rooms have a new epoch" in caplog.text
    assert anyio.run(look, path)[0] == now


# ---- a mark that is not as it was --------------------------------------------------------------------


def filled(path: Path) -> str:
    async def fill() -> str:
        store = SqliteMessageStore(path, synchronous="NORMAL")
        async with store.run():
            await store.append_batch([ask("africa", number) for number in range(5)])
            return (await store.position("africa")).ep

    return anyio.run(fill)


@pytest.mark.threat(26)
def test_a_bit_that_flips_in_a_mark_is_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    filled(tmp_path / "a.db")
    data = Path(mark_of(path)).read_bytes()
    sound = read_mark(path)
    assert sound is not None
    random = Random(27)
    lines = [at for at, sign in enumerate(data) if sign] + random.sample(range(len(data)), 50)
    noticed = 0
    for at in lines:
        Path(mark_of(path)).write_bytes(data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :])
        found = read_mark(path)
        assert found is not None
        if at >= 2 * PAGE:
            assert (found.limit, found.committed) == (sound.limit, None)
        else:
            assert found == Marked()
            noticed += 1

    assert noticed > 100


@pytest.mark.parametrize("what", ["gone", "emptied", "cut", "garbage", "endless", "wide"])
def test_a_mark_that_is_damaged_or_gone_gives_new_epochs_and_far_ids(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    epoch = filled(path)
    mark = Path(mark_of(str(path)))
    if what == "gone":
        mark.unlink()
    else:
        data = mark.read_bytes()
        wide = b"vixws-mark 1 9 %d %b - 1 1" % (1 << 62, b"0" * 16)
        mark.write_bytes(
            {
                "emptied": b"",
                "cut": data[:-1],
                "garbage": os.urandom(PAGE * PAGES),
                "endless": data + b"\0",
                "wide": marks.sealed(wide) + data[PAGE:],
            }[what]
        )
    now, ids, new = anyio.run(look, path)

    assert now != epoch
    assert len(ids) == 5
    assert int(new) - int(ids[-1]) > 1 << 31
    assert "its mark is damaged or gone" in caplog.text
    assert anyio.run(look, path)[0] == now


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_plain_file_is_no_mark(kind: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "a.db", tmp_path / "a.db.mark"
    if kind == "link":
        (tmp_path / "other").write_text("kept")
        mark.symlink_to(tmp_path / "other")
    elif kind == "folder":
        mark.mkdir()
    else:
        os.mkfifo(mark)

    with pytest.raises(StoreError, match=r"a\.db\.mark: expected a plain file"):
        filled(path)
    if kind == "link":
        assert (tmp_path / "other").read_text() == "kept"


def test_an_older_file_put_back_beside_its_mark_has_a_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    epoch = filled(path)
    shutil.copy(path, tmp_path / "backup")
    later = anyio.run(look, path)[2]
    shutil.copyfile(tmp_path / "backup", path)  # The same inode, in the same boot.
    now, ids, new = anyio.run(look, path)

    assert now != epoch
    assert len(ids) == 5
    assert int(new) > int(later)


# ---- other stores and the same file -------------------------------------------------------------------


def test_a_store_that_syncs_each_commit_judges_a_mark_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    epoch, told = killed(path)
    monkeypatch.setattr(marks, "boot_id", lambda: "")

    async def open_synced() -> tuple[str, str]:
        store = SqliteMessageStore(path)
        async with store.run():
            return (await store.position("africa")).ep, await store.append("event", "africa", "note", {})

    now, new = anyio.run(open_synced)
    again, _ = anyio.run(open_synced)
    later = anyio.run(look, path)[0]  # Its mark begins anew.

    assert epoch != now
    assert now == again == later
    assert int(new) > int(told[-1])


def test_a_store_that_syncs_each_commit_has_no_mark(tmp_path: Path) -> None:
    async def run() -> None:
        async with SqliteMessageStore(tmp_path / "a.db").run():
            pass

    filled(tmp_path / "a.db")
    anyio.run(run)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "a.db.lock"]
    with sqlite3.connect(tmp_path / "a.db") as db:
        assert db.execute("SELECT key FROM ws_meta ORDER BY key").fetchall() == [
            (name,) for name in ("crc", "epoch", "rooms", "schema_version")
        ]
    db.close()


@pytest.mark.anyio
async def test_a_mark_that_is_taken_away_while_served_is_missed_before_ids_are_given_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL")
    async with store.run():
        await store.append_batch([ask("africa", 1)])
        before = await epochs_of(store)
        os.unlink(f"{path}.mark")
        failed = 0
        for number in range(2 * MARK_IDS):
            try:
                await store.append_batch([ask("africa", number)])
            except StoreError as exc:
                assert "a.db.mark was removed" in str(exc)
                failed += 1
        after = await epochs_of(store)

    assert failed == 1
    assert (tmp_path / "a.db.mark").exists()
    assert before.isdisjoint(after)  # Nobody knows any more what may have been given out.


@pytest.mark.anyio
async def test_a_mark_that_cannot_be_synced_gives_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", synchronous="NORMAL")
    async with store.run():

        def fail(descriptor: int) -> None:
            raise OSError(5, "the disk is broken")

        monkeypatch.setattr(marks, "_sync", fail)
        with pytest.raises(StoreError, match="the disk is broken"):
            await store.append_batch([ask("africa", 1)])
        monkeypatch.undo()
        await store.append_batch([ask("africa", 2)])

        assert (await store.position("africa")).head == 1


@pytest.mark.anyio
async def test_messages_belong_to_the_epoch_that_their_room_has_now(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL")
    async with store.run():
        await store.append_batch([ask(room, number, f"m{number}") for room in ROOMS for number in range(3)])
        before = await epochs_of(store)
    os.unlink(f"{path}.mark")
    async with store.run():
        now = await epochs_of(store)
        rows = [*await store.replay_from(""), *(await store.read("asia", 0, 9)).rows]
        rows += await store.list_by_room("europe", 9)
        (dup, new) = (await store.append_batch([ask("asia", 1, "m1"), ask("nowhere", 1)])).answers

    assert len(now) == 1
    assert before.isdisjoint(now)
    assert {row.ep for row in rows} == now
    assert len(rows) == 9 + 3 + 3
    assert isinstance(dup, StoreAppended)
    assert isinstance(new, StoreAppended)
    assert (dup.dup, dup.off, {dup.ep, new.ep}) == (True, 2, now)


def test_a_mark_says_what_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    mark = Mark.begin(str(path), None, 7)
    mark.reserve(10, 1)
    mark.committed(11)
    found = read_mark(str(path))
    assert found is not None

    assert (found.limit, found.committed) == (10 + MARK_IDS, 11)
    assert [is_complete(found, last, str(path)) for last in (10, 11, 9_999)] == [False, bool(marks.boot_id()), True]
    mark.finish(11)
    found = read_mark(str(path))
    assert found is not None
    assert [is_complete(found, last, str(path)) for last in (10, 11)] == [False, True]
    assert message_id(11) == "0" * 18 + "11"


def test_the_log_tells_what_was_lost_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    filled(path)
    os.unlink(f"{path}.mark")
    with caplog.at_level(logging.WARNING, "vixws.store"):
        anyio.run(look, path)
        anyio.run(look, path)

    assert [record.message for record in caplog.records if "may be lost" in record.message][1:] == []
