"""Instructions per message beside an earlier vixws: a comparison that noise of the machine does not reach.

Valgrind counts what a process executes in user space. Each load runs once and twice as long, in processes that do the
same up to there, so the difference is the load alone: no start, no warming, no end. What the kernel does, caches and
branches are not in it; it says whether more is done than before, not how long that takes.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.contestants import root
from benchmarks.counted.loads import LOADS, Load
from benchmarks.house import CPU_RATIO_MAX
from benchmarks.report import progress, table
from benchmarks.sides import RevisionError, commit_of, unpacked
from benchmarks.turns import TurnError, drive

__all__ = ["WAYS", "CountError", "Counted", "counted_text", "main", "per_unit", "read_count", "summary_text"]

WAYS = ("core", "asyncio", "trio")
"""Without a loop, by `counted.core`; or a whole server on a loop, by `counted.server`."""

_COUNT = re.compile(r"^==\d+== I +refs: +([\d,]+)$", re.MULTILINE)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
"""All that a counted process inherits: what is longer would be counted too."""

_EPILOG = """\
ways:
  core     hub, pump and application are given the bytes of reads, with an in-memory log: no loop, no socket
  asyncio  a whole server with its sockets, which finds all that its clients send in a turn at once
  trio     the same on trio

An interrupted comparison ends with the runs that are under way.

exit status: 0 counted (the limit is reported, not judged), 1 a run failed, 2 wrong usage or no valgrind,
130 interrupted
"""


class CountError(Exception):
    """A run could not be counted; the text is for the user."""


class _Usage(Exception):
    """Wrong usage that argparse cannot see."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions per unit of one load in one way, on both sides: one figure for each pass."""

    load: Load
    way: str
    python: str
    this: tuple[float, ...]
    beside: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """This side's instructions by the other's, each the mean of its passes."""
        return sum(self.this) / sum(self.beside)

    @property
    def spread(self) -> float:
        """How far the passes of one side lie apart, by the smallest of them; the larger of both sides'."""
        return max(max(each) / min(each) - 1 for each in (self.this, self.beside))

    @property
    def word(self) -> str:
        """Whether the limit is kept."""
        return "pass" if self.ratio <= CPU_RATIO_MAX else "MISS"


def per_unit(once: int, twice: int, units: int) -> float:
    """Instructions per unit, from those of two processes that differ by so many units.

    Raises: CountError where the longer run took no more.
    """
    if twice <= once:
        raise CountError(f"{twice:,} instructions for two loads, expected more than the {once:,} for one")
    return (twice - once) / units


def read_count(text: str) -> int:
    """What valgrind counted, from its log.

    Raises: CountError where it says nothing of it.
    """
    found = _COUNT.search(text)
    if found is None:
        raise CountError(f"expected a line 'I refs:' of valgrind, got {text[-500:]!r}")
    return int(found[1].replace(",", ""))


def count(python: Path, tree: Path, load: Load, way: str, times: int) -> int:
    """The instructions of one process that runs a load `times` times.

    Raises: CountError, TurnError.
    """
    with tempfile.NamedTemporaryFile(prefix="vixws-bench-") as log:
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command = [*valgrind, f"--log-file={log.name}", *_command(python, load, way, times)]
        _run(command, tree, load, way, times)
        return read_count(log.read().decode(errors="replace"))


def _command(python: Path, load: Load, way: str, times: int) -> list[str]:
    module, last = ("core", str(times)) if way == "core" else ("server", way)
    return [str(python), "-m", f"benchmarks.counted.{module}", load.name, last]


def _run(command: Sequence[str], tree: Path, load: Load, way: str, times: int) -> None:
    if way != "core":
        drive(command, tree, _ENVIRONMENT, load, times)
        return
    done = subprocess.run(command, cwd=tree, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CountError(f"{load.name}: exit status {done.returncode}\n{done.stderr.strip()[-2_000:]}")


def compare(
    python: Path, trees: tuple[Path, Path], load: Load, way: str, passes: int, say: Callable[[str], None]
) -> Counted:
    """Count one load in one way on both sides, which take turns.

    Raises: CountError, TurnError.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for tree in trees:  # leaves compiled modules, so that all that are counted find them
        _run(_command(python, load, way, 1), tree, load, way, 1)
    for number in range(passes):
        for tree, figures in zip(trees, found, strict=True):
            say(f"{load.title}, {way}: pass {number + 1} of {passes}, {tree.name}")
            once, twice = (count(python, tree, load, way, times) for times in (1, 2))
            figures.append(per_unit(once, twice, load.turns * load.units))
    return Counted(load, way, _version(python), tuple(found[0]), tuple(found[1]))


def counted_text(found: Sequence[Counted], label: str) -> str:
    """One row for each load, way and interpreter; `label` is what the other side is called."""
    rows = [["workload", "way", "python", "per", "this", label, "ratio", "passes differ by", "limit"]]
    for each in found:
        figures = [f"{sum(side) / len(side):,.0f}" for side in (each.this, each.beside)]
        apart = f"{100 * each.spread:.3f} %" if len(each.this) > 1 else "one pass"
        ratio = f"{each.ratio:.4f}"
        rows.append([each.load.title, each.way, each.python, each.load.unit, *figures, ratio, apart, each.word])
    return table(rows)


def summary_text(found: Sequence[Counted]) -> str:
    """How many keep the limit."""
    kept = sum(each.word == "pass" for each in found)
    return f"{kept} of {len(found)} ratios are at most {CPU_RATIO_MAX:g}"


def _version(python: Path) -> str:
    done = subprocess.run([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"], capture_output=True)
    return done.stdout.decode().strip()


def _texts(arguments: argparse.Namespace) -> Iterator[str]:
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    yield f"beside:   {arguments.commit}\nvalgrind: {valgrind}, cachegrind; instructions in user space, per unit\n"
    with unpacked(arguments.commit) as trees:
        for tree in trees:
            shutil.copytree(root / "benchmarks" / "counted", tree / "benchmarks" / "counted")
        wanted = itertools.product(arguments.ways, arguments.python, arguments.workloads)
        with ThreadPoolExecutor(arguments.jobs) as pool:  # its threads wait for processes
            asked = [
                pool.submit(compare, python, trees, LOADS[name], way, arguments.passes, progress)
                for way, python, name in wanted
            ]
            try:
                found = [_told(each.result()) for each in asked]
            finally:
                pool.shutdown(cancel_futures=True)
    progress("")
    yield f"{counted_text(found, arguments.commit[:7])}\n\n{summary_text(found)}"


def _told(found: Counted) -> Counted:
    """Say one ratio as soon as it is there; the table has them all."""
    progress("")
    print(f"{found.load.title}, {found.way}, {found.python}: {found.ratio:.4f}", file=sys.stderr, flush=True)
    return found


def _some(text: str, known: Sequence[str], flag: str) -> list[str]:
    found = list(dict.fromkeys(text.split(",")))
    for name in found:
        if name not in known:
            raise _Usage(f"{flag} {name!r}, expected some of {', '.join(known)}")
    return found


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count instructions per message of this vixws and of another revision, under valgrind.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--beside", metavar="REV", required=True, help="the revision to compare with")
    parser.add_argument("--python", metavar="FILE", type=Path, action="append", help="an interpreter (this one); again")
    parser.add_argument(
        "--workloads", metavar="NAMES", default=",".join(LOADS), help=f"some of {','.join(LOADS)} (all)"
    )
    parser.add_argument("--ways", metavar="NAMES", default=",".join(WAYS), help=f"some of {','.join(WAYS)} (all)")
    parser.add_argument("--passes", metavar="N", type=int, choices=range(1, 11), default=1, help="1 to 10 (1)")
    parser.add_argument("--jobs", metavar="N", type=int, choices=range(1, 65), default=1, help="at a time, 1 to 64 (1)")
    arguments = parser.parse_args(argv)
    try:
        if shutil.which("valgrind") is None:
            raise _Usage("expected valgrind on PATH (apt-get install valgrind)")
        arguments.workloads = _some(arguments.workloads, tuple(LOADS), "--workloads")
        arguments.ways = _some(arguments.ways, WAYS, "--ways")
        arguments.python = [each.absolute() for each in arguments.python or [Path(sys.executable)]]
        arguments.commit = commit_of(arguments.beside)
    except (_Usage, RevisionError) as error:
        print(f"benchmarks.instructions: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return arguments


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that the trees are removed."""
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parsed(argv)
    signal.signal(signal.SIGTERM, _end)
    try:
        for text in _texts(arguments):
            print(text, flush=True)
    except (CountError, RevisionError, TurnError, OSError) as error:
        progress("")
        print(f"benchmarks.instructions: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress("")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
