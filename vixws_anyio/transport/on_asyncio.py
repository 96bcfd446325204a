"""The transport driver on asyncio: the loop's own readers and writers, no task per connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from .driver import Driver
from .interface import Gate, Watched

__all__ = ["AsyncioDriver", "asyncio_driver"]


class AsyncioDriver(Driver):
    """Runs on the asyncio loop (or uvloop) that is running when it is made."""

    def __init__(self, gate: Gate, flush_s: float, unsent_bytes_kernel: int) -> None:
        super().__init__(gate, flush_s, unsent_bytes_kernel)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[socket.socket] = []
        self._closed = False

    def _schedule(self) -> None:
        if not self._closed:
            self._loop.call_soon(self.tick)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_later(max(0.0, deadline - monotonic()), self.timer_fired)

    def watch_readable(self, link: Watched) -> None:
        """Adds a persistent reader: adding and removing one per wait costs 12 µs a message."""
        self._loop.add_reader(link.fd, link.receive)

    def unwatch_readable(self, link: Watched) -> None:
        """Removes the reader."""
        self._loop.remove_reader(link.fd)

    def watch_writable(self, link: Watched) -> None:
        """Adds a writer, until there is room."""
        self._loop.add_writer(link.fd, link.writable)

    def unwatch_writable(self, link: Watched) -> None:
        """Removes the writer."""
        self._loop.remove_writer(link.fd)

    def forget(self, link: Watched) -> None:
        """Removes reader and writer."""
        self.unwatch_readable(link)
        self._loop.remove_writer(link.fd)

    def listen(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        """Accepts whenever the listener is readable."""
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener, taken)

    def _accept(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        pause_s = self.accept(listener, taken)
        if pause_s and listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            self.later(pause_s, partial(self._accept_again, listener, taken))

    def _accept_again(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener, taken)

    def stop_listening(self) -> None:
        """Closes the listeners."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def close(self) -> None:
        """Cancels the timer; later ticks are dropped."""
        self._closed = True
        self.stop_listening()
        if self._timer is not None:
            self._timer.cancel()

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Calls back on the loop's thread."""
        self._loop.call_soon_threadsafe(callback)


def _name_the_loop() -> None:
    """Tells anyio which loop this is, also in the loop's callbacks, which run in no task.

    `anyio.run` does so by itself, `asyncio.run` does not; what is called from here on inherits it.
    """
    try:
        from sniffio import current_async_library_cvar
    except ImportError:
        return  # Without it anyio knows of asyncio alone.
    current_async_library_cvar.set("asyncio")


@asynccontextmanager
async def asyncio_driver(gate: Gate, flush_s: float, unsent_bytes_kernel: int) -> AsyncGenerator[AsyncioDriver]:
    """A driver that lets go of the loop at the end of the block."""
    _name_the_loop()
    driver = AsyncioDriver(gate, flush_s, unsent_bytes_kernel)
    try:
        yield driver
    finally:
        driver.close()
