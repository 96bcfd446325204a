"""The two tasks of a running SQLite store: one commits what is queued, one reads what is asked.

Positions are the writing task's: only between two commits is it certain what a hub was told of the log.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio

from vixws_core.codes import BAD_MESSAGE, STORE_UNAVAILABLE
from vixws_core.effects import FindPosition, StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Input, RoomAdvanced, StoreAppended, StoreFailed
from vixws_core.log import BatchResult, StoreAnswer
from vixws_core.protocols import Post

from .._calls import wall_time
from .answer import Answer
from .asking import Call, Read, all_failed, call_of, failed, known, place_of, places_of, told
from .damage import FileDamaged, RoomDamaged, is_damage
from .database import Database
from .failures import FAILURES, needs_reopening, store_error
from .limits import Limits
from .positions import Found
from .queue import Alone, AppendQueue, Item, Single, Told, append_of

__all__ = ["Worker"]

LOGGER = logging.getLogger("vixws.store")

READS_PER_TRIP_MAX, CAUSES_MAX = 16, 4
"""Different reads of one round trip (with pages of 256 KiB they hold 4 MiB), and causes told of one failure."""

PROBE_PART, PROBE_MOST_S = 20.0, 60.0
"""A damaged file is left alone for so many times as long as looking at it took, and for so many seconds at most."""

FLUSH_LEAST_S = 0.25
"""What a flush has at least, however little time is left: some 6,000 appends on a disk that works."""

POSITIONS_PER_TRIP_MAX = 1_024
"""Different positions of one round trip: about 15 µs each."""


class Worker:
    """Queues in front of an open database, and the tasks that empty them. Belongs to the loop's thread.

    `post` takes answers for a hub, one call per commit: `RoomAdvanced` first.
    """

    def __init__(self, database: Database, post: Post | None, limits: Limits) -> None:
        self.database = database
        self.ready: bool = True
        self._post = post
        self._limits = limits
        self._queue = AppendQueue(limits)
        self._reads: deque[tuple[Call, Read | Answer]] = deque()
        self._asked: list[FindPosition] = []
        self._closing = False
        self._lost = False
        self._causes: set[str] = set()
        self._flush_until = math.inf
        self._probe_at = math.inf
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
            self._tell(failed(ask.request, exc))

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
        result: BatchResult = await self.alone(len(asks), size, commit, asks, wall_time(), told=_advanced)
        return result

    async def alone(
        self, rows: int, size: int, function: Callable[..., Any], *arguments: Any, told: Told | None = None
    ) -> Any:
        """Runs a function in the writer's thread, in its turn, which appends so many rows and bytes.

        A hub hears what `told` makes of the result, whether somebody still waits for it or not.
        """
        item = Alone(rows, size, function, arguments, told)
        self._put(item, rows, size)
        return await item.answer.wait()

    def find(self, ask: FindPosition) -> None:
        """Queues a position of the hub. It is answered through `post` before any append queued from now on."""
        if self._closing or len(self._asked) >= self._limits.queue_rows_max:
            self._tell(failed(ask.request, self._refusal(f"{len(self._asked)} positions")))
            return
        self._asked.append(ask)
        self._write_wake.set()

    def read(self, ask: Read) -> None:
        """Queues a read of the hub; it is answered through `post`."""
        try:
            self._ask(call_of(ask), ask)
        except StoreError as exc:
            self._tell(failed(ask.request, exc))
        except LocalError as exc:
            self._tell(StoreFailed(ask.request, BAD_MESSAGE, str(exc), False))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Runs a method of the reader for a direct caller."""
        answer = Answer()
        self._ask((name, arguments), answer)
        return await answer.wait()

    def tasks(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The functions that empty the queues, each for a task of its own."""
        return self.write, self.answer_reads

    def stop(self) -> None:
        """Refuses what comes from now on; the tasks end when what is queued is done."""
        self._closing = True
        self._write_wake.set()
        self._read_wake.set()

    def hurry(self, wait_s: float, flush_s: float | None) -> None:
        """The end comes: see `SqliteMessageStore.hurry`."""
        self.database.writer.patience.end_in(wait_s)
        if flush_s is not None:
            self._flush_until = min(self._flush_until, anyio.current_time() + flush_s)

    def flush_s(self) -> float:
        """How long the flush at the end may take."""
        return min(self._limits.flush_s, max(FLUSH_LEAST_S, self._flush_until - anyio.current_time()))

    def abandon(self) -> None:
        """Fails whatever still waits."""
        error = StoreError(STORE_UNAVAILABLE, f"{self.database.path} was closed before this was done", retry=True)
        self._fail_queue(error)
        self._tell(*all_failed(error, [*self._asked, *(who for _, who in self._reads)]))
        self._asked.clear()
        self._reads.clear()

    # ---- the tasks ------------------------------------------------------------------------------

    async def write(self) -> None:
        """Finds positions and commits until `stop`, and until nothing is queued."""
        while True:
            if self._queue or self._asked:
                await self._write_next()
            elif self._closing:
                return
            else:
                with anyio.CancelScope(deadline=self._probe_at):
                    await self._write_wake.wait()
                    self._write_wake = anyio.Event()
            if not self._queue and not self._closing and anyio.current_time() >= self._probe_at:
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

    async def _write_next(self) -> None:
        """Answers the positions that wait, then commits what was queued by the same moment.

        A position is of a moment before every append that was asked after it, for that is among these items
        or comes later; and of one after every commit that it includes was told. Earlier than it had to be
        does no harm: nothing that it lacks has been told.
        """
        items = self._queue.take() if self._queue else []
        asked, self._asked = self._asked, []
        try:
            while asked and (not items or len(asked) > POSITIONS_PER_TRIP_MAX):
                await self._find_next(asked)
            if items:
                await self._commit(items, asked)
        except BaseException:
            self._asked = asked + self._asked  # `abandon` answers them.
            self._queue.put_back(items)
            raise

    async def _find_next(self, asked: list[FindPosition]) -> None:
        """Answers some of the positions asked for, in order, and removes them from the list."""
        part = asked[:POSITIONS_PER_TRIP_MAX]
        found: Found | Exception
        try:
            await self._reopen_lost()
            found = await self.database.write(self.database.writer.positions, places_of(part))
        except FAILURES as exc:
            found = exc
        del asked[: len(part)]
        self._tell_found(part, found)

    def _tell_found(self, asked: Sequence[FindPosition], found: Found | Exception) -> None:
        if isinstance(found, Exception):
            self._down(found)
            self._tell(*all_failed(store_error(found, self.database.path), asked))
        else:
            self._tell(*(known(ask.request, found[place_of(ask)]) for ask in asked))

    async def _commit(self, items: list[Item], asked: list[FindPosition]) -> None:
        """One transaction; empties both lists. Positions come with it: a trip of their own takes as long again."""
        alone = items[0] if isinstance(items[0], Alone) else None
        try:
            if alone is not None:
                result = await self._change(asked, alone.function, *alone.arguments)
            else:
                asks = [append_of(item) for item in items]
                result = await self._change(asked, self.database.writer.commit, asks, wall_time())
        except RoomDamaged as exc:  # What goes alone fails alone.
            assert alone is not None
            self._queue.settled(items)
            items.clear()
            alone.answer.fail(exc)
            return
        except FAILURES as exc:
            # Whatever waits would meet the same disk; its senders are told now, not one timeout after another.
            self._queue.put_back(items)
            items.clear()
            self._down(exc)
            self._fail_queue(store_error(exc, self.database.path))
            return
        self._up()
        done = items[:]
        items.clear()
        self._queue.settled(done)
        if alone is not None:
            if alone.told is not None:
                self._tell(*alone.told(result))
            alone.answer.give(result)
        else:
            self._settle(done, result)

    async def _change(self, asked: list[FindPosition], change: Callable[..., Any], *arguments: Any) -> Any:
        """Answers positions of the moment before a change, and returns, or raises, what the change does."""
        try:
            await self._reopen_lost()
            if not asked:
                return await self.database.write(change, *arguments)
            both = self.database.writer.both
            found, result = await self.database.write(both, places_of(asked), change, *arguments)
        except FAILURES as exc:
            found = result = exc
        part = asked[:]
        asked.clear()
        if part:
            self._tell_found(part, found)
        if isinstance(result, Exception):
            raise result
        return result

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
                if not isinstance(result, RoomDamaged):
                    self._down(result)
                    self._write_wake.set()
                answers += all_failed(store_error(result, self.database.path), group)
                continue
            for who in group:
                if isinstance(who, Answer):
                    who.give(result)
                else:
                    answers.append(told(who.request, result))
        self._tell(*answers)

    async def _run_reads(self, calls: list[Call]) -> list[Any]:
        try:
            return await self.database.read(calls)
        except FAILURES as exc:
            return [exc] * len(calls)

    async def _probe(self) -> None:
        began = anyio.current_time()
        try:
            await self._reopen_lost()
            await self.database.write(self.database.writer.probe)
        except FAILURES as exc:
            now, pause_s = anyio.current_time(), self._limits.probe_s
            if isinstance(exc, FileDamaged) or is_damage(exc):
                # It is looked through as a whole each time, which takes long where it is large.
                pause_s = min(PROBE_MOST_S, max(pause_s, PROBE_PART * (now - began)))
            self._probe_at = now + pause_s
            self._down(exc)
        else:
            self._up()

    async def _reopen_lost(self) -> None:
        if self._lost:
            await self.database.reopen()
            self._lost = False

    def _down(self, cause: BaseException) -> None:
        self._lost = self._lost or needs_reopening(cause)
        self.database.writer.patience.set_each(self._limits.retry_timeout_s)
        text = str(store_error(cause, self.database.path))
        if text not in self._causes and len(self._causes) < CAUSES_MAX:
            self._causes.add(text)
            LOGGER.warning("store not ready: %s", text)
        if self.ready:
            self._probe_at = anyio.current_time() + self._limits.probe_s
        self.ready = False

    def _up(self) -> None:
        self.database.writer.patience.set_each(self._limits.busy_timeout_s)
        if not self.ready:
            LOGGER.warning("store ready again: %s", self.database.path)
            self._causes.clear()
        self.ready = True
        self._probe_at = math.inf

    # ---- small things ---------------------------------------------------------------------------

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
        return StoreError(STORE_UNAVAILABLE, f"the store {why}", retry=True)

    def _fail_queue(self, error: StoreError) -> None:
        answers: list[StoreAnswer] = []
        for item in self._queue.take_all():
            if isinstance(item, StoreAppend):
                answers.append(failed(item.request, error))
            else:
                item.answer.fail(error)
        self._tell(*answers)

    def _tell(self, *answers: Input) -> None:
        if answers and self._post is not None:
            self._post(*answers)


def _advanced(result: BatchResult) -> tuple[RoomAdvanced, ...]:
    return result.advanced
