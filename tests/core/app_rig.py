"""An application on a hub, without any loop: peers of raw frames, a pure log, and handlers that wait on command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from vixws_core import Hub, HubConfig, Pump
from vixws_core.app import App
from vixws_core.app.access import RootRouter
from vixws_core.app.dispatch import Steps, Waiting
from vixws_core.app.router import Router
from vixws_core.app.session import Session
from vixws_core.effects import Broadcast, CloseTransport, Effect, SendBytes
from vixws_core.inputs import BytesFlushed, BytesReceived, Connected, Disconnected, HandlerFinished, Input, TimePassed
from vixws_core.log import PureLog, run_asks, store_asks
from vixws_core.wire.frames import CloseReceived, FrameReader

from .harness import EPOCH, TS, close_frame, text_frame, upgrade_request

__all__ = ["AppPeer", "AppRig", "typed"]


def typed(type: str, payload: object = None, **more: object) -> dict[str, Any]:
    """One message of a client."""
    return {"type": type, "payload": {} if payload is None else payload, **more}


class AppPeer:
    """The other end of one connection."""

    def __init__(self, rig: AppRig, conn: int) -> None:
        self.rig = rig
        self.conn = conn
        self.out = bytearray()
        self.head = b""
        self.close_seen: tuple[int, str] | None = None
        self.takes = True
        """Whether what is sent to it is flushed at once."""
        self.unflushed = 0
        self._reader = FrameReader(client=True, message_bytes_max=1 << 40)

    def raw(self, data: bytes) -> None:
        self.rig.pump.put(BytesReceived(self.conn, data))

    def send(self, *messages: object) -> None:
        """Sends text messages in one read."""
        self.raw(b"".join(map(text_frame, messages)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.raw(close_frame(code, reason))

    def vanish(self) -> None:
        self.rig.pump.put(Disconnected(self.conn, "reset"))

    def flush(self) -> None:
        """Takes all that was sent."""
        count, self.unflushed = self.unflushed, 0
        self.rig.pump.put(BytesFlushed(((self.conn, count),)))

    def texts(self) -> list[str]:
        """The text messages since the last look."""
        if not self.head:
            head, _, rest = bytes(self.out).partition(b"\r\n\r\n")
            self.head, self.out = head, bytearray(rest)
        if not self.head.startswith(b"HTTP/1.1 101"):
            return []
        data, self.out = bytes(self.out), bytearray()
        found: list[str] = []
        for frame in self._reader.feed(data):
            if isinstance(frame, str):
                found.append(frame)
            elif isinstance(frame, CloseReceived):
                self.close_seen = (frame.code, frame.reason)
        return found

    def messages(self) -> list[Any]:
        """The same, decoded."""
        return [json.loads(text) for text in self.texts()]

    def ask(self, *messages: object) -> list[Any]:
        """Sends messages in one read and returns what comes of it."""
        self.messages()
        self.send(*messages)
        return self.messages()

    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that came."""
        self.texts()
        return self.close_seen


class AppRig:
    """Hub, log and application in one hand. Handlers that wait are held in `waiting` until `run` or `fail`."""

    def __init__(
        self,
        *routers: Router,
        routes: dict[str, tuple[Router, tuple[str, ...]]] | None = None,
        config: HubConfig | None = None,
        access: str | None = None,
        **options: Any,
    ) -> None:
        self.now = 100.0
        first = routers[0] if routers else None
        root = first if isinstance(first, RootRouter) else RootRouter()
        self.wall = 1_800_000_000.0
        """Unix seconds when the clock stands at 0."""
        self.hub = Hub(config, policy=root.policy(access))
        self.log = PureLog(EPOCH)
        self.store_held = False
        self.asks: list[Any] = []
        self.steps: list[tuple[Input, list[Effect]]] = []
        self.reports: list[tuple[Session | None, Exception, str]] = []
        self.waiting: list[tuple[Steps, Waiting]] = []
        self.peers: dict[int, AppPeer] = {}
        self.pump: Pump[Input, Effect]
        self.app = App(
            self.hub,
            lambda command: self.pump.do(command),
            routes or {"/": (routers[0], ())},
            clock=lambda: self.now,
            report=lambda *what: self.reports.append(what),
            wait=lambda steps, waiting: self.waiting.append((steps, waiting)),
            root=root,
            wall=lambda: self.wall + self.now,
            **options,
        )
        self.pump = Pump(self.hub, lambda: self.now, [self], self.app.calls)

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Carries out what a step asks."""
        self.steps.append((input, list(effects)))
        flushed: list[tuple[int, int]] = []
        for effect in effects:
            if isinstance(effect, SendBytes | Broadcast):
                for conn in (effect.conn,) if isinstance(effect, SendBytes) else effect.conns:
                    peer = self.peers[conn]
                    peer.out += effect.data
                    if peer.takes:
                        flushed.append((conn, len(effect.data)))
                    else:
                        peer.unflushed += len(effect.data)
            elif isinstance(effect, CloseTransport):
                self.pump.put(Disconnected(effect.conn))
        if flushed:
            self.pump.put(BytesFlushed(tuple(flushed)))
        asks = store_asks(effects)
        if asks and self.store_held:
            self.asks += asks
        elif asks:
            self.pump.put(*run_asks(self.log, asks, TS))

    def connect(self, target: str = "/", *headers: str) -> AppPeer:
        """A peer that has asked for a WebSocket."""
        return self.request(upgrade_request(*headers, target=target))

    def request(self, head: bytes) -> AppPeer:
        """A peer that has sent a request."""
        conn = len(self.peers) + 1
        peer = self.peers[conn] = AppPeer(self, conn)
        self.pump.put(Connected(conn, f"192.0.2.{conn}:5000"), BytesReceived(conn, head))
        return peer

    def pass_time(self, seconds: float) -> None:
        """Lets time pass from deadline to deadline."""
        until = self.now + seconds
        while (due := self.hub.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.pump.put(TimePassed())
        self.now = until

    def answer_store(self) -> None:
        """Runs what the held store was asked, and tells."""
        asks, self.asks = self.asks, []
        self.pump.put(*run_asks(self.log, asks, TS))

    def run(self) -> object:
        """Runs the handler that waits longest, to its end, and goes on with its record."""
        steps, waiting = self.waiting.pop(0)
        outcome = waiting.handler.function(*waiting.args)
        if waiting.handler.is_async:
            outcome = _result_of(outcome)
        self._go_on(lambda: steps.send(outcome), steps)
        return outcome

    def fail(self, exc: Exception) -> None:
        """Lets the handler that waits longest raise."""
        steps, _ = self.waiting.pop(0)
        self._go_on(lambda: steps.throw(exc), steps)

    def _go_on(self, step: Callable[[], Waiting], steps: Steps) -> None:
        try:
            self.waiting.append((steps, step()))
        except StopIteration:
            return

    def finished(self, conn: int) -> list[HandlerFinished]:
        """What was told of the ends of records of one connection."""
        return [told for told, _ in self.steps if isinstance(told, HandlerFinished) and told.conn == conn]


def _result_of(coroutine: Any) -> object:
    """The result of a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the handler waits for something")
