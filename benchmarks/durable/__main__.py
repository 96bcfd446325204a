"""The command: `python -m benchmarks.durable [--only NAME,…] [--small] [--folder FOLDER]`.

Prints each figure beside what was asked of it. With `--small` everything is much smaller, for a trial.

exit status: 0 measured, whatever the figures are, 1 a run failed, 2 wrong usage
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.contestants import ServerError
from benchmarks.load import LoadError
from benchmarks.report import progress

from .figures import FIGURES, Figure, Shape
from .peer import PeerError
from .stopped import stopped

__all__ = ["ALL", "SMALL", "main"]

ALL: dict[str, Callable[[Shape], list[Figure]]] = {**FIGURES, "stopped": stopped}

SMALL = Shape(
    rounds=1,
    duration_s=0.5,
    small_rows=100,
    large_rows=5_000,
    file_rows=20_000,
    replay_rows=5_000,
    samples=10,
    slow_clients=4,
    rooms=200,
    broadcast_bytes=4_000_000,
    stopped_s=(1.0,),
)


def main(words: Sequence[str]) -> int:
    """Measures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(ALL), help=f"some of {', '.join(ALL)}")
    parser.add_argument("--small", action="store_true", help="everything much smaller, for a trial")
    parser.add_argument("--folder", type=Path, help="where files are made: the temporary folder")
    asked = parser.parse_args(words)
    names = asked.only.split(",")
    if unknown := set(names) - set(ALL):
        parser.error(f"--only: expected some of {', '.join(ALL)}, got {', '.join(sorted(unknown))}")
    base = SMALL if asked.small else Shape()
    shape = Shape(**{name: getattr(base, name) for name in Shape.__slots__ if name != "folder"}, folder=asked.folder)
    failed = 0
    for name in names:
        load = " ".join(f"{each:.2f}" for each in os.getloadavg())
        try:
            figures = ALL[name](shape)
        except (LoadError, PeerError, ServerError, OSError) as exc:
            progress("")
            print(f"{name}: FAILED: {exc}", flush=True)
            failed += 1
            continue
        progress("")
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, load before {load}"
        print(f"{name}: {machine}", *(figure.text() for figure in figures), "", sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
