"""Faults at every write and every sync of a commit: the process is killed there, or the disk is full, or broken.

`faults.c` is compiled and preloaded into `faulty`, a program that runs the shipped store on files of its own. Both
sides are judged by a `Ledger`: what was acknowledged is there, in all rooms, what failed may be sent again, and nothing
is stored twice.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio

from tests.serving import ROOT
from vixws_store import SqliteMessageStore

from .faulty import KINDS, SCENES
from .ledger import Ledger
from .power import look_again

__all__ = ["ERRORS", "KILLS", "SCENES", "Faults", "build", "calls_of", "fail", "kill"]

KILLS = ("kill", "kill-after")
ERRORS = tuple(kind for kind in KINDS if kind not in ("count", "cut", *KILLS))
RUN_S_MAX = 170.0


class Faults:
    """What came of some faults."""

    def __init__(self) -> None:
        self.faults = self.failed = self.kills = 0
        self.wrong: list[str] = []

    def add(self, more: Faults) -> None:
        """Adds the counts and the faults of some more."""
        for name in ("faults", "failed", "kills"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.wrong += more.wrong

    def text(self) -> str:
        """The counts, for a person."""
        return (
            f"{self.faults} faults, of which {self.kills} ended the process, "
            f"{self.failed} publishes failed by the others; {len(self.wrong)} wrong"
        )


def build(folder: Path) -> Path:
    """Compiles the library that is preloaded. Raises: `CalledProcessError` where it does not compile."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    assert compiler is not None, "expected gcc, or CC"
    library = folder / "faults.so"
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run((compiler, *flags, "-o", library, Path(__file__).with_name("faults.c"), "-ldl"), check=True)
    return library


def _run(library: Path, folder: str, tree: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "tests.durable.faulty", folder, *map(str, words)),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )


def calls_of(library: Path, synchronous: str, backend: str, scene: str) -> int:
    """How many calls a scene has."""
    with tempfile.TemporaryDirectory(prefix="vixws-faults-") as folder:
        done = _run(library, folder, ROOT, synchronous, backend, scene, "count", 0, 1, 1)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[1])


def fail(
    library: Path,
    synchronous: str,
    backend: str,
    scene: str,
    kind: str,
    numbers: tuple[int, int, int],
    found: Faults,
    tree: Path = ROOT,
) -> None:
    """Lets calls fail, from the first by a step, so many of them, in one process."""
    with tempfile.TemporaryDirectory(prefix="vixws-faults-") as folder:
        done = _run(library, folder, tree, synchronous, backend, scene, kind, *numbers)
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[-1].startswith("done "):
        said = f"ended with {done.returncode}: {done.stderr[-1_500:]}"
        found.wrong.append(f"{scene} {kind} {synchronous} {backend} from call {numbers[0]}: {said}")
        return
    _, faults, failed = lines[-1].split()
    found.faults, found.failed = found.faults + int(faults), found.failed + int(failed)
    found.wrong += [line for line in lines if line.startswith("wrong ")]


def kill(
    library: Path, synchronous: str, backend: str, scene: str, kind: str, at: int, found: Faults, tree: Path = ROOT
) -> None:
    """Kills a process before, or after, one call, and judges what it leaves; not where the scene has no such call."""
    with tempfile.TemporaryDirectory(prefix="vixws-faults-") as folder:
        done = _run(library, folder, tree, synchronous, backend, scene, kind, at, 1, 1)
        if done.returncode != -9:
            if done.returncode or "calls " not in done.stdout:
                found.wrong.append(f"{scene} {kind} call {at}: ended with {done.returncode}: {done.stderr[-1_500:]}")
            return
        ledger = Ledger()
        for line in done.stdout.splitlines():
            ledger.hear(line)
        logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
        anyio.run(_judge, Path(folder) / f"{at}.db", synchronous, ledger, backend=backend)
    found.faults, found.kills = found.faults + 1, found.kills + 1
    found.wrong += [f"{scene} {kind} {synchronous} {backend} call {at}: {each}" for each in dict.fromkeys(ledger.wrong)]


async def _judge(path: Path, synchronous: str, ledger: Ledger) -> None:
    for _ in range(2):
        store = SqliteMessageStore(path, synchronous=synchronous)
        async with store.run():
            await look_again(store, ledger)
