"""What SIGTERM, SIGINT and SIGHUP do to a server that runs."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus

from ..logs import log

__all__ = ["signals_heeded"]


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
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP and reload is not None:
                reload()
                continue
            name = signal.Signals(number).name
            log.info("%s: %s", name, "stopping now" if stopping else "stopping")
            stop(stopping, name)
            stopping = True
