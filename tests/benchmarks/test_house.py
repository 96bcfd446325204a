"""A change is judged by its server's cost beside the cost before, each loop by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import house
from benchmarks.contestants import Contestant, Vixws, root
from benchmarks.house import Comparison, comparison_text, summary_text
from benchmarks.load import build
from benchmarks.rounds import Figures, Result
from benchmarks.sides import Side
from benchmarks.warm import Warming
from benchmarks.workloads import WORKLOADS, Plan
from tests.benchmarks.processes import children, command_line


def figures(cpu_us: float, kib: float) -> Figures:
    return Figures(
        1.0, cpu_us, p50_us=1.0, p99_us=2.0, kib=kib, server_pct=50.0, client_pct=10.0, warming=Warming(2, True)
    )


def compared(name: str, this: list[float], beside: list[float], loop: str = "trio") -> Comparison:
    ours, theirs = Side(Vixws(loop), "this", Path("/a")), Side(Vixws(loop), "60c4dfb", Path("/b"))
    found: dict[Contestant, list[Figures]] = {
        ours: [figures(each, each) for each in this],
        theirs: [figures(each, each) for each in beside],
    }
    return Comparison(Result(WORKLOADS[name], found), ours, theirs)


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    found = compared("echo", this=[1.0, 9.0, 4.0], beside=[2.0, 10.0, 1.0])

    assert found.ratios == [0.5, 0.9, 4.0]
    assert found.middle == 0.9


@pytest.mark.parametrize(
    ("name", "cost", "word"),
    [
        ("echo", 103.0, "pass"),
        ("echo", 103.1, "MISS"),
        ("publish", 103.1, "MISS"),
        ("idle", 103.1, "pass"),
        ("idle", 105.0, "pass"),
        ("idle", 105.1, "MISS"),
    ],
)
def test_cpu_may_grow_by_3_percent_and_memory_by_5(name: str, cost: float, word: str) -> None:
    found = compared(name, this=[cost], beside=[100.0])

    assert found.word == word
    assert f"  limit {word}: vixws trio ≤ {found.limit:g} × 60c4dfb: {cost / 100:.3f}" in comparison_text(found)


def test_what_cost_nothing_before_is_not_judged() -> None:
    found = compared("idle", this=[1.0], beside=[0.0])

    assert found.word == "none"
    assert "  limit none: vixws trio ≤ 1.05 × 60c4dfb: not measured" in comparison_text(found)


def test_passes_are_told_for_both_sides() -> None:
    text = comparison_text(compared("room", this=[1.0], beside=[1.0]))

    assert text.endswith("  warm passes: vixws trio (this) 2, vixws trio (60c4dfb) 2")


def test_all_ratios_stand_together_at_the_end() -> None:
    text = summary_text(
        [
            compared("echo-single", this=[9.0], beside=[10.0], loop="asyncio"),
            compared("echo-single", this=[11.0], beside=[10.0]),
        ],
        "60c4dfb",
    )

    head, _, *rows = text.splitlines()
    assert "1 of 2 limits kept" in head
    assert [row.split() for row in rows] == [
        ["echo,", "125", "B,", "100×1", "asyncio", "0.900", "(0.900–0.900)", "1.03", "pass"],
        ["echo,", "125", "B,", "100×1", "trio", "1.100", "(1.100–1.100)", "1.03", "MISS"],
    ]


def test_each_workload_is_measured_on_each_loop(tmp_path: Path) -> None:
    plan = Plan(build(tmp_path), 1, duration_s=1.5, warmup_s=0.02, settle_s=0.02, pass_s=0.05)

    texts = list(house.texts([Vixws("asyncio"), Vixws("trio")], ["publish"], (root, root), "itself", plan))

    assert ["vixws asyncio (itself)" in text for text in texts] == [True, False, False]
    assert ["vixws trio (itself)" in text for text in texts] == [False, True, False]
    assert texts[-1].startswith("this beside itself")


@pytest.mark.skipif(not (root / ".git").exists(), reason="wants the repository")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_comparison_leaves_nothing_behind(tmp_path: Path, number: int, status: int) -> None:
    command = [sys.executable, "-m", "benchmarks", "house", "--beside", "HEAD", "--duration", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    runner = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    servers: list[int] = []
    try:
        while runner.poll() is None:
            running = {pid: command_line(pid) for pid in children(runner.pid)}
            servers = [pid for pid, said in running.items() if b"serve_telling" in said]
            if servers and any(b"wsload" in said for said in running.values()):
                break
            os.sched_yield()
        os.killpg(runner.pid, number)  # as a terminal does
        found = runner.wait(20)
    finally:
        runner.kill()

    assert (found, len(servers)) == (status, 1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(servers[0], 0)
