"""A lock file: one server for one database file."""

from __future__ import annotations

import fcntl
import os

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

__all__ = ["FileLock", "create_private"]


class FileLock:
    """An exclusive `flock` on a file beside the database, which holds the pid of its owner.

    The kernel lets go of it when the process ends, however it ends. The file itself stays: removing it
    would let two processes hold locks on two files of one name. `held` is what its holder does, for messages.
    """

    def __init__(self, path: str, held: str = "served by") -> None:
        self.path = path
        self._held = held
        self._descriptor: int | None = None

    def acquire(self, what: str) -> None:
        """Takes the lock, or keeps it where it is held and the file is still in its place.

        Raises: `StoreError` naming `what` and the pid of the holder; `OSError` where the file cannot be made.
        """
        if self._descriptor is not None:
            if self._in_place():
                return
            self.release()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            message = f"{what} is {self._held} the process {pid} already (lock file {self.path})"
            raise StoreError(STORE_UNAVAILABLE, message) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets go of the lock; harmless where it is not held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _in_place(self) -> bool:
        assert self._descriptor is not None
        try:
            there, held = os.stat(self.path), os.fstat(self._descriptor)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def create_private(path: str) -> None:
    """Creates an empty file that only its owner may read and write, unless something is there.

    SQLite takes an empty file for a new database, and gives its write-ahead log the same rights. Raises: `OSError`.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
