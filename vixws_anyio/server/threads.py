"""Worker threads for functions that block: a bounded number of them, those that nobody waits for any more included."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import anyio
import anyio.to_thread

__all__ = ["Threads"]


class Threads:
    """At most `count` functions are in threads at once; further calls wait.

    A thread cannot be cancelled: a call whose waiting is over keeps its place until its function returns.
    """

    def __init__(self, count: int) -> None:
        self._places = anyio.CapacityLimiter(count)
        self._threads = anyio.CapacityLimiter(math.inf)  # The places are the bound; anyio gives its own back too soon.

    async def run(
        self,
        call_soon: Callable[[Callable[[], object]], object],
        function: Callable[..., object],
        *args: Any,
    ) -> object:
        """Calls a function in a thread; `call_soon` runs something in the loop, called from any thread."""
        call = _Call(function, args, lambda: call_soon(lambda: self._places.release_on_behalf_of(call)))
        await self._places.acquire_on_behalf_of(call)
        try:
            return await anyio.to_thread.run_sync(call.run, abandon_on_cancel=True, limiter=self._threads)
        finally:
            if call.leave():
                self._places.release_on_behalf_of(call)


class _Call:
    """One call; `free` gives its place back when nobody waits for it any more."""

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...], free: Callable[[], object]) -> None:
        self._function = function
        self._args = args
        self._free = free
        self._lock = Lock()
        self._runs = False
        self._left = False

    def run(self) -> object:
        """The thread's part."""
        with self._lock:
            if self._left:
                return None  # It was given up before it began.
            self._runs = True
        try:
            return self._function(*self._args)
        finally:
            with self._lock:
                self._runs = False
                late = self._left
            if late:
                with suppress(RuntimeError):  # The loop has ended meanwhile.
                    self._free()

    def leave(self) -> bool:
        """Nobody waits any more; whether the place is free now."""
        with self._lock:
            self._left = True
            return not self._runs
