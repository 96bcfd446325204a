"""One run of a world's server: a hub, its application and its oracles, from start to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..app import App, Steps, Waiting
from ..app.access import AuthRequest, RootRouter
from ..app.session import Session
from ..config import HubConfig
from ..effects import Effect
from ..hub import Hub
from ..inputs import Input, Shutdown, TimePassed
from ..protocols import Consumer
from ..pump import Pump
from .hub_oracle import DoorOracle
from .oracle import OracleFailed
from .store import Truth
from .streams import Chance
from .trace import Trace

__all__ = ["Build", "Server"]

Build = Callable[[RootRouter], object]
"""Registers an application's handlers, as `vixws_core.app.chat.build` does."""


class Server:
    """A hub and its application, driven by a pump. Handlers that wait are run some steps later."""

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
    ) -> None:
        router = RootRouter()
        build(router)
        policy = router.policy()
        self.hub: Hub = Hub(config, seed=seed, policy=policy)
        self.trace: Trace = Trace(config, seed, policy)
        self.door: DoorOracle = DoorOracle(self.hub, truth, turn, policed=policy.authorized)
        self.drained: bool = False
        self.errors: list[Exception] = []
        """What handlers raised."""
        self._chance = chance
        self._waiting: list[tuple[Steps, Waiting, Any]] = []
        self.app: App = App(
            self.hub,
            self._do,
            {"/": (router, ()), "/ws": (router, ())},
            clock=clock,
            report=self._report,
            wait=self._wait,
            message_bytes_max=config.message_bytes_max,
            drained=self._drained,
            root=router,
            wall=clock,
        )
        self._pump = Pump(self.hub, clock, (self.trace, *consumers, self.door), self.app.calls)

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

    def handlers_step(self, calm: bool) -> bool:
        """Goes on with handlers that wait; whether any did."""
        waiting, self._waiting = self._waiting, []
        for steps, asked, coroutine in waiting:
            if calm or self._chance.of("handlers").random() < 0.3:
                self._go_on(steps, asked, coroutine)
            else:
                self._waiting.append((steps, asked, coroutine))
        return bool(waiting)

    def end(self) -> None:
        """Drops the handlers that wait: the server is gone."""
        waiting, self._waiting = self._waiting, []
        for steps, _, coroutine in waiting:
            if coroutine is not None:
                coroutine.close()
            steps.close()

    def _do(self, command: Input) -> list[Effect]:
        return self._pump.do(command)

    def _drained(self) -> None:
        self.drained = True

    def _report(self, session: Session | AuthRequest | None, exception: Exception, name: str) -> None:
        if isinstance(exception, OracleFailed):
            raise exception
        self.errors.append(exception)

    def _wait(self, steps: Steps, waiting: Waiting) -> None:
        self._waiting.append((steps, waiting, None))

    def _go_on(self, steps: Steps, waiting: Waiting, coroutine: Any) -> None:
        """Runs a waiting handler: a plain one to its end, an async one to its next await."""
        try:
            if coroutine is None and not waiting.handler.is_async:
                result = waiting.handler.function(*waiting.args)
            else:
                if coroutine is None:
                    coroutine = waiting.handler.function(*waiting.args)
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
