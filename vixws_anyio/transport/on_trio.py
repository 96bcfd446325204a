"""The transport driver on trio: one parked task per connection, one task that flushes, one that keeps time."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import trio
from trio.lowlevel import Abort, Task

from .driver import Driver
from .interface import Gate, Watched

__all__ = ["TrioDriver", "trio_driver"]

READS_MAX: Final = 4
"""Full reads of one connection in a row before the others have their turn."""


class TrioDriver(Driver):
    """Runs in `nursery`, whose cancellation ends it."""

    def __init__(self, gate: Gate, flush_s: float, unsent_bytes_kernel: int, nursery: trio.Nursery) -> None:
        super().__init__(gate, flush_s, unsent_bytes_kernel)
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._flusher: Task | None = None
        self._ticks_due = False
        self._timer = trio.CancelScope()
        self._readers: dict[int, Task | None] = {}
        """By connection, the task that reads it where it is parked; None: it is not parked."""
        self._listeners: dict[socket.socket, trio.CancelScope] = {}
        nursery.start_soon(self._flush)
        nursery.start_soon(self._keep_time)

    def _schedule(self) -> None:
        self._ticks_due = True
        if self._flusher is not None:
            task, self._flusher = self._flusher, None
            trio.lowlevel.reschedule(task)

    async def _flush(self) -> None:
        while True:
            if self._ticks_due:
                self._ticks_due = False
                self.tick()
                if self._ticks_due:
                    await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_flushing)

    def _stop_flushing(self, _: object) -> Abort:
        self._flusher = None
        return Abort.SUCCEEDED

    def _arm(self, deadline: float) -> None:
        self._timer.deadline = trio.current_time() + max(0.0, deadline - monotonic())

    async def _keep_time(self) -> None:
        while True:
            with self._timer:
                await trio.sleep_forever()
            self._timer = trio.CancelScope()
            self.timer_fired()

    # ---- readiness ------------------------------------------------------------------------------

    def watch_readable(self, link: Watched) -> None:
        """Starts the reader task, or wakes it where it is parked."""
        if link.conn in self._readers:
            self._unpark(link.conn)
        else:
            self._readers[link.conn] = None
            self._nursery.start_soon(self._read, link)

    def unwatch_readable(self, link: Watched) -> None:
        """Lets the reader task park itself."""
        trio.lowlevel.notify_closing(link.sock)  # Ends its wait.

    async def _read(self, link: Watched) -> None:
        conn, sock = link.conn, link.sock
        while self.links.get(conn) is link:
            if not link.watched:
                await self._park(conn)
                continue
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                continue
            for _ in range(READS_MAX):
                if not link.watched or not link.receive():
                    break

    async def _park(self, conn: int) -> None:
        def stop(_: object) -> Abort:
            self._readers[conn] = None
            return Abort.SUCCEEDED

        self._readers[conn] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(stop)

    def _unpark(self, conn: int) -> None:
        task = self._readers[conn]
        if task is not None:
            self._readers[conn] = None
            trio.lowlevel.reschedule(task)

    def watch_writable(self, link: Watched) -> None:
        """Starts a task that waits for room."""
        self._nursery.start_soon(self._write, link)

    async def _write(self, link: Watched) -> None:
        while self.links.get(link.conn) is link:
            try:
                await trio.lowlevel.wait_writable(link.sock)
            except trio.ClosedResourceError:  # Only a pause of reading, where the link is still ours.
                continue
            if self.links.get(link.conn) is link:
                link.writable()
            return

    def unwatch_writable(self, link: Watched) -> None:
        """Nothing to do: the task that waited has ended."""

    def forget(self, link: Watched) -> None:
        """Ends the waits of its tasks, which then end themselves."""
        trio.lowlevel.notify_closing(link.sock)
        if link.conn in self._readers:
            self._unpark(link.conn)
            del self._readers[link.conn]

    # ---- listening ------------------------------------------------------------------------------

    def listen(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        """Starts the task that accepts."""
        scope = self._listeners[listener] = trio.CancelScope()
        self._nursery.start_soon(self._accept, listener, taken, scope)

    async def _accept(
        self, listener: socket.socket, taken: Callable[[socket.socket, str], object], scope: trio.CancelScope
    ) -> None:
        with scope:
            while listener in self._listeners:  # It may be closed before this task has its first turn.
                await trio.lowlevel.wait_readable(listener)
                pause_s = self.accept(listener, taken)
                if pause_s:
                    await trio.sleep(pause_s)

    def stop_listening(self) -> None:
        """Ends the accepting tasks and closes the listeners."""
        for listener, scope in self._listeners.items():
            scope.cancel()
            trio.lowlevel.notify_closing(listener)
            listener.close()
        self._listeners.clear()

    def close(self) -> None:
        """Stops listening; the nursery's end does the rest."""
        self.stop_listening()
        self._timer.deadline = math.inf

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Calls back on trio's thread."""
        self._token.run_sync_soon(callback)


@asynccontextmanager
async def trio_driver(gate: Gate, flush_s: float, unsent_bytes_kernel: int) -> AsyncGenerator[TrioDriver]:
    """A driver whose tasks end with the block."""
    async with trio.open_nursery() as nursery:
        driver = TrioDriver(gate, flush_s, unsent_bytes_kernel, nursery)
        try:
            yield driver
        finally:
            driver.close()
            nursery.cancel_scope.cancel()
