"""Tasks that work for a block and finish what is queued when it ends, however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

__all__ = ["Workers", "working"]


class Workers(Protocol):
    """What `working` runs: tasks that end by themselves after `stop`, and soon."""

    def tasks(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The functions to run, each in a task of its own."""
        ...

    def stop(self) -> None:
        """Refuses what comes from now on; the tasks end when what is queued is done."""
        ...

    def abandon(self) -> None:
        """Fails whatever still waits; called when the tasks have ended."""
        ...


@asynccontextmanager
async def working(workers: Workers, flush_s: Callable[[], float]) -> AsyncGenerator[None]:
    """Runs the tasks around a block, outside of any other cancel scope; at its end they have `flush_s()` to finish.

    What the block raises leaves as it is, not in a group.
    """
    raised: BaseException | None = None
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope(shield=True)
        done = anyio.Event()

        async def work() -> None:
            try:
                with scope:
                    async with anyio.create_task_group() as tasks:
                        for task in workers.tasks():
                            tasks.start_soon(task)
            finally:
                done.set()

        group.start_soon(work)
        try:
            yield
        except BaseException as exc:  # Kept for after the flush; raised again below.
            raised = exc
        workers.stop()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(flush_s()):
                await done.wait()
            scope.cancel()
            await done.wait()
            workers.abandon()
    if raised is not None:
        raise raised
