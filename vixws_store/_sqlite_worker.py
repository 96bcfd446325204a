"""The two tasks of a running SQLite store: one commits what is queued, one reads what is asked."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import anyio
import msgspec

from vixws_core.effects import FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import PositionKnown, StoreAppended, StoreFailed, StoreListed, StoreRead
from vixws_core.log import BatchResult, Page, Position, StoreAnswer, id_number
from vixws_core.message import StoredMessage
from vixws_core.protocols import Post

from ._calls import wall_time
from ._sqlite_database import FAILURES, Database, needs_reopening, store_error

__all__ = ["Limits", "Worker"]

LOGGER = logging.getLogger("vixws.store")

READS_PER_TRIP_MAX = 16
"""Different reads of one round trip; with pages of 256 KiB they hold 4 MiB."""

Read: TypeAlias = ReadStore | FindPosition | ListStore


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, and for how long."""

    batch_rows_max: int = 256
    """Appends of one transaction."""
    batch_bytes_max: int = 4 << 20
    """Payload bytes of one transaction, at least one append."""
    queue_rows_max: int = 65_536
    """Appends that wait; further ones fail at once. Reads that wait have the same bound."""
    queue_bytes_max: int = 64 << 20
    """Payload bytes that wait."""
    busy_timeout_s: float = 5.0
    """How long a transaction waits for another process's lock while the store is ready."""
    retry_timeout_s: float = 0.25
    """The same while the store is not ready: publishers are told soon."""
    probe_s: float = 0.5
    """How often a store that is not ready is tried."""
    flush_s: float = 10.0
    """Longest flush at the end."""


class Answer:
    """A place where one caller waits for its result. Give it once."""

    __slots__ = ("_error", "_event", "_value")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._error: StoreError | None = None
        self._value: Any = None

    def give(self, value: Any) -> None:
        """Hands over the result."""
        self._value = value
        self._event.set()

    def fail(self, error: StoreError) -> None:
        """Hands over a failure."""
        self._error = error
        self._event.set()

    async def wait(self) -> Any:
        """The result.

        Raises: the `StoreError` given. Cancelling the wait does not take the request back.
        """
        await self._event.wait()
        if self._error is not None:
            raise StoreError(self._error.code, str(self._error), retry=self._error.retry)
        return self._value


class _Single:
    """One append of a direct caller; shares its commit with others."""

    __slots__ = ("answer", "ask")

    def __init__(self, ask: StoreAppend) -> None:
        self.ask = ask
        self.answer = Answer()


class _Alone:
    """A call of the writer that has a transaction of its own."""

    __slots__ = ("answer", "arguments", "function", "rows")

    def __init__(self, rows: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.rows = rows
        self.function = function
        self.arguments = arguments
        self.answer = Answer()


class Worker:
    """Queues in front of an open database, and the tasks that empty them. Belongs to the loop's thread.

    `post` takes answers for a hub, one call per commit: `RoomAdvanced` first.
    """

    def __init__(self, database: Database, post: Post | None, limits: Limits) -> None:
        self.database = database
        self.ready = True
        self._post = post
        self._limits = limits
        self._queue: deque[StoreAppend | _Single | _Alone] = deque()
        self._queue_bytes = 0
        self._queue_rows = 0
        self._reads: deque[tuple[tuple[str, tuple[Any, ...]], Read | Answer]] = deque()
        self._closing = False
        self._lost = False
        self._write_wake = anyio.Event()
        self._read_wake = anyio.Event()

    @property
    def queue_depth(self) -> int:
        """Appends accepted and not yet committed."""
        return self._queue_rows

    # ---- asking ---------------------------------------------------------------------------------

    def append(self, ask: StoreAppend) -> None:
        """Queues an append of the hub; it is answered through `post`."""
        if (error := self._refusal(ask)) is None:
            self._put(ask, 1, len(ask.payload))
        else:
            self._tell(_failed(ask.request, error))

    async def append_one(self, ask: StoreAppend) -> StoreAppended | StoreFailed:
        """Appends one message for a direct caller."""
        if (error := self._refusal(ask)) is not None:
            raise error
        item = _Single(ask)
        self._put(item, 1, len(ask.payload))
        answer: StoreAppended | StoreFailed = await item.answer.wait()
        return answer

    async def append_all(self, asks: tuple[StoreAppend, ...]) -> BatchResult:
        """Appends all in one commit of their own."""
        for ask in asks[:1]:
            if (error := self._refusal(ask)) is not None:
                raise error
        result: BatchResult = await self._alone(len(asks), self.database.writer.commit, asks, wall_time())
        return result

    async def trim(self, room: str, upto: int) -> int:
        """Removes entries, a bounded number per transaction."""
        count = 0
        while removed := await self._alone(0, self.database.writer.trim, room, upto):
            count += removed
        return count

    def read(self, ask: Read) -> None:
        """Queues a read of the hub; it is answered through `post`."""
        if self._closing or len(self._reads) >= self._limits.queue_rows_max:
            self._tell(_failed(ask.request, self._unavailable()))
            return
        try:
            call = _call(ask)
        except LocalError as exc:
            self._tell(StoreFailed(ask.request, "bad_message", str(exc), False))
            return
        self._reads.append((call, ask))
        self._read_wake.set()

    async def call(self, name: str, *arguments: Any) -> Any:
        """Runs a method of the reader for a direct caller."""
        if self._closing or len(self._reads) >= self._limits.queue_rows_max:
            raise self._unavailable()
        answer = Answer()
        self._reads.append(((name, arguments), answer))
        self._read_wake.set()
        return await answer.wait()

    def stop(self) -> None:
        """Refuses what comes from now on; the tasks end when what is queued is done."""
        self._closing = True
        self._write_wake.set()
        self._read_wake.set()

    def abandon(self) -> None:
        """Fails whatever still waits."""
        error = StoreError("store_unavailable", f"{self.database.path} was closed before this was stored", retry=True)
        self._fail_queue(error)
        self._tell(*self._fail_read([who for _, who in self._reads], error))
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
        items = self._take()
        alone = items[0] if isinstance(items[0], _Alone) else None
        try:
            await self._reopen_lost()
            if alone is not None:
                result = await self.database.write(alone.function, *alone.arguments)
            else:
                asks = [
                    item.ask if isinstance(item, _Single) else item for item in items if not isinstance(item, _Alone)
                ]
                result = await self.database.write(self.database.writer.commit, asks, wall_time())
        except FAILURES as exc:
            error = store_error(exc, self.database.path)
            # Whatever waited meets the same disk; its senders are told now, not one timeout after another.
            self._queue.extendleft(reversed(items))
            self._down(exc, error)
            self._fail_queue(error)
            return
        self._up()
        for item in items:
            self._forget(item)
        if alone is not None:
            if isinstance(result, BatchResult):
                self._tell(*result.advanced)
            alone.answer.give(result)
        else:
            self._settle(items, result)

    def _settle(self, items: Sequence[StoreAppend | _Single | _Alone], result: BatchResult) -> None:
        answers: list[StoreAnswer] = [*result.advanced]
        direct: list[tuple[Answer, StoreAppended | StoreFailed]] = []
        for item, answer in zip(items, result.answers, strict=True):
            if isinstance(item, _Single):
                direct.append((item.answer, answer))
            else:
                answers.append(answer)
        self._tell(*answers)
        for place, answer in direct:
            place.give(answer)

    def _take(self) -> list[StoreAppend | _Single | _Alone]:
        """The next transaction: a call that goes alone, or appends up to the bounds. They count until settled."""
        queue = self._queue
        items = [queue.popleft()]
        if isinstance(items[0], _Alone):
            return items
        size = _size(items[0])
        while queue and len(items) < self._limits.batch_rows_max and not isinstance(queue[0], _Alone):
            size += _size(queue[0])
            if size > self._limits.batch_bytes_max:
                break
            items.append(queue.popleft())
        return items

    async def _read_next(self) -> None:
        """Answers at most `READS_PER_TRIP_MAX` different reads, each with all who ask the same."""
        asked: dict[tuple[str, tuple[Any, ...]], list[Read | Answer]] = {}
        while self._reads:
            call, who = self._reads[0]
            if call not in asked and len(asked) >= READS_PER_TRIP_MAX:
                break
            self._reads.popleft()
            asked.setdefault(call, []).append(who)
        calls = list(asked)
        results: list[Any]
        try:
            results = await self.database.read(calls)
        except FAILURES as exc:
            results = [exc] * len(calls)
        answers: list[StoreAnswer] = []
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, FAILURES):
                answers += self._fail_read(asked[call], result)
                continue
            for who in asked[call]:
                if isinstance(who, Answer):
                    who.give(result)
                else:
                    answers.append(_told(who.request, result))
        self._tell(*answers)

    def _fail_read(self, asked: Sequence[Read | Answer], cause: BaseException) -> list[StoreAnswer]:
        error = store_error(cause, self.database.path)
        self._down(cause, error)
        self._write_wake.set()
        for who in asked:
            if isinstance(who, Answer):
                who.fail(error)
        return [_failed(who.request, error) for who in asked if not isinstance(who, Answer)]

    async def _probe(self) -> None:
        try:
            await self._reopen_lost()
            await self.database.write(self.database.writer.probe)
        except FAILURES as exc:
            self._down(exc, store_error(exc, self.database.path))
        else:
            self._up()

    async def _reopen_lost(self) -> None:
        if self._lost:
            await self.database.reopen()
            self._lost = False

    def _down(self, cause: BaseException, error: StoreError) -> None:
        self._lost = self._lost or needs_reopening(cause)
        self.database.writer.busy_timeout_s = self._limits.retry_timeout_s
        if self.ready:
            LOGGER.warning("store not ready: %s", error)
        self.ready = False

    def _up(self) -> None:
        self.database.writer.busy_timeout_s = self._limits.busy_timeout_s
        if not self.ready:
            LOGGER.warning("store ready again: %s", self.database.path)
        self.ready = True

    # ---- small things ---------------------------------------------------------------------------

    async def _alone(self, rows: int, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._closing:
            raise self._unavailable()
        item = _Alone(rows, function, arguments)
        self._put(item, rows, 0)
        return await item.answer.wait()

    def _put(self, item: StoreAppend | _Single | _Alone, rows: int, size: int) -> None:
        self._queue.append(item)
        self._queue_rows += rows
        self._queue_bytes += size
        self._write_wake.set()

    def _forget(self, item: StoreAppend | _Single | _Alone) -> None:
        self._queue_rows -= item.rows if isinstance(item, _Alone) else 1
        self._queue_bytes -= _size(item)

    def _refusal(self, ask: StoreAppend) -> StoreError | None:
        limits = self._limits
        if self._closing:
            return self._unavailable()
        if self._queue_rows >= limits.queue_rows_max or self._queue_bytes + len(ask.payload) > limits.queue_bytes_max:
            return self._unavailable()
        return None

    def _unavailable(self) -> StoreError:
        why = "is closing" if self._closing else f"has {self._queue_rows} appends waiting, as many as it may"
        return StoreError("store_unavailable", f"the store {why}", retry=True)

    def _fail_queue(self, error: StoreError) -> None:
        answers: list[StoreAnswer] = []
        while self._queue:
            item = self._queue.popleft()
            self._forget(item)
            if isinstance(item, StoreAppend):
                answers.append(_failed(item.request, error))
            else:
                item.answer.fail(error)
        self._tell(*answers)

    def _tell(self, *answers: StoreAnswer) -> None:
        if answers and self._post is not None:
            self._post(*answers)


def _size(item: StoreAppend | _Single | _Alone) -> int:
    if isinstance(item, _Alone):
        return 0
    return len(item.ask.payload if isinstance(item, _Single) else item.payload)


def _failed(request: int, error: StoreError) -> StoreFailed:
    return StoreFailed(request, error.code, str(error), error.retry)


def _call(ask: Read) -> tuple[str, tuple[Any, ...]]:
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
