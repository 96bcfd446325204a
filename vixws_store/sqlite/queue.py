"""What waits for a store's writer: bounded in rows and bytes, cut into transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from vixws_core.effects import StoreAppend
from vixws_core.inputs import Input

from .answer import Answer
from .limits import Limits

__all__ = ["Alone", "AppendQueue", "Item", "Single", "Told", "append_of"]

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


class AppendQueue:
    """Items in order of arrival. `rows` and `size` count appends and payload bytes that wait or are being
    committed: what was taken counts until it is `settled`."""

    def __init__(self, limits: Limits) -> None:
        self.rows: int = 0
        self.size: int = 0
        self._limits = limits
        self._items: deque[Item] = deque()

    def __bool__(self) -> bool:
        return bool(self._items)

    def has_room(self, rows: int, size: int) -> bool:
        """Whether so many appends and payload bytes may still wait. One append fits into an empty queue always."""
        if not self.rows:
            return True
        return self.rows + rows <= self._limits.queue_rows_max and self.size + size <= self._limits.queue_bytes_max

    def put(self, item: Item) -> None:
        """Adds an item at the end."""
        rows, size = _measure(item)
        self.rows += rows
        self.size += size
        self._items.append(item)

    def take(self) -> list[Item]:
        """Removes the next transaction: one item that goes alone, or appends up to the bounds of a batch."""
        waiting, limits = self._items, self._limits
        items = [waiting.popleft()]
        if isinstance(items[0], Alone):
            return items
        size = _measure(items[0])[1]
        while waiting and len(items) < limits.batch_rows_max and not isinstance(waiting[0], Alone):
            size += _measure(waiting[0])[1]
            if size > limits.batch_bytes_max:
                break
            items.append(waiting.popleft())
        return items

    def put_back(self, items: list[Item]) -> None:
        """Returns what was taken, in order, to the front."""
        self._items.extendleft(reversed(items))

    def settled(self, items: list[Item]) -> None:
        """Stops counting what was taken."""
        for item in items:
            rows, size = _measure(item)
            self.rows -= rows
            self.size -= size

    def take_all(self) -> list[Item]:
        """Removes everything; it no longer counts."""
        items = list(self._items)
        self._items.clear()
        self.settled(items)
        return items


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
