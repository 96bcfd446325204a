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

from ..server.admission import Admission
from .driver import Driver
from .socket import SocketTransport

__all__ = ["TrioDriver", "trio_driver"]

READS_MAX: Final = 4
"""Full reads of one connection in a row before the others have their turn."""


class TrioDriver(Driver):
    """Runs in `nursery`, whose cancellation ends it."""

    def __init__(self, admission: Admission, flush_s: float, unsent_bytes_kernel: int, nursery: trio.Nursery) -> None:
        super().__init__(admission, flush_s, unsent_bytes_kernel)
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._flusher: Task | None = None
        self._ticks_due = False
        self._timer = trio.CancelScope()
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

    def watch_readable(self, link: SocketTransport) -> None:
        """Starts the reader task, or wakes it where it is parked."""
        first = link.wake is None
        link.watched = True
        if first:
            link.wake = _nothing
            self._nursery.start_soon(self._read, link)
        else:
            assert link.wake is not None
            link.wake()

    def unwatch_readable(self, link: SocketTransport) -> None:
        """Lets the reader task park itself."""
        if link.watched:
            link.watched = False
            trio.lowlevel.notify_closing(link.sock)  # Ends its wait.

    async def _read(self, link: SocketTransport) -> None:
        conn, sock = link.conn, link.sock
        while self.links.get(conn) is link:
            if not link.watched:
                await self._park(link)
                continue
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                continue
            for _ in range(READS_MAX):
                if not link.watched or not link.receive():
                    break

    @staticmethod
    async def _park(link: SocketTransport) -> None:
        task = trio.lowlevel.current_task()

        def wake() -> None:
            link.wake = _nothing
            trio.lowlevel.reschedule(task)

        def stop(_: object) -> Abort:
            link.wake = _nothing
            return Abort.SUCCEEDED

        link.wake = wake
        await trio.lowlevel.wait_task_rescheduled(stop)

    def watch_writable(self, link: SocketTransport) -> None:
        """Starts a task that waits for room."""
        self._nursery.start_soon(self._write, link)

    async def _write(self, link: SocketTransport) -> None:
        while self.links.get(link.conn) is link:
            try:
                await trio.lowlevel.wait_writable(link.sock)
            except trio.ClosedResourceError:  # Only a pause of reading, where the link is still ours.
                continue
            if self.links.get(link.conn) is link:
                link.writable()
            return

    def unwatch_writable(self, link: SocketTransport) -> None:
        """Nothing to do: the task that waited has ended."""

    def forget(self, link: SocketTransport) -> None:
        """Ends the waits of its tasks, which then end themselves."""
        link.watched = False
        trio.lowlevel.notify_closing(link.sock)
        if link.wake is not None:
            link.wake()

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


def _nothing() -> None:
    """The wake-up of a reader that is not parked."""


@asynccontextmanager
async def trio_driver(admission: Admission, flush_s: float, unsent_bytes_kernel: int) -> AsyncGenerator[TrioDriver]:
    """A driver whose tasks end with the block."""
    async with trio.open_nursery() as nursery:
        driver = TrioDriver(admission, flush_s, unsent_bytes_kernel, nursery)
        try:
            yield driver
        finally:
            driver.close()
            nursery.cancel_scope.cancel()
