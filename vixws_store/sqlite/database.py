"""One database file, open: its lock, the connection that writes and the one that reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from anyio import CancelScope, Lock

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .bridge import Bridge, ThreadConnection
from .children import KeptFromChildren
from .failures import FAILURES, opening_error
from .lock import FileLock
from .reader import LogReader
from .writer import LogWriter

__all__ = ["Database"]

T = TypeVar("T")


class Database:
    """The two connections, and what it takes to open them again after the file was lost.

    `write` is for one task at a time; `read` may be called while `write` runs.
    """

    def __init__(self, path: str, writer: LogWriter, reader: LogReader) -> None:
        self.path = path
        self.writer = writer
        self.reader = reader
        self._lock = FileLock(path + ".lock")
        self._kept: KeptFromChildren | None = None
        self._bridge: Bridge | None = None
        self._writing: ThreadConnection | None = None
        self._reading: ThreadConnection | None = None
        self._reader_lock = Lock()

    async def open(self, bridge: Bridge) -> None:
        """Takes the lock and opens both connections.

        Raises: `StoreError`, one line that names the file.
        """
        self._bridge = bridge
        try:
            await self._open()
        except Exception as exc:  # Whatever it is: nothing stays open or locked.
            await self.close()
            raise opening_error(exc, self.path) from None

    async def close(self) -> None:
        """Closes what is open, and lets go of the lock."""
        await self._close_connections()
        self._lock.release()
        if self._kept is not None:
            self._kept.end()
            self._kept = None

    async def reopen(self) -> None:
        """Closes both connections and opens the file that is at the path now, or a new one.

        Raises: one of `FAILURES`; then nothing is open.
        """
        async with self._reader_lock:
            await self._close_connections()
            try:
                await self._open()
            except Exception as exc:
                raise exc if isinstance(exc, FAILURES) else opening_error(exc, self.path) from None

    async def write(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a method of the writer in its thread.

        Raises: what it raises, or `StoreError` while nothing is open.
        """
        if self._writing is None or self._bridge is None:
            raise StoreError(STORE_UNAVAILABLE, f"{self.path} is not open", retry=True)
        return await self._bridge.run(self._writing.call, function, *arguments)

    async def read(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Runs calls of the reader in its thread; see `LogReader.run`."""
        async with self._reader_lock:
            if self._reading is None or self._bridge is None:
                raise StoreError(STORE_UNAVAILABLE, f"{self.path} is not open", retry=True)
            return await self._bridge.run(self._reading.call, self.reader.run, calls)

    async def _open(self) -> None:
        assert self._bridge is not None
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise StoreError(STORE_UNAVAILABLE, f"the folder {folder} does not exist")
        if os.path.isdir(self.path):
            raise StoreError(STORE_UNAVAILABLE, "a file was expected, found a folder")
        if self._kept is None:
            self._kept = KeptFromChildren(*(self.path + suffix for suffix in ("", ".lock", "-wal", "-shm", ".mark")))
        self._lock.acquire(self.path)
        with CancelScope(shield=True):
            self._writing = await self._bridge.run(ThreadConnection.connect, self.writer.open)
            self._reading = await self._bridge.run(ThreadConnection.connect, self.reader.open)
        self._kept.note()

    async def _close_connections(self) -> None:
        """The last one that is closed copies the log into the file: the writer, and nobody where the log was cut.

        For the reader cannot, and the writer does not while another connection is open.
        """
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        assert self._bridge is not None
        with CancelScope(shield=True):
            first, last = reading, writing
            if writing is not None and not await self._bridge.run(writing.call, self.writer.files.are_whole):
                first, last = writing, reading
            try:
                if first is not None:
                    await self._bridge.run(first.close)
            finally:
                if last is not None:
                    await self._bridge.run(last.close)
                self.writer.closed()
