"""A file system that fills up under a store, and grows: `unshare -m python -m tests.durable.filling FOLDER BACKEND`.

FOLDER becomes a tmpfs of its own in the process's own view of the files, so that nothing is left of it. The last line
is `done ACKED FAILED`, those before it say what is wrong.
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

from .faulty import LIMITS, Teller, keys_of, resent
from .ledger import Ledger
from .power import look_again

__all__ = ["fill", "fill_apart", "may_mount"]

SMALL, LARGE = "600k", "16m"
FAILURES = 40
"""Publishes that fail before the file system grows."""

COMMITS_MAX = 400
RUN_S_MAX = 60.0


def may_mount() -> bool:
    """Whether this process may have file systems of its own."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ("unshare", *_flags(), "mount", "-t", "tmpfs", "none", folder)
        return not subprocess.run(command, capture_output=True, check=False).returncode


def _flags() -> tuple[str, ...]:
    return ("-m",) if os.geteuid() == 0 else ("-r", "-m")


def fill_apart(folder: Path, backend: str, tree: Path = ROOT) -> tuple[int, int, list[str]]:
    """Fills a file system in a process of its own; how many were acknowledged and failed, and what is wrong."""
    program = (sys.executable, "-m", "tests.durable.filling", str(folder), backend)
    done = subprocess.run(
        ("unshare", *_flags(), *program),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[-1].startswith("done "):
        return 0, 0, [f"ended with {done.returncode}: {done.stderr[-1_500:]}"]
    _, acked, failed = lines[-1].split()
    return int(acked), int(failed), lines[:-1]


async def fill(path: Path) -> tuple[int, int, list[str]]:
    """Publishes into a file system until it is full, has it grow, and goes on."""
    store = SqliteMessageStore(path, limits=LIMITS)
    one = Teller(store, Ledger(), False)
    async with store.run(one.post):
        number = 0
        while one.failed < FAILURES and number < COMMITS_MAX:
            one.send(keys_of(number))
            await one.answered()
            number += 1
        acked, failed = len(one.ledger.acked), one.failed
        subprocess.run(("mount", "-o", f"remount,size={LARGE}", str(path.parent)), check=True)
        await resent(store, one)
    store = SqliteMessageStore(path)
    async with store.run():
        await look_again(store, one.ledger)
    return acked, failed, list(dict.fromkeys(one.ledger.wrong))


def main(folder: str, backend: str) -> None:
    """Mounts, fills and tells."""
    logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", folder), check=True)
    acked, failed, wrong = anyio.run(fill, Path(folder) / "a.db", backend=backend)
    print(*wrong, f"done {acked} {failed}", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
