"""vixws beside an earlier vixws: what a change costs, on each loop, in the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contestants import Vixws
from benchmarks.report import figure_cells, figure_heads, progress, ratio_cell, table, warm_lines
from benchmarks.rounds import Result, run
from benchmarks.sides import Side
from benchmarks.workloads import WORKLOADS, Plan

__all__ = [
    "CPU_RATIO_MAX",
    "DURATION_S",
    "KIB_RATIO_MAX",
    "PASS_S",
    "ROUNDS",
    "SETTLE_S",
    "WARMUP_S",
    "Comparison",
    "comparison_text",
    "names",
    "summary_text",
    "texts",
]

CPU_RATIO_MAX = 1.03
"""Server CPU per event, beside the other revision's in the same round."""

KIB_RATIO_MAX = 1.05
"""Memory per idle session, beside the other revision's in the same round."""

ROUNDS, DURATION_S, WARMUP_S, SETTLE_S, PASS_S = 7, 1.5, 0.2, 0.1, 0.6
"""Many short runs rather than few long ones: what other work does to a machine comes and goes within a run, and a
median over rounds leaves it out. One round of all workloads on both loops took 126 s on two cores with
other work."""

names = ("echo", "echo-single", "room", "publish", "idle")
"""The workloads that are compared, in their default shapes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One workload on one loop, on both sides."""

    result: Result
    this: Side
    beside: Side

    @property
    def ratios(self) -> list[float]:
        """This side's cost by the other's, round by round."""
        return self.result.ratios(self.this, self.beside)

    @property
    def limit(self) -> float:
        """What the median of the ratios may be."""
        return CPU_RATIO_MAX if self.result.workload.cost else KIB_RATIO_MAX

    @property
    def middle(self) -> float | None:
        """The median of the ratios; None where the other side's cost was never above zero."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def word(self) -> str:
        """Whether the limit is kept."""
        if self.middle is None:
            return "none"
        return "pass" if self.middle <= self.limit else "MISS"


def texts(
    servers: Sequence[Vixws], chosen: Sequence[str], trees: tuple[Path, Path], label: str, plan: Plan
) -> Iterator[str]:
    """Measure and describe: each workload on each loop, then all ratios together. `trees` are this one and the
    other; `label` is what the other is called.

    Raises: LoadError, ServerError.
    """
    found: list[Comparison] = []
    for name in chosen:
        for server in servers:
            this, beside = Side(server, "this", trees[0]), Side(server, label, trees[1])
            result = run(replace(WORKLOADS[name], floors=()), [this, beside], plan, progress)
            progress("")
            found.append(Comparison(result, this, beside))
            yield comparison_text(found[-1])
    yield summary_text(found, label)


def comparison_text(found: Comparison) -> str:
    """One workload on one loop: the medians of both sides, the ratio round by round, the limit, the passes."""
    result, this, beside = found.result, found.this, found.beside
    rows = [
        ["", *figure_heads(result.workload), f"× {beside.label}"],
        [this.name, *figure_cells(result, this), ratio_cell(found.ratios, 3)],
        [beside.name, *figure_cells(result, beside), ""],
    ]
    verdict = f"  limit {found.word}: {this.server.name} ≤ {found.limit:g} × {beside.label}: {_said(found.middle)}"
    return "\n".join([result.workload.title, table(rows), verdict, *warm_lines(result)])


def summary_text(found: Sequence[Comparison], label: str) -> str:
    """All ratios beside their limits."""
    rows = [["", "loop", f"× {label}", "limit", ""]]
    for each in found:
        loop = each.this.server.name.removeprefix("vixws ")
        rows.append([each.result.workload.title, loop, ratio_cell(each.ratios, 3), f"{each.limit:g}", each.word])
    kept = sum(each.word == "pass" for each in found)
    head = f"this beside {label}: the median over the rounds of each round's ratio; {kept} of {len(found)} limits kept"
    return "\n".join([head, table(rows)])


def _said(middle: float | None) -> str:
    return "not measured" if middle is None else f"{middle:.3f}"
