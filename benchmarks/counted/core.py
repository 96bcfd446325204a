"""Drives hub, pump and application with a client's bytes, and an in-memory log, without a loop or a socket.

`python -m benchmarks.counted.core LOAD TIMES`, in the tree that is counted, runs the load's turns once or twice:
everything up to the first turn is the same for both. It answers as `vixws_anyio` does: each read is put alone, and
all that was sent in a turn is flushed at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import vixws_core
from benchmarks.counted.loads import LOADS, REQUEST, Load, frames_in
from vixws_core import Hub, Pump
from vixws_core.app import App, Router, Session
from vixws_core.effects import Broadcast, Effect, SendBytes
from vixws_core.inputs import BytesFlushed, BytesReceived, Connected, Input, TimePassed
from vixws_core.log import LogExecutor, PureLog

WARM_TURNS = 6
"""Turns before the counted ones, so that the interpreter has specialised its code and the first objects are there."""

TURN_S = 0.001


class Wire:
    """A consumer that keeps what is sent until the turn ends."""

    def __init__(self) -> None:
        self.pieces: dict[int, list[bytes]] = {}

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Takes the bytes of one step."""
        pieces = self.pieces
        for effect in effects:
            if type(effect) is SendBytes:
                pieces.setdefault(effect.conn, []).append(bytes(effect.data))
            elif type(effect) is Broadcast:
                for conn in effect.conns:
                    pieces.setdefault(conn, []).append(bytes(effect.data))


class Rig:
    """Hub, log and application, and the clock of all."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.now = 1_000.0
        self.wire = Wire()
        hub = Hub(seed=b"counted")
        router = Router()
        self.app = App(
            hub,
            lambda command: self.pump.do(command),
            {"/": (router, ())},
            clock=self.clock,
            report=_failed,
            wait=_waits,
        )
        _APPLICATIONS[load.application](self.app, router)
        log = LogExecutor(
            PureLog("counted"), lambda *inputs: self.pump.put(*inputs), lambda: "2026-01-02T03:04:05.678Z"
        )
        self.pump: Pump[Input, Effect] = Pump(hub, self.clock, [self.wire, log], self.app.calls)

    def clock(self) -> float:
        """The time, which only turns move."""
        return self.now

    def turn(self, sent: dict[int, bytes]) -> list[bytes]:
        """What connections send, up to what they get; all of it is flushed, and what is due is done."""
        pump = self.pump
        for conn, data in sent.items():
            pump.put(BytesReceived(conn, data))
        got = {conn: b"".join(pieces) for conn, pieces in self.wire.pieces.items()}
        self.wire.pieces.clear()
        pump.put(BytesFlushed(tuple([(conn, len(data)) for conn, data in got.items()])))
        self.now += TURN_S
        deadline = pump.door.next_deadline()
        if deadline is not None and deadline <= self.now:
            pump.put(TimePassed())
        return list(got.values())

    def open(self) -> None:
        """Opens all connections, and joins those that are members."""
        for conn in range(1, self.load.conns + 1):
            self.pump.put(Connected(conn, f"127.0.0.1:{conn}"))
            self.turn({conn: REQUEST})
            if first := self.load.first(conn):
                self.turn({conn: first})


def _echo(app: App, router: Router) -> None:
    @router.on_message
    def echo(session: Session, message: str | bytes) -> None:
        session.send_text(message) if isinstance(message, str) else session.send_binary(message)


def _room(app: App, router: Router) -> None:
    @router.on("room.join")
    def join(session: Session, payload: dict[str, str]) -> None:
        app.join_room(session, payload["room"])

    @router.on("chat.message")
    def message(session: Session, payload: dict[str, str | int]) -> None:
        app.broadcast_room_json(str(payload["room"]), "chat.message", payload, store=False)


def _publish(app: App, router: Router) -> None:
    """The wire protocol alone."""


_APPLICATIONS: dict[str, Callable[[App, Router], None]] = {"echo": _echo, "room": _room, "publish": _publish}


def _failed(who: object, exc: Exception, name: str) -> None:
    raise RuntimeError(f"{name} failed") from exc


def _waits(*_: object) -> None:
    raise RuntimeError("a handler waits, and none of these does")


def main() -> None:
    """Warm up, make sure that the load gets its answers, and run the turns."""
    load, times = LOADS[sys.argv[1]], int(sys.argv[2])
    if Path(vixws_core.__file__).parent.parent != Path.cwd():
        raise SystemExit(f"vixws_core comes from {vixws_core.__file__}, expected it in {Path.cwd()}")
    rig = Rig(load)
    rig.open()
    sent = [load.sent(turn) for turn in range(WARM_TURNS + 2 * load.turns)]
    for turn in range(WARM_TURNS):
        found = sum(frames_in(data)[0] for data in rig.turn(sent[turn]))
        if found != load.answers:
            raise SystemExit(f"{load.name}: {found} answers in a turn, expected {load.answers}")
    gc.collect()
    gc.freeze()
    for turn in range(WARM_TURNS, WARM_TURNS + times * load.turns):
        rig.turn(sent[turn])
    os._exit(0)  # What is left is not taken apart: that would be counted too.


if __name__ == "__main__":
    main()
