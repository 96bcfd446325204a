"""Results as text: tables, ratios, floors, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestants import PEERS, Contestant, Peer, Vixws, installed, root, version
from benchmarks.rounds import Result, Verdict
from benchmarks.warm import DIFFER_PCT_MAX, PASSES_MAX, WARM_S_MAX, Warming
from benchmarks.workloads import Workload

__all__ = [
    "describe_machine",
    "figure_cells",
    "figure_heads",
    "floor_lines",
    "progress",
    "ratio_cell",
    "result_text",
    "table",
    "warm_lines",
]

_SYNCS = 100
_WARMING = (
    f"unmeasured passes until two in a row agree within {DIFFER_PCT_MAX} % of server CPU per event, "
    f"at most {PASSES_MAX} or {WARM_S_MAX:g} s; idle: none"
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def result_text(result: Result) -> str:
    """One workload: medians for every contestant, ratios to each peer, floors."""
    peers = [each for each in result.figures if isinstance(each, Peer)]
    head = ["", *figure_heads(result.workload), *(f"× {peer.library}" for peer in peers)]
    rows = [head]
    for contestant in result.figures:
        row = [contestant.name, *figure_cells(result, contestant)]
        for peer in peers:
            row.append(ratio_cell(result.ratios(contestant, peer)) if isinstance(contestant, Vixws) else "")
        rows.append(row)
    lines = [result.workload.title, table(rows), *floor_lines(result.verdicts()), *warm_lines(result)]
    return "\n".join(lines)


def figure_heads(workload: Workload) -> list[str]:
    """The heads of `figure_cells`."""
    if workload.mode == "idle":
        return ["KiB/session"]
    latency = ["p50 ms", "p99 ms"]
    heads = [f"{_plural(workload.unit)}/s", f"CPU µs/{workload.unit}"]
    if workload.mode == "fanout":
        heads.append("CPU µs/message")
    return [*heads, *latency, "server CPU", "client CPU"]


def _plural(unit: str) -> str:
    return {"delivery": "deliveries", "publish": "publishes"}.get(unit, f"{unit}s")


def figure_cells(result: Result, contestant: Contestant) -> list[str]:
    """One contestant's figures, each the median over the rounds."""

    def median(name: str) -> float:
        return result.median(contestant, name)

    workload = result.workload
    if workload.mode == "idle":
        return [f"{median('kib'):.1f}"]
    cells = [f"{median('rate'):,.0f}", f"{median('cpu_us'):.2f}"]
    if workload.mode == "fanout":
        cells.append(f"{median('cpu_us') * workload.conns:.1f}")
    latency = [f"{median('p50_us') / 1000:.2f}", f"{median('p99_us') / 1000:.2f}"]
    return [*cells, *latency, f"{median('server_pct'):.0f} %", f"{median('client_pct'):.0f} %"]


def ratio_cell(ratios: Sequence[float], digits: int = 2) -> str:
    """The median and the range of ratios."""
    if not ratios:
        return "?"
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f}–{max(ratios):.{digits}f})"


def warm_lines(result: Result) -> list[str]:
    """How many passes warmed the servers, the range over the rounds, and a line for each contestant that a bound
    stopped before two passes agreed. Empty where servers are not warmed.
    """
    warmings = {each: found for each in result.figures if (found := result.warmings(each))}
    if not warmings:
        return []
    lines = ["  warm passes: " + ", ".join(f"{each.name} {_passes(found)}" for each, found in warmings.items())]
    for each, found in warmings.items():
        if unsteady := sum(not warming.steady for warming in found):
            lines.append(
                f"  NOT STEADY: {each.name} in {unsteady} of {len(found)} rounds: measured though no two passes in a "
                f"row had agreed within {DIFFER_PCT_MAX} % after {PASSES_MAX} passes or {WARM_S_MAX:g} s"
            )
    return lines


def _passes(warmings: Sequence[Warming]) -> str:
    low, high = min(each.passes for each in warmings), max(each.passes for each in warmings)
    return str(low) if low == high else f"{low}–{high}"


def floor_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each floor: pass, miss, or not measured."""
    lines: list[str] = []
    for each in verdicts:
        if each.measured is None:
            said, word = "not measured", "none"
        else:
            said = f"{each.measured:,.0f}" if each.floor.at_least else f"{each.measured:.2f}"
            word = "pass" if each.kept else "MISS"
        lines.append(f"  floor {word}: {each.contestant} {each.floor.said}: {said}")
    return lines


def describe_machine(command: str, folder: Path | None, beside: str = "") -> str:
    """What a reader needs to judge the figures: commit, the one it is compared with where there is one, machine,
    versions, disk, load, warming, command."""
    libraries = ["anyio", "trio", "uvloop", "aiosqlite", *(each for each in PEERS if installed(each))]
    place = Path(folder or tempfile.gettempdir())
    facts = [
        ("commit", _commit()),
        *([("beside", beside)] if beside else []),
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("machine", f"{len(os.sched_getaffinity(0))} cores, {_cpu_model()}, Linux {platform.release()}"),
        ("load before", " ".join(f"{each:.2f}" for each in os.getloadavg())),
        ("python", f"{platform.python_implementation()} {platform.python_version()}, msgspec {version('msgspec')}"),
        ("libraries", ", ".join(f"{each} {version(each)}" for each in libraries)),
        ("databases", f"{_file_system(place)}, fdatasync of 4 KiB in {_sync_us(place):.0f} µs (median of {_SYNCS})"),
        ("warming", _WARMING),
        ("command", command),
    ]
    return "\n".join(f"{name + ':':<13}{value}" for name, value in facts)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"{commit} with uncommitted changes" if changed else commit


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        return platform.machine()
    return platform.machine()


def _file_system(place: Path) -> str:
    """The kind of file system that holds a folder, by the longest mount point above it."""
    best, kind = "", "unknown file system"
    real = str(place.resolve()).rstrip("/") + "/"
    try:
        with open("/proc/mounts", encoding="utf-8") as file:
            for line in file:
                _, point, found, *_ = line.split()
                if real.startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                    best, kind = point, found
    except FileNotFoundError:
        return kind
    return kind


def _sync_us(place: Path) -> float:
    """How long the disk takes for the sync that a durable commit waits for, in µs."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=place) as file:
        for number in range(_SYNCS):
            start = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, number * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def progress(text: str) -> None:
    """Show what is being done on one line of stderr, where that is a terminal; empty text clears the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
