"""One run of a world's server: a hub, its application and its oracles, from start to end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from ..app import App, Steps, Waiting
from ..app.access import AuthRequest
from ..app.origins import Origins
from ..app.router import Handler, Router
from ..app.session import Session
from ..config import HubConfig
from ..effects import Effect
from ..hub import Hub
from ..inputs import Input, Publish, Shutdown, TimePassed
from ..protocols import Consumer
from ..pump import Pump
from .app_server import Moment, SimServer
from .handler_oracle import HandlerOracle
from .hub_oracle import DoorOracle
from .journal import Journal
from .oracle import OracleFailed
from .store import Truth
from .streams import Chance
from .trace import Trace

__all__ = ["Build", "Server"]

Build = Callable[[Any], object]
"""Registers an application's handlers on a router that is a server as well: `SimServer`."""


class Server:
    """A hub and its application, driven by a pump. Handlers that wait are run some steps later.

    `journal` hears which handler takes what, where it is given; `name_of` tells who a connection is.
    """

    def __init__(
        self,
        config: HubConfig,
        build: Build,
        *,
        seed: bytes,
        clock: Callable[[], float],
        chance: Chance,
        truth: Truth,
        turn: Callable[[], int],
        consumers: Sequence[Consumer],
        handlers: HandlerOracle,
        name_of: Callable[[int], str],
        journal: Journal | None = None,
        origins: tuple[str, ...] = (),
    ) -> None:
        router = SimServer()
        build(router)
        policy = router.policy()
        self.hub: Hub = Hub(config, seed=seed, policy=policy)
        self.trace: Trace = Trace(config, seed, policy)
        self.door: DoorOracle = DoorOracle(self.hub, truth, turn, policed=policy.authorized, name_of=name_of)
        self.drained: bool = False
        self.errors: list[Exception] = []
        """What handlers raised."""
        self._chance = chance
        self._handlers = handlers
        self._journal = journal
        self._name_of = name_of
        self._waiting: list[tuple[Steps, Waiting, Any]] = []
        self._at: tuple[Session | None, str] = (None, "")
        """Whose message is handled, and by which handler."""
        self._note_handlers(router)
        self.app: App = App(
            self.hub,
            self._do,
            router.routes,
            clock=clock,
            report=self._report,
            wait=self._wait,
            message_bytes_max=config.message_bytes_max,
            drained=self._drained,
            root=router,
            origins=Origins(origins),
            wall=clock,
            make_signal=Moment,
        )
        router.carry(self.app)
        handlers.begins()
        consumers = (self.trace, *consumers, handlers, self.door)
        self._pump = Pump(self.hub, clock, consumers, self.app.calls)

    def post(self, *inputs: Input) -> None:
        """Hands inputs in. Raises: `OracleFailed`, also where the hub raises: nothing the world tells may make it."""
        try:
            self._pump.put(*inputs)
        except OracleFailed:
            raise
        except Exception as exc:
            raise OracleFailed(f"the hub raised {exc!r} at one of {inputs!r:.500}") from exc

    def time(self, now: float) -> bool:
        """Tells the hub that its time has come, where it has."""
        when = self.hub.next_deadline()
        if when is None or when > now:
            return False
        self.post(TimePassed())
        return True

    def shut_down(self, drain_s: float) -> None:
        """Begins to drain."""
        self.post(Shutdown(drain_s))

    def end(self) -> None:
        """Drops the handlers that wait: the server is gone."""
        waiting, self._waiting = self._waiting, []
        for steps, _, coroutine in waiting:
            if coroutine is not None:
                coroutine.close()
            steps.close()

    def _drained(self) -> None:
        self.drained = True

    # ---- what handlers ask ------------------------------------------------------------------------

    def _do(self, command: Input) -> list[Effect]:
        effects = self._pump.do(command)
        if isinstance(command, Publish):
            session, handler = self._at
            if session is None and command.conn is not None:
                session = next((one for one in self.app.sessions() if one.id == command.conn), None)
            self._handlers.published(effects, session, handler or f"the guard of {command.type}")
        return effects

    def _report(self, session: Session | AuthRequest | None, exception: Exception, name: str) -> None:
        if isinstance(exception, OracleFailed):
            raise exception
        self.errors.append(exception)
        self._handlers.raised(session, exception, name)

    def _note_handlers(self, server: SimServer) -> None:
        """Has each handler say when it begins."""
        for router in {id(router): router for router, _ in server.routes.values()}.values():
            for handler in _handlers_of(router):
                handler.function = self._noted(handler, handler.function)

    def _noted(self, handler: Handler, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            session = args[0] if isinstance(args[0], Session) else None
            if self._journal is not None:
                who = "somebody" if session is None else self._name_of(session.id)
                self._journal.say(f"handler {handler.name} runs for {who}")
            with self._handling(session, handler.name):
                return function(*args)

        return called

    @contextmanager
    def _handling(self, session: Session | None, name: str) -> Generator[None]:
        before, self._at = self._at, (session, name)
        try:
            yield
        finally:
            self._at = before

    # ---- handlers that wait -----------------------------------------------------------------------

    def handlers_step(self, calm: bool) -> bool:
        """Goes on with handlers that wait; whether any did."""
        waiting, self._waiting = self._waiting, []
        for steps, asked, coroutine in waiting:
            if calm or self._chance.of("handlers").random() < 0.3:
                self._go_on(steps, asked, coroutine)
            else:
                self._waiting.append((steps, asked, coroutine))
        return bool(waiting)

    def _wait(self, steps: Steps, waiting: Waiting) -> None:
        self._waiting.append((steps, waiting, None))

    def _go_on(self, steps: Steps, waiting: Waiting, coroutine: Any) -> None:
        """Runs a waiting handler: a plain one to its end, an async one to its next await."""
        handler, first = waiting.handler, waiting.args[0]
        try:
            if coroutine is None and not handler.is_async:
                result = handler.function(*waiting.args)
            else:
                if coroutine is None:
                    coroutine = handler.function(*waiting.args)
                with self._handling(first if isinstance(first, Session) else None, handler.name):
                    coroutine.send(None)
                self._waiting.append((steps, waiting, coroutine))
                return
        except StopIteration as stop:
            result = stop.value
        except Exception as exc:
            failure = exc
            self._next(lambda: steps.throw(failure), steps)
            return
        self._next(lambda: steps.send(result), steps)

    def _next(self, resume: Callable[[], Waiting], steps: Steps) -> None:
        try:
            waiting = resume()
        except StopIteration:
            return
        self._wait(steps, waiting)


def _handlers_of(router: Router) -> list[Handler]:
    found = [router.opened, router.closed, router.failed, router.raw, router.typed, router.bad]
    return [handler for handler in (*found, *router.types.values(), *router.guards.values()) if handler is not None]
