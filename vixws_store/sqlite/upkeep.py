"""What a store that runs does with its log besides appending and reading: trimming, retention, redaction.

All of it waits in the worker's queue for its turn, in calls that are short, so that appends go on between them.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import anyio

from vixws_core.errors import StoreError
from vixws_core.inputs import EntryRedacted, Input
from vixws_core.log import Redacted
from vixws_core.protocols import Post
from vixws_core.retention import Retention

from .._retention import Cut, Keeper, Pace, Slice, Survey
from .damage import RoomDamaged
from .failures import store_error
from .redacting import is_purge_due, purge, redact
from .trimming import copy_log, surveys, surveys_after, weigh
from .worker import Worker
from .writer import LogWriter

__all__ = ["Upkeep"]

LOGGER = logging.getLogger("vixws.store")

PURGE_WAIT_S: Final = 0.1
"""How long readers are waited for, and publishers wait, when the write-ahead log is emptied of what was redacted."""

PURGE_FIRST_S: Final = 0.5
PURGE_MOST_S: Final = 60.0
"""Between two tries to do so while others read; each pause is twice the one before."""


class Upkeep:
    """The upkeep of one run of a store. Belongs to the loop's thread; `post` takes what the store tells a hub."""

    def __init__(self, rules: Sequence[Retention], post: Post | None) -> None:
        self._told = post
        self._keeper = Keeper(rules, _Kept(self))
        self.post: Post | None = self._note if rules else post
        self._due = anyio.Event()
        self._stopped = anyio.Event()

    def serve(self, worker: Worker) -> Worker:
        """Takes the worker in whose queue everything waits, and returns it."""
        self.worker: Worker = worker
        self.writer: LogWriter = worker.database.writer
        return worker

    # ---- as what runs in tasks beside the worker's ----------------------------------------------------

    def tasks(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The worker's tasks, and those of the upkeep."""
        return (*self.worker.tasks(), *self._keeper.tasks(), self._purge)

    def stop(self) -> None:
        """No more upkeep; what is queued is done."""
        self._keeper.stop()
        self._stopped.set()
        self._due.set()
        self.worker.stop()

    def abandon(self) -> None:
        """Fails whatever still waits."""
        self.worker.abandon()

    # ---- what callers ask for -------------------------------------------------------------------------

    async def trim(self, room: str, upto: int) -> int:
        """Forgets entries up to an offset, slice by slice; returns how many. Raises: `StoreError`."""
        pace, count, more = Pace(), 0, True
        while more:
            done, seconds = await self.worker.alone(0, 0, timed_cut, self.writer, room, Cut(upto), pace.rows)
            await self.worker.call("look", copy_log, self.writer.path)
            pace.took(done.rows, seconds)
            count, more = count + done.rows, done.more
        return count

    async def redact(self, room: str, off: int) -> Redacted | None:
        """See `SqliteMessageStore.redact`. Raises: `StoreError`."""

        def told(found: Redacted | None) -> tuple[EntryRedacted, ...]:
            return () if found is None else (EntryRedacted(room, found.off, found.id),)

        found: Redacted | None = await self.worker.alone(0, 0, redact, self.writer, room, off, told=told)
        if found is not None:
            self._keeper.forget(room)
            if not await self._purged():
                self._due.set()  # The row is redacted, durably; the rest is tried again.
        return found

    async def attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a function in the writer's thread in its turn; where it fails nobody else is told that the disk does.

        Raises: `StoreError`.
        """
        found = await self.worker.alone(0, 0, _or_error, function, *arguments)
        if isinstance(found, sqlite3.Error | OSError):
            raise store_error(found, self.writer.path)
        return found

    # ---- inside ---------------------------------------------------------------------------------------

    def _note(self, *inputs: Input) -> None:
        self._keeper.note(inputs)
        if self._told is not None:
            self._told(*inputs)

    async def _purge(self) -> None:
        """Empties the write-ahead log of what was redacted, where that was in vain before, in an earlier run too."""
        pause_s = PURGE_FIRST_S
        while not self._stopped.is_set():
            if await self._purged():
                pause_s = PURGE_FIRST_S
                await self._due.wait()
                self._due = anyio.Event()
                continue
            with anyio.move_on_after(pause_s):
                await self._stopped.wait()
            pause_s = min(2 * pause_s, PURGE_MOST_S)

    async def _purged(self) -> bool:
        """Tries once, where there is something; whether nothing is left. Tells the log why not."""
        try:
            due = await self.worker.call("look", is_purge_due)
            if not due or await self.attempt(purge, self.writer, PURGE_WAIT_S):
                return True
            why = "another process reads it"
        except StoreError as exc:
            why = str(exc)
        if not self._stopped.is_set():
            LOGGER.warning("what was redacted is still in the write-ahead log of %s: %s", self.writer.path, why)
        return False


class _Kept:
    """The log as its keeper sees it: looked at by the reading connection, cut by the writing one."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def is_busy(self) -> bool:
        return self._upkeep.worker.queue_depth > 0

    async def surveys_after(self, room: bytes, limit: int) -> list[tuple[bytes, Survey]]:
        found: list[tuple[bytes, Survey]] = await self._upkeep.worker.call("look", surveys_after, room, limit)
        return found

    async def surveys(self, rooms: tuple[str, ...]) -> list[Survey | None]:
        found: list[Survey | None] = await self._upkeep.worker.call("look", surveys, rooms)
        return found

    async def weigh(self, room: str, after: int, rows_max: int) -> tuple[int, int]:
        found: tuple[int, int] = await self._upkeep.worker.call("look", weigh, room, after, rows_max)
        return found

    async def cut(self, room: str, cut: Cut, rows_max: int) -> tuple[Slice, float]:
        upkeep = self._upkeep
        try:
            found: tuple[Slice, float] = await upkeep.attempt(timed_cut, upkeep.writer, room, cut, rows_max)
        except RoomDamaged:
            return Slice(0, 0, cut.floor, False), 0.0  # The log has named it; nothing of it is touched.
        await upkeep.worker.call("look", copy_log, upkeep.writer.path)
        return found


def timed_cut(writer: LogWriter, room: str, cut: Cut, rows_max: int) -> tuple[Slice, float]:
    """One slice, and how long it took. It is not synced: what a power cut brings back goes again, or the next commit
    syncs it. Raises: as `LogWriter.cut`.
    """
    since = time.monotonic()
    done = writer.cut("NORMAL", room, cut, rows_max)
    return done, time.monotonic() - since


def _or_error(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (sqlite3.Error, OSError) as exc:
        return exc
