"""The mark: which ids may have been given out, kept outside of a write-ahead log that is not synced.

With `synchronous=NORMAL` a power cut takes the newest commits, which members have seen. What survives it is what was
synced, so that before ids are given out a small file beside the database says so, synced: once for 64 ids, or for four
commits. It is never part of the log, hence it cannot be lost together with it. A start that finds the log shorter than
its mark begins behind the mark, and in a new epoch, unless it is certain that nothing was lost.

That is certain where the machine runs on since then, for what a killed process wrote the kernel still has: same boot,
same file, and the log has at least what was committed by the mark's own count, which is written with every commit and
not synced. A file that was copied, restored or lost its end in another way proves nothing.

The file has three pages of 4 KiB. The first two hold a line each, and the newer one counts; whoever writes one leaves
the other as it is, so that a torn write takes nothing away. The third holds the count. Each line ends in its CRC-32.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .lock import place_of

__all__ = [
    "MARK_IDS",
    "Mark",
    "Marked",
    "boot_id",
    "is_complete",
    "mark_of",
    "read_mark",
    "sealed",
    "sync_log",
]

MARK_IDS: Final = 64
"""Ids of one mark, at least; four commits' worth where they are bigger, so that every fourth commit is synced."""

ID_MAX: Final = 1 << 62
"""No mark reaches so far; one that does is damaged."""

PAGE: Final = 4_096
PAGES: Final = 3
"""Two for marks in turn, one for the count of what is committed. A page apart, as a disk tears nothing smaller."""

_MARK: Final = re.compile(
    rb"vixws-mark 1 ([1-9][0-9]{0,18}) ([0-9]{1,19}) ([0-9a-f]{16}) ([0-9a-f-]{1,36}) ([0-9]{1,20}) ([0-9]{1,20})"
    rb" ([0-9a-f]{8})\n"
)
_COUNT: Final = re.compile(rb"([0-9a-f]{16}) ([0-9]{1,19}) ([0-9a-f]{8})\n")
_BOOT: Final = re.compile(r"[0-9a-f-]{36}")
_sync = getattr(os, "fdatasync", os.fsync)


class Marked(msgspec.Struct, frozen=True):
    """What a mark's file says. `limit`: ids up to it may have been given out; None where the file is damaged or gone.

    `committed` is the highest id that was committed, as far as the kernel kept it; None where that is not known.
    """

    limit: int | None = None
    sequence: int = 0
    run: bytes = b""
    boot: str = ""
    place: tuple[int, int] = (0, 0)
    committed: int | None = None


class Mark:
    """The mark's file of a store that is open. Belongs to the writing connection's thread."""

    def __init__(self, path: str, database: str, sequence: int) -> None:
        self.path = path
        self._run = secrets.token_hex(8).encode()
        self._place = place_of(database)
        self._sequence = sequence
        self._limit = -1
        self._descriptor = _open(path, os.O_RDWR | os.O_CREAT)

    @classmethod
    def begin(cls, database: str, found: Marked | None, last_id: int) -> Mark:
        """Opens the file, or makes it, for its owner alone: so far no id above `last_id` is given out. Synced.

        Raises: `OSError`, or `StoreError` where something else has its name.
        """
        mark = cls(mark_of(database), database, 0 if found is None else found.sequence)
        try:
            os.fchmod(mark._descriptor, 0o600)
            if found is None or found.limit is None:
                os.ftruncate(mark._descriptor, 0)
            size = os.fstat(mark._descriptor).st_size
            if size != PAGE * PAGES:
                os.ftruncate(mark._descriptor, min(size, PAGE * PAGES))
                mark._put(bytes(max(0, PAGE * PAGES - size)), size)
            mark._count(last_id)
            os.fsync(mark._descriptor)
            mark._write(last_id)
            _sync_folder(database)
        except BaseException:
            mark.close()
            raise
        return mark

    def reserve(self, last_id: int, rows: int) -> None:
        """Before the ids after `last_id` are given to `rows` messages: returns when the mark is synced beyond them.

        Raises: `OSError`, or `StoreError` where the file was taken away; then no id may be given out.
        """
        if last_id + rows > self._limit:
            self._check_place()
            self._write(last_id + max(MARK_IDS, 4 * rows))

    def committed(self, last_id: int) -> None:
        """All ids up to `last_id` are in the log now, or belong to nothing."""
        try:
            self._count(last_id)
        except OSError:
            self._limit = -1  # What is committed is committed; the next commit has to sync the mark, and tells.

    def finish(self, last_id: int) -> None:
        """The log is complete and synced, and ends at `last_id`: nothing above it was given out. Closes the file.

        Raises: `OSError`; then the next start finds a mark of a store that did not end well.
        """
        try:
            self._count(last_id)
            self._write(last_id)
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the file as it is; harmless where that was done."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, limit: int) -> None:
        sequence = self._sequence + 1
        device, inode = self._place
        boot = (boot_id() or "-").encode()
        line = b"vixws-mark 1 %d %d %b %b %d %d" % (sequence, limit, self._run, boot, device, inode)
        self._put(sealed(line), (sequence % 2) * PAGE)
        _sync(self._descriptor)
        # Only now: a write that failed is tried again in the same place, and the other page still counts.
        self._sequence, self._limit = sequence, limit

    def _count(self, last_id: int) -> None:
        self._put(sealed(b"%b %d" % (self._run, last_id)), 2 * PAGE)

    def _put(self, data: bytes, at: int) -> None:
        written = os.pwrite(self._descriptor, data, at)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"{self.path}: {written} of {len(data)} bytes were written")

    def _check_place(self) -> None:
        try:
            there, held = os.stat(self.path, follow_symlinks=False), os.fstat(self._descriptor)
        except FileNotFoundError:
            raise StoreError(STORE_UNAVAILABLE, f"{self.path} was removed", retry=True) from None
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise StoreError(STORE_UNAVAILABLE, f"{self.path} was replaced by another file", retry=True)


def mark_of(database: str) -> str:
    """The path of a database's mark."""
    return f"{database}.mark"


def read_mark(database: str) -> Marked | None:
    """What the mark beside a database says; None where there is none.

    Whatever is not exactly what was written, a single bit, makes it a damaged one. Raises: `OSError`; `StoreError`
    where it is no plain file.
    """
    try:
        descriptor = _open(mark_of(database), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        data = os.pread(descriptor, PAGE * PAGES + 1, 0)
    finally:
        os.close(descriptor)
    if not data.strip(b"\0"):
        return None  # It was being made: no id was given out under it.
    return _marked(data) if len(data) == PAGE * PAGES else Marked()


def is_complete(found: Marked, last_id: int, database: str) -> bool:
    """Whether a log that ends at `last_id` has everything that its mark's store told anybody."""
    if found.limit is None:
        return False
    if found.limit <= last_id:
        return True
    runs_on = found.boot != "" and found.boot == boot_id() and found.place == place_of(database)
    return runs_on and found.committed is not None and found.committed <= last_id


def boot_id() -> str:
    """What the kernel calls the time since it was started; "" where that is not known."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if _BOOT.fullmatch(text) else ""


def sync_log(database: str) -> None:
    """Syncs a write-ahead log that could not be emptied. Raises: `OSError`."""
    try:
        # Not the database itself: to close a second descriptor of it would drop SQLite's locks.
        descriptor = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _marked(data: bytes) -> Marked:
    """The newer of the two marks, with the count where it is of the same run."""
    newest = Marked()
    for start in (0, PAGE):
        page = data[start : start + PAGE].rstrip(b"\0")
        if not page:
            continue  # Not written yet.
        found = _MARK.fullmatch(page)
        if found is None or not _is_sealed(page) or int(found[2]) >= ID_MAX:
            return Marked()
        if int(found[1]) > newest.sequence:
            boot = "" if found[4] == b"-" else found[4].decode()
            place = (int(found[5]), int(found[6]))
            newest = Marked(int(found[2]), int(found[1]), found[3], boot, place)
    counted = data[2 * PAGE :].rstrip(b"\0")
    count = _COUNT.fullmatch(counted)
    if count is None or not _is_sealed(counted) or count[1] != newest.run:
        return newest
    return msgspec.structs.replace(newest, committed=int(count[2]))


def sealed(line: bytes) -> bytes:
    """A page with a line, its checksum, and zeros."""
    return (b"%b %08x\n" % (line, crc32(line))).ljust(PAGE, b"\0")


def _is_sealed(page: bytes) -> bool:
    line, _, seal = page.rstrip(b"\n").rpartition(b" ")
    return b"%08x" % crc32(line) == seal


def _open(path: str, flags: int) -> int:
    """Opens a plain file, and nothing else that has its name."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):
            raise StoreError(STORE_UNAVAILABLE, f"{path}: expected a plain file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(STORE_UNAVAILABLE, f"{path}: expected a plain file")
    return descriptor


def _sync_folder(database: str) -> None:
    descriptor = os.open(os.path.dirname(os.path.abspath(database)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
