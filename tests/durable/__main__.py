"""All of each proof: `python -m tests.durable BASE [NAME,…]`; status 1 where something is wrong.

Names are `kills`, `power`, `faults`, `faults-process`, `filling`, `flips` and `planted`; the seeds are made of BASE.
Each prints what came of it, with what is wrong below, 20 lines at most. On a terminal a line shows how far it is.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final, TypeVar

from benchmarks.report import progress
from tests.store.flipping import aimed, anywhere, flip, in_rows, make_clean

from .faults import ERRORS, KILLS, Faults, build, calls_of, fail, kill
from .filling import fill_apart, may_mount
from .kills import Killed, kills
from .planted import BUGS, find
from .power import Cuts, history

__all__ = ["PROOFS", "main"]

T = TypeVar("T")

SHOWN_MAX: Final = 20
BACKENDS: Final = ("asyncio", "trio")
MODES: Final = ("FULL", "NORMAL")
KILLS_EACH, KILLS_PART = 50, 10
"""Kills of each mode on each loop, and those of one file in a row."""

IMAGES: Final = {"NORMAL": 300, "FULL": 750}
IMAGES_PART: Final = 15
FAULTS_PART: Final = 25
"""Faults of one process."""

FLIPS: Final = {"in rows that are live": 80, "anywhere": 400, "in rooms, values, counter and indexes": 200}


def _each(name: str, function: Callable[[Any], T], tasks: Sequence[Any]) -> Iterable[T]:
    """Runs tasks in as many processes as there are cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, done in enumerate(pool.map(function, tasks), 1):
            progress(f"{name}: {number} of {len(tasks)}")
            yield done
    progress("")


def _kill_some(task: tuple[str, str, str]) -> Killed:
    seed, synchronous, backend = task
    found = Killed()
    try:
        kills(seed, synchronous, backend, KILLS_PART, found)
    except Exception as exc:
        found.wrong.append(f"{seed}: {type(exc).__name__}: {exc}")
    return found


def _kills(base: str) -> list[str]:
    wrong: list[str] = []
    for synchronous in MODES:
        for backend in BACKENDS:
            tasks = [(f"{base}/{synchronous}/{n}", synchronous, backend) for n in range(KILLS_EACH // KILLS_PART)]
            whole = Killed()
            for part in _each(f"kills, {synchronous}, {backend}", _kill_some, tasks):
                whole.add(part)
            print(f"  {synchronous}, {backend}: {whole.text()}", flush=True)
            wrong += whole.wrong
    return wrong


def _cut_some(task: tuple[str, str]) -> Cuts:
    logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
    cuts = Cuts()
    try:
        history(*task, IMAGES_PART, cuts)
    except Exception as exc:
        cuts.wrong.append(f"{task[0]}: {type(exc).__name__}: {exc}")
    return cuts


def _power(base: str) -> list[str]:
    wrong: list[str] = []
    for synchronous, count in IMAGES.items():
        whole = Cuts()
        tasks = [(f"{base}/{number}", synchronous) for number in range(count // IMAGES_PART)]
        for part in _each(f"power, {synchronous}", _cut_some, tasks):
            whole.add(part)
        print(f"  {synchronous}: {whole.text()}", flush=True)
        wrong += whole.wrong
    return wrong


def _fault_some(task: tuple[Any, ...], library: Path) -> Faults:
    found = Faults()
    name, synchronous, backend, scene, kind, at = task
    if name == "fail":
        fail(library, synchronous, backend, scene, kind, at, found)
    else:
        kill(library, synchronous, backend, scene, kind, at, found)
    return found


def _faults(base: str, synchronous: str, backend: str) -> list[str]:
    del base  # Every call has its turn.
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vixws-faults-") as folder:
        library = build(Path(folder))
        for scene in ("new", "known", "emptied"):
            # The mark's own writes, and a probe's, may be some more in another run.
            most = calls_of(library, synchronous, backend, scene) + 8
            tasks: list[tuple[Any, ...]] = []
            for kind in (*ERRORS, *(("cut",) if scene == "known" else ())):
                for first in range(1, most + 1, FAULTS_PART):
                    tasks.append(("fail", synchronous, backend, scene, kind, (first, 1, FAULTS_PART)))
            for at in range(1, most + 1, 1 if scene != "emptied" else 3):
                tasks += [("kill", synchronous, backend, scene, kind, at) for kind in KILLS]
            whole = Faults()
            for part in _each(f"faults, {synchronous}, {scene}", partial(_fault_some, library=library), tasks):
                whole.add(part)
            print(f"  {synchronous}, {backend}, {scene}, {most - 8} calls: {whole.text()}", flush=True)
            wrong += whole.wrong
    return wrong


def _filling(base: str) -> list[str]:
    del base
    if not may_mount():
        print("  not done: this process may not mount")
        return []
    wrong: list[str] = []
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory(prefix="vixws-filling-") as folder:
            acked, failed, found = fill_apart(Path(folder), backend)
        print(f"  {backend}: {acked} acknowledged before it was full, {failed} failed, {len(found)} wrong")
        wrong += found
    return wrong


def _flips(base: str) -> list[str]:
    logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vixws-flips-") as folder:
        path = Path(folder) / "a.db"
        clean = make_clean(Path(folder) / "clean.db")
        for name, count in FLIPS.items():
            random = Random(f"{base}/{name}")
            if name == "anywhere":
                places = anywhere(clean, random, count)
            else:
                places = (aimed if "rooms" in name else in_rows)(clean, path, random, count)
            found = flip(clean, path, places, all_change="live" in name)
            rest = "none served wrong, all of those found" if not found.wrong else f"{len(found.wrong)} wrong"
            print(f"  {found.bits} bits {name}: {found.changed} changed what the file says, {rest}", flush=True)
            wrong += found.wrong
    return wrong


def _planted(base: str) -> list[str]:
    del base  # Their seeds are always the same.
    wrong: list[str] = []
    for name in BUGS:
        with tempfile.TemporaryDirectory(prefix="vixws-planted-") as folder:
            found = find(name, Path(folder))
        print(f"  {name}: {f'found, {found[0]:.100}' if found else 'not found'}", flush=True)
        wrong += [] if found else [f"not found: {name}"]
    return wrong


PROOFS: Final[dict[str, Callable[[str], list[str]]]] = {
    "kills": _kills,
    "power": _power,
    "faults": partial(_faults, synchronous="FULL", backend="asyncio"),
    "faults-process": partial(_faults, synchronous="NORMAL", backend="trio"),
    "filling": _filling,
    "flips": _flips,
    "planted": _planted,
}


def main(words: Sequence[str]) -> int:
    """Runs the proofs; returns the exit status."""
    names = words[1].split(",") if len(words) == 2 else list(PROOFS)
    if not 1 <= len(words) <= 2 or set(names) - set(PROOFS):
        print(f"usage: python -m tests.durable BASE [NAME,…], names: {' '.join(PROOFS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        began = monotonic()
        print(f"{name}: Python {platform.python_version()}, seeds of {words[0]}", flush=True)
        wrong = PROOFS[name](words[0])
        for line in wrong[:SHOWN_MAX]:
            print(f"  WRONG: {line}")
        print(
            f"  {'held' if not wrong else f'NOT HELD: {len(wrong)} wrong'}, {monotonic() - began:.0f} s\n", flush=True
        )
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
