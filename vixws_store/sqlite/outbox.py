"""A client's outbox in a SQLite file: a client that was killed sends what had no answer again, in order."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from vixws_core.codes import STORE_FULL, STORE_UNAVAILABLE
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Since
from vixws_core.protocols import OutboxEntry

from .answer import Answer
from .bridge import Bridge, ThreadConnection, open_bridge
from .children import KeptFromChildren
from .failures import FAILURES, store_error
from .lock import FileLock
from .outbox_file import Change, OutboxFile
from .working import working

__all__ = ["OutboxLimits", "SqliteOutbox"]

LOGGER = logging.getLogger("vixws.store")


class OutboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much an outbox keeps, and how soon. Counts, bytes and seconds."""

    entries_max: int = 10_000
    """Entries without a final answer."""
    bytes_max: int = 64 << 20
    """Payload bytes of them."""
    positions_max: int = 4_096
    """Rooms with a position."""
    lazy_s: float = 0.25
    """How long settled entries and positions wait for a commit that they can share. What is lost of them by a
    kill is only told again: an entry is answered as a dup, a message comes twice."""
    busy_timeout_s: float = 5.0
    """How long a transaction waits for another process's lock."""
    flush_s: float = 5.0
    """Longest flush at the end."""


class SqliteOutbox:
    """A durable outbox; see `vixws_core.protocols.Outbox` for the contract.

    One file belongs to one running client: a second one is refused. `path` is made where it does not exist,
    readable by its owner only. Puts that come while a commit runs share the next one (`synchronous=FULL`).
    Nothing is opened before `run`.
    """

    def __init__(self, path: str | os.PathLike[str] = "outbox.db", *, limits: OutboxLimits | None = None) -> None:
        self.path: str = os.fspath(path)
        if not self.path or self.path.startswith(":") or "\0" in self.path:
            raise LocalError(f"path must name a file, got {self.path!r:.80}")
        self._limits = limits or OutboxLimits()
        self._keeper: _Keeper | None = None

    @property
    def pub(self) -> str:
        """The secret that scopes the entries' `mid`s, made with the file. Raises: `LocalError` outside of `run`."""
        return self._running().file.pub

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Opens the file; at the end of the block writes what is still to be written, and closes.

        Raises: `StoreError`, one line, where the file cannot be opened, is no outbox or is in use;
        `LocalError` where this outbox runs already.
        """
        if self._keeper is not None:
            raise LocalError(f"the outbox {self.path} runs already; it belongs to one client")
        path = os.path.realpath(self.path)
        file = OutboxFile(path, self._limits.busy_timeout_s)
        lock = FileLock(path + ".lock", "in use by")
        kept = KeptFromChildren(path, path + ".lock", path + "-wal", path + "-shm")
        try:
            async with open_bridge() as bridge:
                connection: ThreadConnection | None = None
                with anyio.CancelScope(shield=True):
                    connection = await _connect(bridge, lock, file)
                assert connection is not None
                kept.note()
                try:
                    self._keeper = _Keeper(bridge, connection, file, self._limits)
                    async with working(self._keeper, lambda: self._limits.flush_s):
                        yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await bridge.run(connection.close)
        finally:
            lock.release()
            kept.end()
            self._keeper = None

    async def load(self) -> list[OutboxEntry]:
        """All entries, oldest first."""
        return list(self._running().entries.values())

    async def put(self, entry: OutboxEntry) -> None:
        """Keeps an entry; returns when it is on the disk. Cancelling the call does not take it back.

        Raises: `LocalError` where another entry has this `mid`, or for text that UTF-8 cannot hold;
        `StoreError` where the outbox is full (`store_full`) or the disk refuses: then it is not kept (but for a
        disk that failed to say so, and the next start sends it).
        """
        await self._running().put(entry)

    def settle(self, mid: str) -> None:
        """Forgets an entry; written soon. Nothing happens where there is none."""
        self._running().settle(mid)

    async def positions(self) -> dict[str, Since]:
        """The position of each room that has one."""
        return dict(self._running().positions)

    def keep_position(self, room: str, since: Since | None) -> None:
        """Sets a room's position, or forgets it with None; written soon.

        Raises: `LocalError` where too many rooms have one.
        """
        self._running().keep_position(room, since)

    async def flush(self) -> None:
        """Returns when all changes so far are on the disk. Raises: `StoreError` where the disk refuses."""
        await self._running().flush()

    def _running(self) -> _Keeper:
        if self._keeper is None:
            raise LocalError(f"the outbox {self.path} is not running; enter `async with outbox.run():` first")
        return self._keeper


async def _connect(bridge: Bridge, lock: FileLock, file: OutboxFile) -> ThreadConnection:
    try:
        lock.acquire(file.path)
        return await bridge.run(ThreadConnection.connect, file.open)
    except FAILURES as exc:
        if isinstance(exc, StoreError) and file.path in str(exc):
            raise
        raise StoreError(STORE_UNAVAILABLE, f"cannot open the outbox {file.path}: {exc}") from None


class _Keeper:
    """The contents of an open outbox at hand, and the task that writes what changes."""

    def __init__(self, bridge: Bridge, connection: ThreadConnection, file: OutboxFile, limits: OutboxLimits) -> None:
        self.file = file
        self.entries = {entry.mid: entry for entry in file.entries}
        self.positions = dict(file.positions)
        self._size = sum(len(entry.payload) for entry in file.entries)
        self._bridge = bridge
        self._connection = connection
        self._limits = limits
        self._changes: list[Change] = []
        """Entries put and settled, in order. Each settled one was put before, which bounds them."""
        self._moved: dict[str, Since | None] = {}
        """Positions to be written, the newest of each room."""
        self._waiting: list[Answer] = []
        self._new: dict[str, OutboxEntry] = {}
        """Entries whose first commit is not over."""
        self._closing = False
        self._broken = False
        self._changed = anyio.Event()
        self._urgent = anyio.Event()

    # ---- asking ---------------------------------------------------------------------------------

    async def put(self, entry: OutboxEntry) -> None:
        try:
            f"{entry.mid}{entry.room}{entry.type}{entry.kind}".encode()
            entry.payload.decode()
        except UnicodeError as exc:
            raise LocalError(f"an entry must hold valid UTF-8 text only: {exc}") from None
        known = self.entries.get(entry.mid)
        if known is not None and known != entry:
            raise LocalError(f"mid must be new, got {entry.mid!r:.140} again with another content")
        if known is None:
            self._add(entry)
            self._changes.append(entry)
        await self.flush()

    def _add(self, entry: OutboxEntry) -> None:
        limits, size = self._limits, len(entry.payload)
        # Changes that a broken disk does not take count too: nothing here grows without end.
        count = max(len(self.entries), len(self._changes) // 2)
        if count >= limits.entries_max or (self.entries and self._size + size > limits.bytes_max):
            held = f"{len(self.entries)} entries of {self._size} bytes"
            raise StoreError(STORE_FULL, f"the outbox {self.file.path} holds {held}, as much as it may", retry=True)
        self.entries[entry.mid] = self._new[entry.mid] = entry
        self._size += size

    def settle(self, mid: str) -> None:
        entry = self.entries.pop(mid, None)
        if entry is not None:
            self._size -= len(entry.payload)
            self._new.pop(mid, None)
            self._changes.append(mid)
            self._changed.set()

    def keep_position(self, room: str, since: Since | None) -> None:
        if since is None:
            self.positions.pop(room, None)
        elif room not in self.positions and len(self._moved.keys() | self.positions) >= self._limits.positions_max:
            raise LocalError(f"at most {self._limits.positions_max} rooms may have a position (positions_max)")
        else:
            self.positions[room] = since
        self._moved[room] = since
        self._changed.set()

    async def flush(self) -> None:
        if self._closing:
            raise StoreError(STORE_UNAVAILABLE, "the outbox is closing", retry=True)
        answer = Answer()
        self._waiting.append(answer)
        self._changed.set()
        self._urgent.set()
        await answer.wait()

    # ---- the task -------------------------------------------------------------------------------

    def tasks(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        return (self._write,)

    def stop(self) -> None:
        self._closing = True
        self._changed.set()
        self._urgent.set()

    def abandon(self) -> None:
        error = StoreError(STORE_UNAVAILABLE, f"{self.file.path} was closed before this was done", retry=True)
        self._fail(self._waiting, error)
        if self._changes or self._moved:
            LOGGER.warning("outbox closed with changes that could not be written: %s", self.file.path)

    async def _write(self) -> None:
        while True:
            if self._changes or self._moved or self._waiting:
                failed = not await self._commit()
                if failed and self._closing and not self._waiting:
                    return
            elif self._closing:
                return
            await self._wait()

    async def _wait(self) -> None:
        """Until something is urgent, or something has changed a while ago."""
        if self._closing:
            return
        if not (self._changes or self._moved):
            await self._changed.wait()
        self._changed = anyio.Event()
        with anyio.move_on_after(self._limits.lazy_s):
            await self._urgent.wait()
        self._urgent = anyio.Event()

    async def _commit(self) -> bool:
        """Writes all that has changed; whether that went well."""
        changes, self._changes = self._changes, []
        moved, self._moved = self._moved, {}
        waiting, self._waiting = self._waiting, []
        try:
            await self._bridge.run(self._connection.call, self.file.apply, [*changes, *moved.items()])
        except BaseException as exc:
            # Entries that were refused are gone; all else is written with what comes next.
            self._moved = moved | self._moved
            self._changes = [change for change in changes if isinstance(change, str)] + self._changes
            error = store_error(exc, self.file.path)
            self._forget(changes)
            self._fail(waiting, error)
            if not isinstance(exc, FAILURES):
                raise
            if not self._broken:
                LOGGER.warning("outbox not written: %s", error)
            self._broken = True
            return False
        for change in changes:
            if isinstance(change, OutboxEntry) and self._new.get(change.mid) is change:
                del self._new[change.mid]
        if self._broken:
            LOGGER.warning("outbox written again: %s", self.file.path)
        self._broken = False
        for answer in waiting:
            answer.give(None)
        return True

    def _forget(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, OutboxEntry) and self._new.get(change.mid) is change:
                self._size -= len(change.payload)
                del self._new[change.mid]
                del self.entries[change.mid]

    @staticmethod
    def _fail(waiting: list[Answer], error: StoreError) -> None:
        for answer in waiting:
            answer.fail(error)
        waiting.clear()
