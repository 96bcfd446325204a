"""The two tasks of a running SQLite store: one commits what is queued, one reads what is asked."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import anyio

from vixws_core.effects import FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import PositionKnown, StoreAppended, StoreFailed, StoreListed, StoreRead
from vixws_core.log import BatchResult, Page, Position, StoreAnswer, id_number
from vixws_core.message import StoredMessage
from vixws_core.protocols import Post

from ._append_queue import Alone, Answer, AppendQueue, Item, Limits, Single
from ._calls import wall_time
from ._sqlite_database import FAILURES, Database, needs_reopening, store_error

__all__ = ["Worker"]

LOGGER = logging.getLogger("vixws.store")

READS_PER_TRIP_MAX = 16
"""Different reads of one round trip; with pages of 256 KiB they hold 4 MiB."""

Read: TypeAlias = ReadStore | FindPosition | ListStore
Call: TypeAlias = tuple[str, tuple[Any, ...]]


class Worker:
    """Queues in front of an open database, and the tasks that empty them. Belongs to the loop's thread.

    `post` takes answers for a hub, one call per commit: `RoomAdvanced` first.
    """

    def __init__(self, database: Database, post: Post | None, limits: Limits) -> None:
        self.database = database
        self.ready = True
        self._post = post
        self._limits = limits
        self._queue = AppendQueue(limits)
        self._reads: deque[tuple[Call, Read | Answer]] = deque()
        self._closing = False
        self._lost = False
        self._write_wake = anyio.Event()
        self._read_wake = anyio.Event()

    @property
    def queue_depth(self) -> int:
        """Appends accepted and not yet committed."""
        return self._queue.rows

    # ---- asking ---------------------------------------------------------------------------------

    def append(self, ask: StoreAppend) -> None:
        """Queues an append of the hub; it is answered through `post`."""
        try:
            self._put(ask, 1, len(ask.payload))
        except StoreError as exc:
            self._tell(_failed(ask.request, exc))

    async def append_one(self, ask: StoreAppend) -> StoreAppended | StoreFailed:
        """Appends one message for a direct caller."""
        item = Single(ask)
        self._put(item, 1, len(ask.payload))
        answer: StoreAppended | StoreFailed = await item.answer.wait()
        return answer

    async def append_all(self, asks: tuple[StoreAppend, ...]) -> BatchResult:
        """Appends all in one commit of their own."""
        size = sum(len(ask.payload) for ask in asks)
        commit = self.database.writer.commit
        result: BatchResult = await self._alone(len(asks), size, commit, asks, wall_time())
        return result

    async def trim(self, room: str, upto: int) -> int:
        """Removes entries, a bounded number per transaction."""
        count = 0
        while removed := await self._alone(0, 0, self.database.writer.trim, room, upto):
            count += removed
        return count

    def read(self, ask: Read) -> None:
        """Queues a read of the hub; it is answered through `post`."""
        try:
            self._ask(_call(ask), ask)
        except StoreError as exc:
            self._tell(_failed(ask.request, exc))
        except LocalError as exc:
            self._tell(StoreFailed(ask.request, "bad_message", str(exc), False))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Runs a method of the reader for a direct caller."""
        answer = Answer()
        self._ask((name, arguments), answer)
        return await answer.wait()

    def stop(self) -> None:
        """Refuses what comes from now on; the tasks end when what is queued is done."""
        self._closing = True
        self._write_wake.set()
        self._read_wake.set()

    def abandon(self) -> None:
        """Fails whatever still waits."""
        error = StoreError("store_unavailable", f"{self.database.path} was closed before this was done", retry=True)
        self._fail_queue(error)
        self._tell(*_fail(error, [who for _, who in self._reads]))
        self._reads.clear()

    # ---- the tasks ------------------------------------------------------------------------------

    async def write(self) -> None:
        """Commits until `stop`, and until nothing is queued."""
        while True:
            if self._queue:
                await self._commit_next()
            elif self._closing:
                return
            elif self.ready:
                await self._write_wake.wait()
                self._write_wake = anyio.Event()
            else:
                with anyio.move_on_after(self._limits.probe_s):
                    await self._write_wake.wait()
                    self._write_wake = anyio.Event()
                if not self._queue and not self._closing:
                    await self._probe()

    async def answer_reads(self) -> None:
        """Reads until `stop`, and until nothing is asked."""
        while True:
            if self._reads:
                await self._read_next()
            elif self._closing:
                return
            else:
                await self._read_wake.wait()
                self._read_wake = anyio.Event()

    async def _commit_next(self) -> None:
        items = self._queue.take()
        alone = items[0] if isinstance(items[0], Alone) else None
        try:
            await self._reopen_lost()
            if alone is not None:
                result = await self.database.write(alone.function, *alone.arguments)
            else:
                asks = [_append_of(item) for item in items]
                result = await self.database.write(self.database.writer.commit, asks, wall_time())
        except FAILURES as exc:
            # Whatever waits would meet the same disk; its senders are told now, not one timeout after another.
            self._queue.put_back(items)
            self._down(exc)
            self._fail_queue(store_error(exc, self.database.path))
            return
        except BaseException:
            self._queue.put_back(items)  # `abandon` answers them.
            raise
        self._up()
        self._queue.settled(items)
        if alone is not None:
            if isinstance(result, BatchResult):
                self._tell(*result.advanced)
            alone.answer.give(result)
        else:
            self._settle(items, result)

    def _settle(self, items: Sequence[Item], result: BatchResult) -> None:
        answers: list[StoreAnswer] = [*result.advanced]
        direct: list[tuple[Answer, StoreAppended | StoreFailed]] = []
        for item, answer in zip(items, result.answers, strict=True):
            if isinstance(item, StoreAppend):
                answers.append(answer)
            else:
                direct.append((item.answer, answer))
        self._tell(*answers)
        for place, answer in direct:
            place.give(answer)

    async def _read_next(self) -> None:
        """Answers at most `READS_PER_TRIP_MAX` different reads, each with all who ask the same."""
        asked: dict[Call, list[Read | Answer]] = {}
        try:
            while self._reads:
                call, who = self._reads[0]
                if call not in asked and len(asked) >= READS_PER_TRIP_MAX:
                    break
                self._reads.popleft()
                asked.setdefault(call, []).append(who)
            results = await self._run_reads(list(asked))
        except BaseException:
            self._reads.extendleft((call, who) for call, group in asked.items() for who in group)
            raise  # `abandon` answers them.
        answers: list[StoreAnswer] = []
        for group, result in zip(asked.values(), results, strict=True):
            if isinstance(result, FAILURES):
                self._down(result)
                self._write_wake.set()
                answers += _fail(store_error(result, self.database.path), group)
                continue
            for who in group:
                if isinstance(who, Answer):
                    who.give(result)
                else:
                    answers.append(_told(who.request, result))
        self._tell(*answers)

    async def _run_reads(self, calls: list[Call]) -> list[Any]:
        try:
            return await self.database.read(calls)
        except FAILURES as exc:
            return [exc] * len(calls)

    async def _probe(self) -> None:
        try:
            await self._reopen_lost()
            await self.database.write(self.database.writer.probe)
        except FAILURES as exc:
            self._down(exc)
        else:
            self._up()

    async def _reopen_lost(self) -> None:
        if self._lost:
            await self.database.reopen()
            self._lost = False

    def _down(self, cause: BaseException) -> None:
        self._lost = self._lost or needs_reopening(cause)
        self.database.writer.busy_timeout_s = self._limits.retry_timeout_s
        if self.ready:
            LOGGER.warning("store not ready: %s", store_error(cause, self.database.path))
        self.ready = False

    def _up(self) -> None:
        self.database.writer.busy_timeout_s = self._limits.busy_timeout_s
        if not self.ready:
            LOGGER.warning("store ready again: %s", self.database.path)
        self.ready = True

    # ---- small things ---------------------------------------------------------------------------

    async def _alone(self, rows: int, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        item = Alone(rows, size, function, arguments)
        self._put(item, rows, size)
        return await item.answer.wait()

    def _put(self, item: Item, rows: int, size: int) -> None:
        if self._closing or not self._queue.has_room(rows, size):
            raise self._refusal(f"{self._queue.rows} appends of {self._queue.size} bytes")
        self._queue.put(item)
        self._write_wake.set()

    def _ask(self, call: Call, who: Read | Answer) -> None:
        if self._closing or len(self._reads) >= self._limits.queue_rows_max:
            raise self._refusal(f"{len(self._reads)} reads")
        self._reads.append((call, who))
        self._read_wake.set()

    def _refusal(self, waiting: str) -> StoreError:
        why = "is closing" if self._closing else f"has {waiting} waiting, as many as it may"
        return StoreError("store_unavailable", f"the store {why}", retry=True)

    def _fail_queue(self, error: StoreError) -> None:
        answers: list[StoreAnswer] = []
        for item in self._queue.take_all():
            if isinstance(item, StoreAppend):
                answers.append(_failed(item.request, error))
            else:
                item.answer.fail(error)
        self._tell(*answers)

    def _tell(self, *answers: StoreAnswer) -> None:
        if answers and self._post is not None:
            self._post(*answers)


def _append_of(item: Item) -> StoreAppend:
    if isinstance(item, StoreAppend):
        return item
    assert isinstance(item, Single)
    return item.ask


def _fail(error: StoreError, asked: Iterable[Read | Answer]) -> list[StoreAnswer]:
    """Tells direct callers of a failure and returns what a hub must be told."""
    answers: list[StoreAnswer] = []
    for who in asked:
        if isinstance(who, Answer):
            who.fail(error)
        else:
            answers.append(_failed(who.request, error))
    return answers


def _failed(request: int, error: StoreError) -> StoreFailed:
    return StoreFailed(request, error.code, str(error), error.retry)


def _call(ask: Read) -> Call:
    """The reader's method and arguments for an ask; equal for asks that may share an answer."""
    if isinstance(ask, ReadStore):
        return "read", (ask.room, ask.after, ask.until, ask.rows_max, ask.bytes_max, ask.newest_first)
    if isinstance(ask, FindPosition):
        return "position", (ask.room, ask.off)
    return "list_by_room", (ask.room, ask.limit, None if ask.before_id is None else id_number(ask.before_id))


def _told(request: int, result: Page | Position | list[StoredMessage]) -> StoreAnswer:
    if isinstance(result, Page):
        return StoreRead(request, result.ep, result.floor, result.head, result.rows)
    if isinstance(result, Position):
        return PositionKnown(request, result.ep, result.floor, result.head, result.id, result.id_at)
    return StoreListed(request, tuple(result))
