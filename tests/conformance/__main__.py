"""`python -m tests.conformance NAME`: performs the runs of that name and tells what came of them."""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .autobahn import VERSION, AutobahnMissing, find_autobahn, perform
from .cases import BUDGET_S, GROUPS, RUNS, Run, counts, faults, runs_of


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 all runs passed, 1 one did not or Autobahn is missing."""
    parser = argparse.ArgumentParser("python -m tests.conformance", description="Autobahn against vixws, both sides.")
    parser.add_argument("name", choices=list(RUNS), help="ci: what every change has to pass; all: everything")
    parser.add_argument("--side", choices=["server", "client"], default="", help="this side of ours only")
    parser.add_argument("--loop", choices=["asyncio", "trio"], default="", help="this loop only")
    parser.add_argument("--group", choices=list(GROUPS), default="", help="this group of cases only")
    parser.add_argument("--keep", type=Path, help="a folder for Autobahn's reports and all output")
    chosen = parser.parse_args(arguments)
    runs = runs_of(chosen.name, chosen.side, chosen.loop, chosen.group)
    try:
        python = find_autobahn()
    except AutobahnMissing as exc:
        print(f"conformance: {exc}", file=sys.stderr)
        return 1
    until = time.monotonic() + BUDGET_S[chosen.name]
    logging.getLogger("vixws").setLevel(logging.ERROR)  # A line for each connection that ends, of which there are 301.
    print(f"Autobahn Testsuite {VERSION} against vixws on CPython {platform.python_version()}")
    print("results by word, of `behavior` / of `behaviorClose`", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [told(run, python, (chosen.keep or Path(folder)).absolute(), until) for run in runs]
    if not outcomes:
        print("conformance: there is no such run", file=sys.stderr)
    return 0 if outcomes and all(outcomes) else 1


def told(run: Run, python: Path, folder: Path, until: float) -> bool:
    """Performs one run, which has to end at `until`, and prints what came of it; returns whether it passed."""
    began = time.monotonic()
    try:
        cases = perform(run, python, folder / run.name, max(1.0, until - began))
    except (RuntimeError, TimeoutError) as exc:
        print(f"{run.name}: FAILED: {exc}", flush=True)
        for name in ("wstest.txt", "echo.txt"):
            print(*(f"  {name}: {line}" for line in last_lines(folder / run.name / name)), sep="\n", flush=True)
        return False
    wrong = faults(run, cases)
    words = f"{counts([case.behavior for case in cases])} / {counts([case.close for case in cases])}"
    seconds = f"{time.monotonic() - began:.0f} s"
    print(f"{run.name:15} {len(cases):3} cases: {words}; {seconds}{': FAILED' if wrong else ''}", flush=True)
    for line in wrong:
        print(f"  {line}")
    return not wrong


def last_lines(path: Path, count: int = 5) -> list[str]:
    """The end of a program's output, each line cut; nothing where there is none."""
    if not path.exists():
        return []
    return [line[:200] for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
