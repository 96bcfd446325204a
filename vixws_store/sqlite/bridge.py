"""How a coroutine of asyncio, which aiosqlite is made of, is awaited on asyncio and on trio."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import aiosqlite
from anyio import CancelScope, Event, to_thread
from anyio.from_thread import start_blocking_portal

__all__ = ["Bridge", "ThreadConnection", "open_bridge"]

T = TypeVar("T")


class ThreadConnection(aiosqlite.Connection):
    """An aiosqlite connection whose thread also runs whole functions: many statements, one round trip.

    `connector` opens the connection, in its thread.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)

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


@asynccontextmanager
async def open_bridge() -> AsyncGenerator[Bridge]:
    """The bridge for the loop that runs; under trio with a thread of its own, which ends with the block."""
    if _on_asyncio():
        yield _SameLoop()
        return
    starting = start_blocking_portal("asyncio", name="vixws-sqlite")
    portal = await to_thread.run_sync(starting.__enter__)
    try:
        yield _OtherLoop(await to_thread.run_sync(portal.call, asyncio.get_running_loop))
    finally:
        with CancelScope(shield=True):  # Stopping joins the thread, which would block trio.
            await to_thread.run_sync(starting.__exit__, None, None, None)


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
