"""Runs the handlers that wait: awaited in the loop, or called in worker threads, within their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context

import anyio
from anyio.abc import TaskGroup

from vixws_core.app.dispatch import HandlerCancelled, HandlerStopped, Steps, Waiting
from vixws_core.app.session import Session, state_of

from ..logs import report
from .threads import Threads

__all__ = ["Handlers"]


class Handlers:
    """Carries records of messages on. `timeout_s`: how long one handler may take; 0: as long as it likes.

    `stops`: the end of a session ends its handler. At most `threads_max` handlers are in worker threads at once, and as
    many hooks, which have their own: handlers that hang must keep nobody from proving who it is.
    """

    def __init__(self, timeout_s: float, stops: bool, threads_max: int) -> None:
        self._timeout_s = timeout_s
        self._stops = stops
        self._threads = Threads(threads_max)
        self._hook_threads = Threads(threads_max)
        self._scopes: dict[int, anyio.CancelScope] = {}
        """The handlers that wait, by their session, where the end of one ends the other."""
        self._tasks: TaskGroup | None = None
        self._context = Context()
        self._call_soon: Callable[[Callable[[], object]], object] = lambda callback: None

    def begin(self, tasks: TaskGroup, call_soon: Callable[[Callable[[], object]], object]) -> None:
        """Handlers run in these tasks from now on; `call_soon` runs something in the loop, called from any thread."""
        self._tasks = tasks
        self._context = copy_context()
        self._call_soon = call_soon

    def end(self) -> None:
        """The server ends: nothing is awaited any more."""
        self._tasks = None

    def cancel(self) -> None:
        """Cancels all handlers."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def wait(self, steps: Steps, waiting: Waiting) -> None:
        """Takes over a record whose next step has to wait."""
        if self._tasks is None:
            steps.close()
        else:
            # In the context of the server: in that of a store's thread it could not be told which loop this is.
            self._context.run(self._tasks.start_soon, self._drive, steps, waiting)

    def session_ends(self, session: Session) -> None:
        """A session's end begins: its handler is ended, where that is wanted."""
        scope = self._scopes.get(session.id)
        if scope is not None:
            scope.cancel()

    async def _drive(self, steps: Steps, waiting: Waiting) -> None:
        try:
            while True:
                try:
                    outcome = await self._run(waiting)
                except Exception as exc:
                    waiting = steps.throw(exc)
                except anyio.get_cancelled_exc_class() as exc:
                    if anyio.current_effective_deadline() == -math.inf:
                        raise  # The server ends.
                    # On asyncio a handler can be cancelled alone, for instance by a task that it awaits.
                    waiting = steps.throw(HandlerCancelled(repr(exc)))
                else:
                    waiting = steps.send(outcome)
        except StopIteration:
            return
        except Exception as exc:  # A defect of ours; it must end no other connection.
            report(waiting.args[0], exc, waiting.handler.name)
        finally:
            steps.close()

    async def _run(self, waiting: Waiting) -> object:
        """Runs one handler within its limits. Raises: `TimeoutError`, `HandlerStopped`, or what it raises."""
        if waiting.deadline_s is not None:
            with anyio.fail_after(waiting.deadline_s):
                return await self._call(waiting)
        session = waiting.args[0]
        if not isinstance(session, Session) or not (self._timeout_s or self._stops):
            return await self._call(waiting)
        stops = self._stops and waiting.handler not in (
            state_of(session).router.closed,
            state_of(session).router.failed,
        )
        with anyio.move_on_after(self._timeout_s or None) as scope:
            if stops:
                if not session.is_open:
                    raise HandlerStopped
                self._scopes[session.id] = scope
            try:
                return await self._call(waiting)
            finally:
                if stops:
                    self._scopes.pop(session.id, None)
        if anyio.current_time() < scope.deadline:
            raise HandlerStopped
        name = waiting.handler.name
        raise TimeoutError(f"handler {name!r} took more than {self._timeout_s:g} s (websocket.handlerTimeout)")

    async def _call(self, waiting: Waiting) -> object:
        handler = waiting.handler
        if handler.thread:
            threads = self._threads if waiting.deadline_s is None else self._hook_threads
            return await threads.run(self._call_soon, handler.function, *waiting.args)
        return await handler.function(*waiting.args)
