"""The embedded default: rooms' logs in one SQLite file, with group commit, on asyncio and on trio."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, overload

import anyio

from vixws_core.effects import Effect, FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.errors import LocalError
from vixws_core.inputs import Input
from vixws_core.log import STORE_ASKS, BatchResult, Page, Position, Redacted, id_number
from vixws_core.message import Json, JsonMessage, StoredMessage
from vixws_core.protocols import Consumer, Post
from vixws_core.retention import Retention

from .._calls import append_ask, batch_asks, settled
from .bridge import open_bridge
from .database import Database
from .failures import FAILURES, store_error
from .limits import Limits
from .reader import LogReader
from .upkeep import Upkeep
from .worker import Worker
from .working import working
from .writer import LogWriter

__all__ = ["Limits", "SqliteMessageStore"]

LOGGER = logging.getLogger("vixws.store")

CHECKPOINT_WAIT_S = 0.5
"""How long the checkpoint at the end waits for other processes. Without it the newest commits stay in `-wal`."""

REPLAY_ROWS_MAX = 500
"""Rows of one read of `replay_from`."""


class SqliteMessageStore:
    """Rooms' logs in a SQLite file; see `vixws_core.protocols.MessageStore` for the contract.

    `path` is made where it does not exist; its folder must exist. `synchronous` is `FULL` (an acknowledged
    message survives a power cut) or `NORMAL` (it survives the end of the process; rooms that may have lost some
    to a power cut have another epoch afterwards). `pages_max` bounds the
    file (`PRAGMA max_page_count`, pages of 4 KiB); over it appends fail `store_full`. `limits` says how
    much may wait, `retention` how much of each room is kept. Nothing is opened before `run`.

    `path` may be a symbolic link: it is followed once, at the start of `run`.

    A file that is removed, replaced or cut while it is served, its write-ahead log too, is noticed at the next commit,
    which fails; then the file at `path` is opened, or made, as at a start: an empty one has another epoch, and clients
    are told. One that has the same epoch and lacks what was acknowledged is not served before the next start.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "chat_messages.db",
        *,
        synchronous: str = "FULL",
        pages_max: int | None = None,
        limits: Limits | None = None,
        retention: Sequence[Retention] = (),
    ) -> None:
        self.path: str = os.fspath(path)
        if not self.path or self.path.startswith(":") or "\0" in self.path:
            raise LocalError(f"path must name a file (or use MemoryMessageStore), got {self.path!r:.80}")
        if synchronous not in ("FULL", "NORMAL"):
            raise LocalError(f"synchronous must be FULL or NORMAL, got {synchronous!r:.80}")
        self._synchronous = synchronous
        self._pages_max = pages_max
        self._limits = limits or Limits()
        self.message_bytes_max: int | None = None
        """Bytes of a payload that is appended; None: any. A server sets it to its own limit."""
        self._rules = tuple(retention)
        self._upkeep: Upkeep | None = None
        self._worker: Worker | None = None
        self._consumer = _Asks(self._running)

    @property
    def durable(self) -> str:
        """`fsync` with `FULL`, `process` with `NORMAL`."""
        return "fsync" if self._synchronous == "FULL" else "process"

    @property
    def ready(self) -> bool:
        """Whether the last contact with the file succeeded; tried again twice a second while it runs."""
        return self._worker is not None and self._worker.ready

    @property
    def damaged_rooms(self) -> tuple[str, ...]:
        """Rooms whose log was found damaged since the file was opened: what is asked of them fails, and only that."""
        return () if self._worker is None else self._worker.database.writer.quarantine.rooms

    @property
    def queue_depth(self) -> int:
        """Appends accepted and not yet committed."""
        return 0 if self._worker is None else self._worker.queue_depth

    @property
    def log_bytes(self) -> int:
        """Bytes of the write-ahead log as of the last commit; from any thread."""
        return 0 if self._worker is None else self._worker.database.writer.files.log_bytes

    @property
    def consumer(self) -> Consumer:
        """Queues a hub's store asks; the answers come through `post`, one call per commit."""
        return self._consumer

    @asynccontextmanager
    async def run(self, post: Post | None = None) -> AsyncGenerator[None]:
        """Opens the file and serves until the end of the block, then commits what is queued and closes.

        Cancelling does not lose what was accepted: flush and close are shielded and bounded by
        `Limits.flush_s`.

        Raises: `StoreError`, one line, where the file cannot be opened or another process serves it;
        `LocalError` where this store runs already.
        """
        if self._worker is not None:
            raise LocalError(f"the store {self.path} runs already; it serves one server at a time")
        limits = self._limits
        path = os.path.realpath(self.path)
        writer = LogWriter(path, self._synchronous, limits.busy_timeout_s, self._pages_max, limits.log_bytes_max)
        database = Database(path, writer, LogReader(path, limits.busy_timeout_s, writer.quarantine))
        upkeep = self._upkeep = Upkeep(self._rules, post)
        worker = self._worker = upkeep.serve(Worker(database, upkeep.post, limits))
        try:
            async with open_bridge() as bridge:
                with anyio.CancelScope(shield=True):
                    await database.open(bridge)
                try:
                    async with working(upkeep, worker.flush_s):
                        yield
                finally:
                    with anyio.CancelScope(shield=True):
                        await _close(database)
        finally:
            self._worker = self._upkeep = None

    def retain(self, rules: Sequence[Retention]) -> None:
        """Of each room what the first fitting rule says is kept, from the next `run` on; instead of other rules."""
        self._rules = tuple(rules)

    def hurry(self, wait_s: float, flush_s: float | None = None) -> None:
        """The end of `run` comes: after `wait_s` no lock of another process is waited for any more.

        What is to be stored then fails at once, `store_unavailable`, where the file is locked; where it is not, it is
        stored as ever. With `flush_s` the flush at the end is over by then, or soon after where it begins late. Later
        calls only hurry it more. Belongs to the loop's thread; does nothing outside of `run`.
        """
        if self._worker is not None:
            self._worker.hurry(wait_s, flush_s)

    @overload
    async def append(self, kind: str, room: str, type: str, payload: Json, /) -> str: ...
    @overload
    async def append(self, message: JsonMessage, /) -> str: ...
    async def append(self, *arguments: Any) -> str:
        """Appends one message and returns its id. Takes kind, room, type and payload, or one message.

        Concurrent appends share commits. Cancelling the call does not take the append back.

        Raises: `LocalError` for wrong arguments, `StoreError` where it could not be stored.
        """
        return settled(await self._running().append_one(append_ask(arguments, self.message_bytes_max)))

    async def append_batch(self, appends: Sequence[StoreAppend], /) -> BatchResult:
        """Appends all in one commit of their own, in order; refusals of single ones stand among the answers.

        Raises: `LocalError` for wrong arguments, `StoreError` where nothing could be stored.
        """
        return await self._running().append_all(batch_asks(appends, self.message_bytes_max))

    async def read(
        self,
        room: str,
        after: int,
        until: int,
        rows_max: int = 500,
        bytes_max: int = 1 << 20,
        newest_first: bool = False,
    ) -> Page:
        """Rows with `after` < off ≤ `until` from one snapshot; see `ReadStore`. Damaged rows are left out."""
        page: Page = await self._running().call("read", room, after, until, rows_max, bytes_max, newest_first)
        return page

    async def position(self, room: str, off: int | None = None) -> Position:
        """Where the room's log stands, and the id at `off`; writes nothing."""
        position: Position = await self._running().call("position", room, off)
        return position

    async def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        """The newest `limit` messages below `before_id`, oldest first.

        Raises: `LocalError` where `before_id` is not an id.
        """
        before = None if before_id is None else id_number(before_id)
        rows: list[StoredMessage] = await self._running().call("list_by_room", room, limit, before)
        return rows

    async def replay_from(self, id: str, limit: int | None = None) -> list[StoredMessage]:
        """Messages of all rooms with an id above `id` ("": all), in id order. Without `limit`: all there are.

        Raises: `LocalError` where `id` is not an id.
        """
        above = id_number(id) if id else 0
        rows: list[StoredMessage] = []
        while limit is None or len(rows) < limit:
            wanted = REPLAY_ROWS_MAX if limit is None else min(REPLAY_ROWS_MAX, limit - len(rows))
            page: tuple[list[StoredMessage], bool] = await self._running().call("replay_from", above, wanted)
            rows += page[0]
            if not page[1]:
                break
            above = int(page[0][-1].id)
        return rows

    async def trim(self, room: str, upto: int) -> int:
        """Forgets entries up to the offset `upto`; returns how many. In slices, between which others are served."""
        self._running()
        assert self._upkeep is not None
        return await self._upkeep.trim(room, upto)

    async def redact(self, room: str, off: int) -> Redacted | None:
        """Replaces the payload at `off` for ever, durably; None where there is no such entry. May be repeated.

        The old bytes are out of the file, and out of its write-ahead log too where no other process reads it;
        as long as one does, that is tried again while the store runs, and when it is opened the next time.
        """
        self._running()
        assert self._upkeep is not None
        return await self._upkeep.redact(room, off)

    def _running(self) -> Worker:
        if self._worker is None:
            raise LocalError(f"the store {self.path} is not running; enter `async with store.run():` first")
        return self._worker


class _Asks:
    """The consumer: sorts a step's asks into the queues of the running worker."""

    __slots__ = ("_running",)

    sees_only = STORE_ASKS

    def __init__(self, running: Callable[[], Worker]) -> None:
        self._running = running

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Queues the asks among `effects`; nothing else is looked at."""
        if not effects or STORE_ASKS.isdisjoint(map(type, effects)):
            return
        worker = self._running()
        for effect in effects:
            if isinstance(effect, StoreAppend):
                worker.append(effect)
            elif isinstance(effect, FindPosition):
                worker.find(effect)
            elif isinstance(effect, ReadStore | ListStore):
                worker.read(effect)


async def _close(database: Database) -> None:
    """Checkpoints and closes. A disk that fails now has nothing left to lose: all answers are given."""
    try:
        database.writer.patience.set_each(CHECKPOINT_WAIT_S)
        await database.write(database.writer.note_heads)
    except FAILURES as exc:
        LOGGER.info("ends of rooms not written down: %s", store_error(exc, database.path))
    try:
        if not await database.write(database.writer.checkpoint, CHECKPOINT_WAIT_S):
            LOGGER.warning("store closed without a checkpoint: another process uses %s", database.path)
        await database.write(database.writer.finish)
    except FAILURES as exc:
        LOGGER.warning("store closed without a checkpoint: %s", store_error(exc, database.path))
    try:
        await database.close()
    except sqlite3.Error as exc:
        LOGGER.warning("store not closed in good order: %s", store_error(exc, database.path))
