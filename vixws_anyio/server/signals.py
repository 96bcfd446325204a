"""What SIGTERM, SIGINT and SIGHUP do to a server that runs."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus

from ..logs import log

__all__ = ["signals_heeded"]

_heeded: list[int] = []
"""The signals that are heeded now."""


@asynccontextmanager
async def signals_heeded(
    stop: Callable[[bool, str], object], reload: Callable[[], object] | None = None
) -> AsyncGenerator[None]:
    """Inside the block SIGTERM and SIGINT call `stop(False, name)`, the second time `stop(True, name)`.

    SIGHUP calls `reload`; without one it is left alone. What the block raises comes out in a group.
    """
    async with anyio.create_task_group() as tasks:
        await tasks.start(_watch, stop, reload)
        yield
        tasks.cancel_scope.cancel()


async def _watch(
    stop: Callable[[bool, str], object], reload: Callable[[], object] | None, *, task_status: TaskStatus[None]
) -> None:
    stopping = False
    numbers = (signal.SIGTERM, signal.SIGINT, *([] if reload is None else [signal.SIGHUP]))
    with anyio.open_signal_receiver(*numbers) as received:
        _heeded[:] = numbers
        task_status.started()
        try:
            async for number in received:
                if number == signal.SIGHUP and reload is not None:
                    reload()
                    continue
                name = signal.Signals(number).name
                log.info("%s: %s", name, "stopping now" if stopping else "stopping")
                stop(stopping, name)
                stopping = True
        finally:
            _heeded.clear()


def _heed_none() -> None:
    """In a child made by `os.fork`: it ends by a signal as any process does.

    It would not, and its loop is the server's: what wakes that one would tell it of a signal that the child got.
    """
    if _heeded:
        signal.set_wakeup_fd(-1)
        for number in _heeded:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _heeded.clear()


os.register_at_fork(after_in_child=_heed_none)
