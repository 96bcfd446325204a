"""One server for one database file: a lock on a file beside it, and one on the database itself."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import threading
from typing import Final

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

__all__ = ["FileLock", "Place", "create_private", "place_of"]

LOGGER = logging.getLogger("vixws.store")

Place = tuple[int, int]
"""Device and inode: which file it is, whatever its names are."""

SUFFIX: Final = ".lock"

LOCKED_BYTE: Final = (1 << 62) - 1
"""The byte of the database that is locked: far beyond what SQLite locks (from 2³⁰ on, 512 bytes) and any end."""

_TAKEN: Final = frozenset({errno.EAGAIN, errno.EACCES})
_NOT_THERE: Final = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

_HERE: dict[Place, FileLock] = {}
"""The databases that this process holds. Such a one is not even opened here a second time: closing any descriptor of a
file lets go of all the locks that this process has on it by `fcntl` (POSIX), SQLite's included."""

_guard = threading.Lock()


def _forget() -> None:
    """In a child made by `os.fork`, which holds nothing; another thread may have had the guard."""
    global _guard
    _guard = threading.Lock()
    _HERE.clear()


os.register_at_fork(after_in_child=_forget)


class FileLock:
    """Exclusive locks on a file beside the database, `path`, which ends in `.lock`, and on the database itself.

    The file holds the pid of its owner. It stays, for removing it would let two processes hold locks on two files of
    one name. Where that happens all the same, and where the database has several names, the lock on the database keeps
    a second one out: an "open file description" lock (Linux) on one byte, which meets none of SQLite's. Elsewhere the
    file beside it is all there is. The kernel lets go of both when the process ends, however it ends.

    `held` is what the holder does, for messages.
    """

    def __init__(self, path: str, held: str = "served by") -> None:
        self.path = path
        self._database = path.removesuffix(SUFFIX)
        self._held = held
        self._beside: int | None = None
        self._on_it: int | None = None
        self._place: Place | None = None

    def acquire(self, what: str) -> None:
        """Takes both locks, or keeps them where they are held and both files are still in their places.

        A database that is not there is made, empty, and only its owner may read it. No connection of SQLite may be open
        on it in this process, for what is held of another file is closed.

        Raises: `StoreError` naming `what` and the pid of the holder; `OSError` where a file cannot be made or opened.
        """
        if self._beside is not None:
            if self._in_place():
                return
            self.release()
        try:
            self._lock_beside(what)
            create_private(self._database)
            with _guard:
                self._lock_it(what)
            assert self._beside is not None
            os.ftruncate(self._beside, 0)
            os.pwrite(self._beside, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets go of the locks, once no connection of SQLite is open any more; harmless where they are not held."""
        on_it, self._on_it = self._on_it, None
        beside, self._beside = self._beside, None
        if on_it is not None:
            os.close(on_it)
        if self._place is not None and _HERE.get(self._place) is self:
            del _HERE[self._place]
        self._place = None
        if beside is not None:
            os.close(beside)

    def _lock_beside(self, what: str) -> None:
        self._beside = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._beside, 32).decode("ascii", "replace").strip() or "unknown"
            message = f"{what} is {self._held} the process {pid} already (lock file {self.path})"
            raise StoreError(STORE_UNAVAILABLE, message) from None

    def _lock_it(self, what: str) -> None:
        place = place_of(self._database)
        if place in _HERE:
            raise self._taken(what, str(os.getpid()))
        self._on_it = os.open(self._database, os.O_RDWR | os.O_CLOEXEC)
        found = os.fstat(self._on_it)
        self._place = (found.st_dev, found.st_ino)
        try:
            _lock_byte(self._on_it)
        except OSError as exc:
            if exc.errno in _TAKEN:
                raise self._taken(what, _holder(self._place)) from None
            if exc.errno not in _NOT_THERE:
                raise
            LOGGER.warning("only %s keeps a second process from %s: %s", self.path, self._database, exc)
        _HERE[self._place] = self

    def _taken(self, what: str, pid: str) -> StoreError:
        why = f"the file itself is locked: it has another name, or {self.path} was removed"
        return StoreError(STORE_UNAVAILABLE, f"{what} is {self._held} the process {pid} already ({why})")

    def _in_place(self) -> bool:
        assert self._beside is not None
        held = os.fstat(self._beside)
        try:
            return (held.st_dev, held.st_ino) == place_of(self.path) and self._place == place_of(self._database)
        except FileNotFoundError:
            return False


def create_private(path: str) -> None:
    """Creates an empty file that only its owner may read and write, unless something is there.

    SQLite takes an empty file for a new database, and gives its write-ahead log the same rights. Raises: `OSError`.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def place_of(path: str) -> Place:
    """Which file is at a path. Raises: `OSError`."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _lock_byte(descriptor: int) -> None:
    """Raises: `OSError`, of `_TAKEN` where another has the lock, of `_NOT_THERE` where there is no such lock."""
    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        return  # Not on Linux: the file beside the database is all there is.
    # struct flock of Linux: type, whence, start, length, pid (0, as fcntl(2) asks for), and what pads it.
    fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCKED_BYTE, 1, 0))


def _holder(place: Place) -> str:
    """The pid of the process that has the lock on the database, as far as this one may look; else `unknown`."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return "unknown"
    for pid in pids:
        try:
            for number in os.listdir(f"/proc/{pid}/fd"):
                if _has_lock(pid, number, place):
                    return pid
        except OSError:
            continue  # It is another user's, or has ended.
    return "unknown"


def _has_lock(pid: str, number: str, place: Place) -> bool:
    try:
        if place_of(f"/proc/{pid}/fd/{number}") != place:
            return False
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as lines:
            return any("OFDLCK" in line for line in lines)
    except OSError:
        return False  # It was closed meanwhile.
