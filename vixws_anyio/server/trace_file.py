"""The file of a trace: private, in two parts, of which the older is dropped where the newer is full."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from vixws_core.errors import LocalError
from vixws_core.trace.lines import BEGINNING

__all__ = ["OLDER", "TraceFile"]

OLDER: Final = ".1"
"""What is added to the name for the older part."""
BEFORE: Final = ".before"
"""What is added for the trace of the run before; its older part has both."""

_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TraceFile:
    """A trace in `path` and, before it, `path.1`: together at most `size` bytes, but for one batch.

    Only its owner may read them. A trace that is there already, of an earlier run, is kept as `path.before`; anything
    else that is there is left alone. Belongs to one thread at a time.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path: str = path
        self._part = size // 2
        self._file = -1
        self._written = 0

    def begin(self, head: bytes) -> None:
        """Makes room for a new trace, and begins it. Raises: `LocalError` where that cannot be."""
        try:
            for name in (self.path, self.path + OLDER, self.path + BEFORE, self.path + BEFORE + OLDER):
                self._check(name)
            _forget(self.path + BEFORE + OLDER)
            if os.path.lexists(self.path):
                os.replace(self.path, self.path + BEFORE)
                if os.path.lexists(self.path + OLDER):
                    os.replace(self.path + OLDER, self.path + BEFORE + OLDER)
            _forget(self.path + OLDER)
            self._create(head)
        except OSError as exc:
            raise LocalError(
                f"log.trace: --trace {self.path}: expected a file that can be made there: {exc.strerror}"
            ) from None

    def _check(self, name: str) -> None:
        """Raises: `LocalError` where something is there that is no trace of ours, or one that is being written."""
        where = f"log.trace: --trace {self.path}: expected nothing or an old trace at {name}"
        try:
            found = os.lstat(name)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise LocalError(f"{where}, got {_kind(found)}")
            file = os.open(name, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            return
        try:
            if os.fstat(file).st_size and os.pread(file, len(BEGINNING), 0) != BEGINNING:
                raise LocalError(f"{where}, got another file, which is left alone")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"{where}, got one that another server is writing") from None
        finally:
            os.close(file)

    def _create(self, head: bytes) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _FLAGS, 0o600)
        os.fchmod(self._file, 0o600)  # A umask may take even the owner's rights.
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._written = 0
        self._put(head)

    def write(self, lines: bytes, head: Callable[[], bytes]) -> None:
        """Appends whole lines; begins another part, with a `head` of its own, where this one is full.

        Raises: `OSError`.
        """
        if self._written + len(lines) > self._part:
            self._turn(head())
        self._put(lines)

    def _turn(self, head: bytes) -> None:
        here, there = os.fstat(self._file), os.stat(self.path, follow_symlinks=False)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileExistsError(0, "another file has its name now")
        os.replace(self.path, self.path + OLDER)
        os.close(self._file)
        self._file = -1
        self._create(head)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.write(self._file, view)
            self._written += count
            view = view[count:]

    def close(self) -> None:
        """Closes it; more than once is the same."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


def _forget(name: str) -> None:
    if os.path.lexists(name):
        os.unlink(name)


def _kind(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link"
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a file of another user" if stat.S_ISREG(found.st_mode) else "something that is no file"
