"""How a coroutine of asyncio, which aiosqlite is made of, is awaited on asyncio and on trio.

None of the threads here holds up the end of the interpreter: where a store was entered and never left, its connections
are closed by then, or left to the next start.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakSet

import aiosqlite
from anyio import CancelScope, Event, to_thread

__all__ = ["Bridge", "ThreadConnection", "open_bridge"]

T = TypeVar("T")

END_S = 2.0
"""How long the interpreter's end waits for connections that nobody closed."""

LOOK_S = 0.01
"""How often it looks whether a connection's thread is still there to close it."""


_numbers = count()


class ThreadConnection(aiosqlite.Connection):
    """An aiosqlite connection whose thread also runs whole functions: many statements, one round trip.

    `connector` opens the connection, in its thread.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self.number: int = next(_numbers)
        itself: Any = self
        self._in: threading.Thread = getattr(self, "_thread", itself)  # aiosqlite 0.21 is the thread itself.
        self._in.daemon = True
        _OPEN.add(self)

    def end(self, seconds: float) -> None:
        """Has its thread close it, without a loop, and waits for that, at most so many seconds."""
        closed = threading.Event()

        def close() -> None:
            try:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            finally:
                closed.set()

        self._running = False
        put = cast("Callable[[Any], None]", self._tx.put_nowait)  # pyright: ignore[reportUnknownMemberType] -- as below
        put((None, close))
        until = time.monotonic() + seconds
        while self._in.is_alive() and time.monotonic() < until and not closed.wait(LOOK_S):
            pass

    def forsake(self) -> None:
        """In a child made by `os.fork`: it is never closed here, which could remove the parent's log."""
        if self._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs `function(*arguments)` in the connection's thread and returns, or raises, what it does."""
        # aiosqlite's own methods are made of this one, which is meant for its classes.
        run = cast(
            "Callable[..., Coroutine[Any, Any, T]]",
            self._execute,  # pyright: ignore[reportUnknownMemberType] -- it has no annotations
        )
        return await run(function, *arguments)

    @classmethod
    async def connect(cls, connector: Callable[[], sqlite3.Connection]) -> ThreadConnection:
        """Starts the thread and opens the connection in it. Not to be cancelled.

        Raises: what `connector` does, after the thread was told to end.
        """
        failures: list[BaseException] = []

        def open_or_note() -> sqlite3.Connection:
            # A connector that raises leaves a thread behind that may outlive the loop and then fail to report
            # to it; a connection that is open is closed in good order.
            try:
                return connector()
            except BaseException as exc:
                failures.append(exc)
                return sqlite3.connect(":memory:")

        connection = cls(open_or_note)
        await connection
        if failures:
            await connection.close()
            raise failures[0]
        return connection


_OPEN: WeakSet[ThreadConnection] = WeakSet()


def _end_all() -> None:
    """At the end of the interpreter: closes what nobody closed, the newest first, as `Database` does."""
    until = time.monotonic() + END_S
    for connection in sorted(_OPEN, key=lambda opened: opened.number, reverse=True):
        connection.end(max(0.0, until - time.monotonic()))


def _forsake_all() -> None:
    """In a child made by `os.fork`, where the threads are not there, and the files are the parent's."""
    for connection in list(_OPEN):
        connection.forsake()
    _OPEN.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forsake_all)


class Bridge(Protocol):
    """Awaits coroutine functions of asyncio."""

    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Returns, or raises, what `await function(*arguments)` does in an asyncio loop."""
        ...


class _SameLoop:
    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        return await function(*arguments)


class _OtherLoop:
    """From trio: the coroutine runs in an asyncio loop in a thread, which wakes trio when it is done.

    Cancelling waits for the end: what a commit did must be known.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from trio.lowlevel import current_trio_token  # Only here, since trio is an optional extra.

        self._loop = loop
        self._token = current_trio_token()

    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        from trio import RunFinishedError

        done = Event()

        def wake(_: object) -> None:
            try:
                self._token.run_sync_soon(done.set)
            except RunFinishedError:
                pass  # Nobody is left who waits.

        future = asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)
        future.add_done_callback(wake)
        with CancelScope(shield=True):
            await done.wait()
        return future.result()


class _LoopThread:
    """An asyncio loop in a thread. `start` and `stop` block; nothing else waits for the thread's end."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vixws-sqlite", daemon=True)

    def start(self) -> asyncio.AbstractEventLoop:
        self._thread.start()
        self._started.wait()
        return self._loop

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._stay())

    async def _stay(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._started.set()
        await self._stopping.wait()


@asynccontextmanager
async def open_bridge() -> AsyncGenerator[Bridge]:
    """The bridge for the loop that runs; under trio with a thread of its own, which ends with the block."""
    if _on_asyncio():
        yield _SameLoop()
        return
    thread = _LoopThread()
    loop = await to_thread.run_sync(thread.start)
    try:
        yield _OtherLoop(loop)
    finally:
        with CancelScope(shield=True):  # Stopping joins the thread, which would block trio.
            await to_thread.run_sync(thread.stop)


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
