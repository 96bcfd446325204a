"""What metrics cost: echo with them beside echo without, and scrapes after the traffic of many sessions."""

from __future__ import annotations

import re
import statistics
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contestants import Vixws, serving
from benchmarks.load import LoadError, measure
from benchmarks.report import figure_cells, figure_heads, progress, ratio_cell, table, warm_lines
from benchmarks.rounds import Result, run
from benchmarks.workloads import WORKLOADS, Plan

__all__ = ["RATIO_MAX", "SCRAPE_MS_MAX", "SESSIONS", "Scrapes", "ratio_text", "scrape", "scrapes_text", "texts"]

RATIO_MAX = 1.03
"""Server CPU per message with metrics, beside the same without in the same round."""

SCRAPE_MS_MAX = 5.0
"""Milliseconds that one scrape may take, of the server's CPU and of the scraper's time."""

SESSIONS = 100_000
"""Sessions whose traffic lies before the scrapes."""

_SCRAPES = 200
_ECHO_S = 2.0
_SLACK_S = 120.0


@dataclass(frozen=True, slots=True)
class Scrapes:
    """One server's scrapes: what it had counted before, what it answers, and what that costs."""

    name: str
    sessions: int
    messages: int
    """Received in all sessions together."""
    answer_bytes: int
    cpu_ms: float
    """Server CPU of one scrape, the mean of all."""
    seconds: tuple[float, ...]
    """How long the scraper waited, for each scrape, from its connect to the last byte."""


def texts(contestants: Sequence[Vixws], plan: Plan, sessions: int) -> Iterator[str]:
    """Measure and describe: echo in both shapes, with metrics and without, then scrapes.

    Raises: LoadError, ServerError.
    """
    for contestant in contestants:
        counted = replace(contestant, metrics=True)
        for name in ("echo", "echo-single"):
            result = run(replace(WORKLOADS[name], floors=()), [contestant, counted], plan, progress)
            progress("")
            yield ratio_text(result, contestant, counted)
    for contestant in contestants:
        progress(f"{sessions:,} sessions and their scrapes, {contestant.name}")
        scrapes = scrape(replace(contestant, metrics=True), plan.program, sessions)
        progress("")
        yield scrapes_text(scrapes)


def ratio_text(result: Result, without: Vixws, counted: Vixws) -> str:
    """One shape of echo: the medians of both, the ratio of their CPU round by round, and the floor."""
    ratios = result.ratios(counted, without)
    middle = statistics.median(ratios)
    word = "pass" if middle <= RATIO_MAX else "MISS"
    rows = [
        ["", *figure_heads(result.workload), "× without"],
        [without.name, *figure_cells(result, without), ""],
        [counted.name, *figure_cells(result, counted), ratio_cell(ratios, 3)],
    ]
    verdict = f"  floor {word}: {counted.name} ≤ {RATIO_MAX:g} × without: {middle:.3f}"
    return "\n".join([result.workload.title, table(rows), verdict, *warm_lines(result)])


def scrapes_text(found: Scrapes) -> str:
    """One server's scrapes as a table, and the floors."""
    waited = [each * 1000 for each in found.seconds]
    middle = statistics.median(waited)
    rows = [
        ["", "scrapes", "bytes each", "server CPU ms", "median ms", "longest ms"],
        [
            found.name,
            f"{len(waited):,}",
            f"{found.answer_bytes:,}",
            f"{found.cpu_ms:.2f}",
            f"{middle:.2f}",
            f"{max(waited):.2f}",
        ],
    ]
    floors = [("server CPU", found.cpu_ms), ("scraper's time", middle)]
    return "\n".join(
        [
            f"scrapes after {found.sessions:,} sessions and {found.messages:,} messages",
            table(rows),
            *(
                f"  floor {'pass' if value <= SCRAPE_MS_MAX else 'MISS'}: "
                f"{found.name} ≤ {SCRAPE_MS_MAX:g} ms of {kind} a scrape: {value:.2f}"
                for kind, value in floors
            ),
        ]
    )


def scrape(
    contestant: Vixws, program: Path, sessions: int, scrapes: int = _SCRAPES, echo_s: float = _ECHO_S
) -> Scrapes:
    """Serve `sessions` sessions to their end and an echo for `echo_s` seconds, then scrape, one after another.

    Raises: LoadError also where the server did not count them all, ServerError.
    """
    with serving(contestant.command("echo", None, 0)) as server:
        where = ["--port", str(server.port)]
        measure(program, ["handshake", *where, "--conns", "64", "--count", str(sessions)], _SLACK_S)
        load = ["echo", *where, "--conns", "100", "--depth", "16", "--duration", str(echo_s), "--warmup", "0"]
        measure(program, load, echo_s + _SLACK_S)
        text = _get(server.metrics)  # The first one imports what it needs.
        counted, messages = _sample(text, "vixws_sessions_total"), _sample(text, "vixws_received_messages_total")
        if counted < sessions:
            raise LoadError(f"{contestant.name}: counted {counted:,} sessions, expected at least {sessions:,}")
        before = _cpu_ns(server.pid)
        seconds: list[float] = []
        for _ in range(scrapes):
            start = time.perf_counter()
            text = _get(server.metrics)
            seconds.append(time.perf_counter() - start)
        cpu_ms = (_cpu_ns(server.pid) - before) / scrapes / 1e6
    return Scrapes(contestant.name, counted, messages, len(text.encode()), cpu_ms, tuple(seconds))


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _sample(text: str, name: str) -> int:
    match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if match is None:
        raise LoadError(f"a scrape without {name}")
    return int(float(match[1]))


def _cpu_ns(pid: int) -> int:
    """What the kernel charged to all threads of a process, ns (Documentation/scheduler/sched-stats.rst)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
