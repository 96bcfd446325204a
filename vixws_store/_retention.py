"""Retention at work: which rooms have more than is kept, and their trimming, slice by slice, beside those who publish.

A keeper asks a log that is being served through `Kept` and so serves every store that can say what it holds.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Protocol

import anyio
import msgspec

from vixws_core.errors import StoreError
from vixws_core.inputs import Input, RoomAdvanced
from vixws_core.retention import Retention, rule_for

__all__ = ["Cut", "Keeper", "Kept", "Pace", "Slice", "Survey"]

LOGGER = logging.getLogger("vixws.store")

SLICE_S: Final = 0.005
"""What a slice is meant to take: who publishes meanwhile waits for it, 20 ms at most."""

REST: Final = 3.0
"""While somebody publishes, a keeper rests so many times as long as its slice took: it has a quarter of the writer."""

GATHER_S: Final = 0.1
"""Rooms that grow are looked at so often at most, or half of the time, so that one message is not one trimming."""

SLICES_PER_VISIT: Final = 16
"""Slices of one room before the next has its turn."""

CHANGED_MAX: Final = 10_000
"""Rooms that are remembered to have grown; with more, all are looked at."""

WEIGHED_MAX: Final = 10_000
"""Rooms whose bytes are remembered; the others are weighed again when they grow."""

WEIGHED_ROWS: Final = 1_000
"""Rows of one reading that weighs."""

ROOMS_PER_PAGE: Final = 256

SWEEP_S: Final = 60.0
"""How often all rooms are looked at where messages have an age at which they go; more often for ages below 10 min."""

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 60.0
"""Between two tries while the store fails; each pause is twice the one before."""


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Which of a room's oldest entries go: those up to the offset `upto`, those older than `before` (RFC 3339 UTC, as
    bytes; b"" for none), and of the rest the first until `over` payload bytes are gone, but never the newest for that.

    `over` was found out while the floor was at `floor`, and says nothing where it moved since.
    """

    upto: int = 0
    before: bytes = b""
    over: int = 0
    floor: int = 0

    def takes(self, off: int, ts: object, gone: int, floor: int, head: int) -> bool:
        """Whether the entry at `off` goes too, after `gone` payload bytes went from a log from `floor` to `head`."""
        if off <= self.upto or (gone < self.over and floor == self.floor and off < head):
            return True
        return isinstance(ts, bytes) and ts < self.before

    def is_due(self, found: Survey) -> bool:
        """Whether a room that stands so has something to remove."""
        return (
            self.upto > found.floor or self.over > 0 or (isinstance(found.oldest, bytes) and found.oldest < self.before)
        )


class Slice(msgspec.Struct, frozen=True, gc=False):
    """What one slice removed: entries and payload bytes; the floor since then; whether there was no time for more."""

    rows: int
    size: int
    floor: int
    more: bool


class Survey(msgspec.Struct, frozen=True, gc=False):
    """Where a room's log begins and ends, and the time of its oldest entry, as bytes; None where there is none."""

    floor: int
    head: int
    oldest: object


class Kept(Protocol):
    """A log that is being served, as its keeper sees it. Methods raise `StoreError` where the storage fails."""

    def is_busy(self) -> bool:
        """Whether somebody waits for an append."""
        ...

    async def surveys_after(self, room: bytes, limit: int) -> list[tuple[bytes, Survey]]:
        """The names of rooms behind `room`, in order, and where they stand."""
        ...

    async def surveys(self, rooms: tuple[str, ...]) -> list[Survey | None]:
        """Where rooms stand; None where there is no such room."""
        ...

    async def weigh(self, room: str, after: int, rows_max: int) -> tuple[int, int]:
        """How far entries behind `after` were weighed, and their payload bytes."""
        ...

    async def cut(self, room: str, cut: Cut, rows_max: int) -> tuple[Slice, float]:
        """Removes one slice; and how many seconds nobody else could write."""
        ...


class Pace:
    """How many rows a slice may have, found out by how long the last ones took."""

    def __init__(self) -> None:
        self.rows: int = 64

    def took(self, rows: int, seconds: float) -> None:
        """A slice of so many rows took so long."""
        if seconds > SLICE_S:
            self.rows = max(8, min(self.rows, rows) // 2)
        elif seconds < SLICE_S / 2 and rows >= self.rows:
            self.rows = min(4_096, self.rows * 2)


class _Weight:
    """The payload bytes of a room from its floor up to an offset."""

    __slots__ = ("floor", "through", "total")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.through = floor
        self.total = 0


class Keeper:
    """Trims rooms by rules while a store runs; a task of the store's own. Belongs to the loop's thread.

    `wall` returns the time of day in UTC.
    """

    def __init__(self, rules: Sequence[Retention], kept: Kept, wall: Callable[[], datetime] | None = None) -> None:
        self._rules = tuple(rules)
        self._kept = kept
        self._wall = wall or _now
        self._changed: dict[str, None] = {}
        self._all = True
        self._weights: OrderedDict[str, _Weight] = OrderedDict()
        self._pace = Pace()
        self._forgotten = 0
        self._pause_s = RETRY_FIRST_S
        self._swept = b""
        self._stopping = False
        self._stopped = anyio.Event()
        self._wake = anyio.Event()
        ages = [rule.age_s for rule in self._rules if rule.age_s is not None]
        self._sweep_s = min(SWEEP_S, max(1.0, min(ages) / 10)) if ages else None
        self._sweep_at = math.inf

    def note(self, inputs: Sequence[Input]) -> None:
        """Rooms may have grown: what a store posts is looked through."""
        for input in inputs:
            if isinstance(input, RoomAdvanced) and not self._all:
                self._remember(input.room)
        if self._changed or self._all:
            self._wake.set()

    def forget(self, room: str) -> None:
        """What a room weighs has changed."""
        self._weights.pop(room, None)
        self._forgotten += 1

    def tasks(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The function to run in a task, where there are rules."""
        return (self.run,) if self._rules else ()

    def stop(self) -> None:
        """Ends the task after the slice that runs."""
        self._stopping = True
        self._stopped.set()
        self._wake.set()

    def abandon(self) -> None:
        """Nobody waits for a keeper."""

    async def run(self) -> None:
        """Trims until `stop`."""
        while not self._stopping:
            try:
                if anyio.current_time() >= self._sweep_at:
                    self._all = True
                if self._all:
                    await self._sweep()
                elif self._changed:
                    since = anyio.current_time()
                    await self._visit_changed()
                    await self._rest(max(GATHER_S, anyio.current_time() - since))
                else:
                    with anyio.CancelScope(deadline=self._sweep_at):
                        await self._wake.wait()
                        self._wake = anyio.Event()
            except StoreError as exc:
                LOGGER.warning("nothing is trimmed for %g s: %s", self._pause_s, exc)
                await self._rest(self._pause_s)
                self._pause_s = min(2 * self._pause_s, RETRY_MOST_S)

    async def _rest(self, seconds: float) -> None:
        """Waits so long, or until `stop`."""
        with anyio.move_on_after(seconds):
            await self._stopped.wait()

    async def _sweep(self) -> None:
        """Looks at all rooms once, a page at a time; begins where the last one failed."""
        self._all = False  # Whoever grows from now on is remembered.
        name, self._swept = self._swept, b""
        since = anyio.current_time()
        try:
            while page := await self._kept.surveys_after(name, ROOMS_PER_PAGE):
                for name, found in page:
                    room = _room_of(name)
                    if room is not None and not self._stopping:
                        await self._visit(room, found)
                if self._stopping:
                    return
                await self._rest(anyio.current_time() - since)
                since = anyio.current_time()
        except StoreError:
            self._swept = b"" if self._all else name
            self._all = True
            raise
        self._sweep_at = math.inf if self._sweep_s is None else anyio.current_time() + self._sweep_s

    async def _visit_changed(self) -> None:
        """Visits some of the rooms that grew, in the order in which they did first."""
        rooms = tuple(islice(self._changed, ROOMS_PER_PAGE))
        for room in rooms:
            del self._changed[room]  # Before it is looked at: if it grows meanwhile it has another turn.
        visited = 0
        try:
            for room, found in zip(rooms, await self._kept.surveys(rooms), strict=True):
                visited += 1
                if found is not None and not self._stopping:
                    await self._visit(room, found)
        except StoreError:
            for room in rooms[visited:]:
                self._remember(room)
            raise

    def _may_need(self, room: str, rule: Retention, found: Survey) -> bool:
        """Whether a room has to be weighed, or trimmed; a cheap look."""
        if found.floor == found.head:
            return False
        if rule.bytes is not None:
            weight = self._weights.get(room)
            if weight is None or (weight.floor, weight.through) != (found.floor, found.head):
                return True
        return self._cut_of(rule, found, 0).is_due(found)

    async def _visit(self, room: str, found: Survey) -> None:
        """Trims some slices of a room where it needs it; if it needs more, or failed, it has another turn."""
        rule = rule_for(self._rules, room)
        if rule is not None and self._may_need(room, rule, found):
            try:
                again = await self._trim(room, rule, found)
            except StoreError:
                self._remember(room)
                raise
            if again:
                self._remember(room)
        self._pause_s = RETRY_FIRST_S

    def _remember(self, room: str) -> None:
        self._changed[room] = None
        if len(self._changed) > CHANGED_MAX:
            self._changed.clear()
            self._all = True

    async def _trim(self, room: str, rule: Retention, found: Survey) -> bool:
        """Trims some slices; whether it needs more."""
        weight = 0 if rule.bytes is None else await self._weigh(room, found)
        cut = self._cut_of(rule, found, weight)
        if not cut.is_due(found):
            return False
        for _ in range(SLICES_PER_VISIT):
            done, seconds = await self._kept.cut(room, cut, self._pace.rows)
            self._pace.took(done.rows, seconds)
            known = self._weights.get(room)
            if known is not None and known.floor == cut.floor:
                known.total -= done.size
                known.floor = done.floor
            cut = msgspec.structs.replace(cut, over=max(0, cut.over - done.size), floor=done.floor)
            await anyio.sleep(REST * seconds if self._kept.is_busy() else 0)
            if not done.more or self._stopping:
                return False
        return True

    def _cut_of(self, rule: Retention, found: Survey, weight: int) -> Cut:
        upto = 0 if rule.count is None else found.head - rule.count
        before = b"" if rule.age_s is None else _text(self._wall() - timedelta(seconds=rule.age_s))
        over = 0 if rule.bytes is None else max(0, weight - rule.bytes)
        return Cut(upto, before, over, found.floor)

    async def _weigh(self, room: str, found: Survey) -> int:
        """The payload bytes of a room; only what came since the last time is read."""
        forgotten = self._forgotten
        weight = self._weights.pop(room, None)
        if weight is None or weight.floor != found.floor or weight.through > found.head:
            weight = _Weight(found.floor)
        while weight.through < found.head and not self._stopping:
            through, size = await self._kept.weigh(room, weight.through, WEIGHED_ROWS)
            if through == weight.through:
                break  # Rows are missing at the end.
            weight.through = through
            weight.total += size
        if self._forgotten != forgotten:
            self._remember(room)  # Something was redacted meanwhile: once more.
            return 0
        self._weights[room] = weight
        if len(self._weights) > WEIGHED_MAX:
            self._weights.popitem(last=False)
        return weight.total


def _room_of(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None  # Damaged: it is no room that anybody can name.


def _now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> bytes:
    return (moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z").encode()
