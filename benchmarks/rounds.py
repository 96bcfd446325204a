"""Runs a workload in rounds: in each, every contestant once, on a server started and warmed for it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant, Peer, Running, Vixws
from benchmarks.load import LoadError, measure
from benchmarks.warm import Warming, warm_up
from benchmarks.workloads import Floor, Plan, Workload

__all__ = ["Figures", "Result", "Verdict", "run"]

_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One contestant in one round. Zero means that the workload has no such figure."""

    rate: float
    """Events per second."""
    cpu_us: float
    """Server CPU per event, µs."""
    p50_us: float
    p99_us: float
    kib: float
    """Growth of the server's resident memory per session, KiB."""
    server_pct: float
    client_pct: float
    warming: Warming | None = None
    """How the server was warmed before; None where the workload has no CPU per event."""

    @classmethod
    def read(cls, workload: Workload, found: dict[str, Any]) -> Figures:
        """Take the figures out of the load client's JSON.

        Raises: LoadError where nothing happened in the measured time, so that there is nothing to charge.
        """
        latency, server = found.get("latency_us", {}), found["server"]
        if workload.cost and workload.cost not in server:
            raise LoadError(f"{workload.title}: no {workload.unit} in the measured time")
        return cls(
            rate=found[workload.rate] if workload.rate else 0.0,
            cpu_us=server[workload.cost] if workload.cost else 0.0,
            p50_us=latency.get("p50", 0.0),
            p99_us=latency.get("p99", 0.0),
            kib=found.get("kib_per_conn", 0.0),
            server_pct=server["cpu_pct"],
            client_pct=found["client"]["cpu_pct"],
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A floor beside what was measured: the median over the rounds."""

    contestant: str
    floor: Floor
    measured: float | None
    """None where the peer did not run."""

    @property
    def kept(self) -> bool | None:
        """Whether the floor is kept; None where it could not be measured."""
        if self.measured is None:
            return None
        return self.measured >= self.floor.limit if self.floor.at_least else self.measured <= self.floor.limit


@dataclass(frozen=True, slots=True)
class Result:
    """A workload's figures: for each contestant one entry per round."""

    workload: Workload
    figures: dict[Contestant, list[Figures]]

    def median(self, contestant: Contestant, name: str) -> float:
        """The median over the rounds of one figure."""
        return statistics.median([float(getattr(each, name)) for each in self.figures[contestant]])

    def warmings(self, contestant: Contestant) -> list[Warming]:
        """How a contestant's servers were warmed, one entry per round; empty where they were not."""
        return [each.warming for each in self.figures[contestant] if each.warming is not None]

    def ratios(self, ours: Contestant, peer: Contestant) -> list[float]:
        """Server CPU per event beside a peer's, round by round; KiB per session where there is no event."""
        name = "cpu_us" if self.workload.cost else "kib"
        pairs = zip(self.figures[ours], self.figures[peer], strict=True)
        return [getattr(mine, name) / getattr(theirs, name) for mine, theirs in pairs if getattr(theirs, name) > 0]

    def verdicts(self) -> list[Verdict]:
        """Each floor for each of our contestants that it is meant for."""
        found: list[Verdict] = []
        for ours in self.figures:
            if not isinstance(ours, Vixws):
                continue
            for floor in self.workload.floors:
                if ours.backend in floor.backends:
                    found.append(Verdict(ours.name, floor, self._measured(ours, floor)))
        return found

    def _measured(self, ours: Contestant, floor: Floor) -> float | None:
        if not floor.peer:
            return self.median(ours, floor.figure)
        for peer in self.figures:
            if isinstance(peer, Peer) and peer.library == floor.peer:
                ratios = self.ratios(ours, peer)
                return statistics.median(ratios) if ratios else None
        return None


def run(workload: Workload, contestants: Sequence[Contestant], plan: Plan, say: Callable[[str], None]) -> Result:
    """Measure a workload; contestants alternate within each round, and every second round turns the order.

    Raises: LoadError, ServerError.
    """
    result = Result(workload, {each: [] for each in contestants})
    for number in range(plan.rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            say(f"{workload.title}: round {number + 1} of {plan.rounds}, {contestant.name}")
            result.figures[contestant].append(_once(workload, contestant, plan))
    return result


def _once(workload: Workload, contestant: Contestant, plan: Plan) -> Figures:
    warm_plan = replace(plan, duration_s=plan.pass_s)
    with tempfile.TemporaryDirectory(prefix="vixws-bench-", dir=plan.folder) as folder:
        store = Path(folder) / "messages.db" if workload.durable else None
        with contestant.started(workload.application, store, workload.fill) as server:
            if workload.fill and isinstance(contestant, Vixws):
                measure(plan.program, workload.filling(server.port), _SLACK_S)
            if workload.cost:
                warming = warm_up(lambda: _load(workload, server, warm_plan).cpu_us, time.monotonic)
                return replace(_load(workload, server, plan), warming=warming)
            # Idle sessions cost memory, and memory that passes had left free would hide it. What the first
            # connections load is no session's, though.
            first = ["handshake", "--port", str(server.port), "--conns", "1", "--count", "8"]
            measure(plan.program, first, _SLACK_S)
            return _load(workload, server, plan)


def _load(workload: Workload, server: Running, plan: Plan) -> Figures:
    arguments = workload.arguments(server.port, server.pid, plan)
    return Figures.read(workload, measure(plan.program, arguments, plan.duration_s + plan.warmup_s + _SLACK_S))
