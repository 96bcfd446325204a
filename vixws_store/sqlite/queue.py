"""What waits for a store's writer: bounded in rows and bytes, cut into transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from vixws_core.effects import StoreAppend
from vixws_core.inputs import Input

from .answer import Answer
from .limits import Limits

__all__ = ["Alone", "AppendQueue", "Item", "Single", "Told", "append_of"]

BEHIND_OTHERS_MAX: Final = 64
"""Appends of the sender who has most that one commit takes behind the last of all others: they wait for it."""

Told: TypeAlias = Callable[[Any], Sequence[Input]]


class Single:
    """One append of a direct caller; it shares its transaction with others."""

    __slots__ = ("answer", "ask")

    def __init__(self, ask: StoreAppend) -> None:
        self.ask: StoreAppend = ask
        self.answer: Answer = Answer()


class Alone:
    """A call of the writer that has a transaction of its own; `rows` and `size` are what it appends.

    `told` says what a hub hears of its result, if anything.
    """

    __slots__ = ("answer", "arguments", "function", "rows", "size", "told")

    def __init__(
        self, rows: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...], told: Told | None
    ) -> None:
        self.rows: int = rows
        self.size: int = size
        self.function: Callable[..., Any] = function
        self.arguments: tuple[Any, ...] = arguments
        self.told: Told | None = told
        self.answer: Answer = Answer()


Item: TypeAlias = StoreAppend | Single | Alone
"""What can wait: an append of the hub, one of a direct caller, a call that goes alone."""


class _Lanes:
    """Appends between two items that go alone: senders take turns, each one's are in order.

    So a sender with thousands waiting keeps no other waiting for more than a commit, and that one is short.
    """

    __slots__ = ("_by_scope", "_turns")

    def __init__(self) -> None:
        self._by_scope: dict[str, deque[StoreAppend | Single]] = {}
        self._turns: deque[deque[StoreAppend | Single]] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def put(self, item: StoreAppend | Single) -> None:
        scope = append_of(item).scope
        lane = self._by_scope.get(scope)
        if lane is None:
            lane = self._by_scope[scope] = deque()
            self._turns.append(lane)
        lane.append(item)

    def take(self, rows_max: int, bytes_max: int) -> list[Item]:
        items: list[Item] = []
        turns = self._turns
        shared, size, last = len(turns) > 1, 0, 0
        while turns and len(items) < rows_max:
            if shared and len(turns) == 1:
                last += 1
                if last > BEHIND_OTHERS_MAX:
                    break
            lane = turns[0]
            size += _measure(lane[0])[1]
            if items and size > bytes_max:
                break
            item = lane.popleft()
            items.append(item)
            if lane:
                turns.rotate(-1)
            else:
                turns.popleft()
                del self._by_scope[append_of(item).scope]
        return items


class AppendQueue:
    """What waits: items that go alone in order of arrival, and between them appends, whose senders take turns.

    `rows` and `size` count appends and payload bytes that wait or are being committed: what was taken counts until it
    is `settled`.
    """

    def __init__(self, limits: Limits) -> None:
        self.rows: int = 0
        self.size: int = 0
        self._limits = limits
        self._line: deque[_Lanes | Alone] = deque()

    def __bool__(self) -> bool:
        return bool(self._line)

    def has_room(self, rows: int, size: int) -> bool:
        """Whether so many appends and payload bytes may still wait. One append fits into an empty queue always."""
        if not self.rows:
            return True
        return self.rows + rows <= self._limits.queue_rows_max and self.size + size <= self._limits.queue_bytes_max

    def put(self, item: Item) -> None:
        """Adds an item at the end, of its sender's at least."""
        rows, size = _measure(item)
        self.rows += rows
        self.size += size
        self._add(self._line, item)

    def take(self) -> list[Item]:
        """Removes the next transaction: one item that goes alone, or appends up to the bounds of a batch."""
        first = self._line[0]
        if isinstance(first, Alone):
            self._line.popleft()
            return [first]
        items = first.take(self._limits.batch_rows_max, self._limits.batch_bytes_max)
        if not first:
            self._line.popleft()
        return items

    def put_back(self, items: Sequence[Item]) -> None:
        """Returns what was taken to the front."""
        line: deque[_Lanes | Alone] = deque()
        for item in items:
            self._add(line, item)
        self._line.extendleft(reversed(line))

    def settled(self, items: Sequence[Item]) -> None:
        """Stops counting what was taken."""
        for item in items:
            rows, size = _measure(item)
            self.rows -= rows
            self.size -= size

    def take_all(self) -> list[Item]:
        """Removes everything; it no longer counts."""
        items: list[Item] = []
        while self._line:
            items += self.take()
        self.settled(items)
        return items

    @staticmethod
    def _add(line: deque[_Lanes | Alone], item: Item) -> None:
        if isinstance(item, Alone):
            line.append(item)
            return
        lanes = line[-1] if line else None
        if not isinstance(lanes, _Lanes):
            lanes = _Lanes()
            line.append(lanes)
        lanes.put(item)


def append_of(item: Item) -> StoreAppend:
    """The append of an item that does not go alone."""
    if isinstance(item, StoreAppend):
        return item
    assert isinstance(item, Single)
    return item.ask


def _measure(item: Item) -> tuple[int, int]:
    """Appends and payload bytes of an item."""
    if isinstance(item, StoreAppend):
        return 1, len(item.payload)
    if isinstance(item, Single):
        return 1, len(item.ask.payload)
    return item.rows, item.size
