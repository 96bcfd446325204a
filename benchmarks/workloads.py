"""What is measured: each workload's application, load, figures and floors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["FIRST", "WORKLOADS", "Floor", "Plan", "Workload"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the measuring is done: the load client, rounds, the measured seconds of a run and the unmeasured ones at
    its start, where databases go (None: the temporary folder), the seconds left for greetings, those that idle
    sessions are held, and those of a pass that warms the server (with `warmup_s` before them too)."""

    program: Path
    rounds: int
    duration_s: float
    warmup_s: float
    folder: Path | None = None
    settle_s: float = 0.3
    hold_s: float = 1.0
    pass_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Floor:
    """A limit that a figure has to keep. With a `peer`: the ratio of server CPU to that peer's in the same
    round, at most `limit`. Without: `figure` itself, at least or at most `limit`.
    """

    limit: float
    peer: str = ""
    figure: str = "cpu_us"
    at_least: bool = False
    backends: tuple[str, ...] = ("asyncio", "trio")

    @property
    def said(self) -> str:
        """The floor in words."""
        sign = "≥" if self.at_least else "≤"
        if self.peer:
            return f"{sign} {self.limit:g} × {self.peer}"
        return f"{sign} {self.limit:,.0f} {'publishes/s' if self.at_least else 'KiB per session'}"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load. `unit` is what CPU is charged to; `rate` and `cost` are the load client's names of the
    events per second and of the CPU per event; `floors` hold for exactly the default shape, so a changed
    shape has none.
    """

    name: str
    application: str
    mode: str
    unit: str
    rate: str
    cost: str
    peers: tuple[str, ...]
    conns: int
    depth: int = 1
    size: int = 125
    window: int = 1
    joined: bool = False
    fill: int = 0
    timed: bool = True
    durable: bool = False
    floors: tuple[Floor, ...] = field(default=())

    @property
    def title(self) -> str:
        """What the tables call it, its shape included."""
        match self.mode:
            case "echo":
                return f"echo, {self.size} B, {self.conns}×{self.depth}"
            case "fanout":
                return f"room of {self.conns}, typed JSON, {self.size} B, {self.window} in flight"
            case "publish":
                shape = "each in the room" if self.joined else "none in the room"
                return f"durable publish, {self.size} B, {self.conns}×{self.depth} in flight, {shape}"
            case "replay":
                return f"replay of {self.fill:,} stored messages to {self.conns} at once"
            case _:
                return f"{self.conns:,} idle sessions"

    def arguments(self, port: int, pid: int, plan: Plan) -> list[str]:
        """The load client's command line."""
        found = [self.mode, "--port", str(port), "--pid", str(pid), "--conns", str(self.conns)]
        found += ["--settle", str(plan.settle_s)]
        if self.timed:
            found += ["--duration", str(plan.duration_s), "--warmup", str(plan.warmup_s), "--size", str(self.size)]
        if self.mode == "idle":
            found += ["--hold", str(plan.hold_s)]
        if self.mode in ("echo", "publish"):
            found += ["--depth", str(self.depth)]
        if self.mode == "fanout":
            found += ["--window", str(self.window)]
        if self.joined:
            found += ["--pub-joins"]
        return found

    def filling(self, port: int) -> list[str]:
        """The load client's command line that puts `fill` messages of the default size into room `r0`."""
        return ["publish", "--port", str(port), "--depth", "256", "--count", str(self.fill), "--size", "125"]

    def shaped(self, **changes: int | bool) -> Workload:
        """The same workload in another shape; floors go, as they were set for the default one."""
        changed = replace(self, **changes)  # type: ignore[arg-type]  # the command line gives these fields their types
        return self if changed == self else replace(changed, floors=())


_ALL = ("websockets", "picows", "trio-websocket")

_ECHO = Workload(
    name="echo",
    application="echo",
    mode="echo",
    unit="message",
    rate="msgs_per_s",
    cost="cpu_us_per_msg",
    peers=_ALL,
    conns=100,
    depth=16,
    floors=(Floor(0.45, "websockets"),),
)
_ECHO_SINGLE = replace(
    _ECHO,
    name="echo-single",
    depth=1,
    floors=(
        Floor(1.0, "websockets", backends=("asyncio",)),
        Floor(0.6, "trio-websocket", backends=("trio",)),
    ),
)
_ROOM = Workload(
    name="room",
    application="room",
    mode="fanout",
    unit="delivery",
    rate="deliveries_per_s",
    cost="cpu_us_per_delivery",
    peers=_ALL,
    conns=100,
    floors=(Floor(1.0, "websockets"),),
)
_PUBLISH = Workload(
    name="publish",
    application="publish",
    mode="publish",
    unit="publish",
    rate="publishes_per_s",
    cost="cpu_us_per_publish",
    peers=("websockets", "picows"),
    conns=1,
    depth=8,
    joined=True,
    durable=True,
    floors=(Floor(0.4, "websockets"),),
)
_PUBLISH_MANY = replace(
    _PUBLISH,
    name="publish-many",
    conns=16,
    depth=16,
    joined=False,
    floors=(Floor(10_000, figure="rate", at_least=True),),
)
_REPLAY = Workload(
    name="replay",
    application="publish",
    mode="replay",
    unit="delivery",
    rate="deliveries_per_s",
    cost="cpu_us_per_delivery",
    peers=("websockets",),
    conns=10,
    fill=20_000,
    timed=False,
    durable=True,
)
_IDLE = Workload(
    name="idle",
    application="echo",
    mode="idle",
    unit="session",
    rate="",
    cost="",
    peers=_ALL,
    conns=2_000,
    timed=False,
    floors=(Floor(14, figure="kib"),),
)

WORKLOADS = {each.name: each for each in (_ECHO, _ECHO_SINGLE, _ROOM, _PUBLISH, _PUBLISH_MANY, _REPLAY, _IDLE)}
"""All workloads by name, in their default shape."""

FIRST = tuple(WORKLOADS.values())
"""What `first` runs."""
