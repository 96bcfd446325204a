"""What waits for a store's writer: bounded in rows and bytes, cut into transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio
import msgspec

from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError

__all__ = ["Alone", "Answer", "AppendQueue", "Item", "Limits", "Single"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait in front of a SQLite store, and for how long. Counts, bytes and seconds."""

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
    """A place where one caller waits for its result, which is given once."""

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
        """The result. Cancelling the wait does not take the request back.

        Raises: a `StoreError` like the one given.
        """
        await self._event.wait()
        if self._error is not None:
            raise StoreError(self._error.code, str(self._error), retry=self._error.retry)
        return self._value


class Single:
    """One append of a direct caller; it shares its transaction with others."""

    __slots__ = ("answer", "ask")

    def __init__(self, ask: StoreAppend) -> None:
        self.ask = ask
        self.answer = Answer()


class Alone:
    """A call of the writer that has a transaction of its own; `rows` and `size` are what it appends."""

    __slots__ = ("answer", "arguments", "function", "rows", "size")

    def __init__(self, rows: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.rows = rows
        self.size = size
        self.function = function
        self.arguments = arguments
        self.answer = Answer()


Item: TypeAlias = StoreAppend | Single | Alone
"""What can wait: an append of the hub, one of a direct caller, a call that goes alone."""


class AppendQueue:
    """Items in order of arrival. `rows` and `size` count appends and payload bytes that wait or are being
    committed: what was taken counts until it is `settled`."""

    def __init__(self, limits: Limits) -> None:
        self.rows = 0
        self.size = 0
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


def _measure(item: Item) -> tuple[int, int]:
    """Appends and payload bytes of an item."""
    if isinstance(item, StoreAppend):
        return 1, len(item.payload)
    if isinstance(item, Single):
        return 1, len(item.ask.payload)
    return item.rows, item.size
