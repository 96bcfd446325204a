"""Builds and runs `wsload`, the load client, and reads its one JSON object."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["LoadError", "build", "measure", "source"]

source = Path(__file__).parent / "wsload.c"
"""The load client's source."""

_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


class LoadError(Exception):
    """The load client could not be built, or its run failed; the text is for the user."""


def build(folder: Path | None = None) -> Path:
    """Compile the load client with `$CC`, or gcc, and return the program.

    The program's name carries a hash of the source, so a build is done once for each version of it. `folder`
    is `benchmarks/.build` where not given.

    Raises: LoadError where there is no compiler or the source does not compile.
    """
    folder = folder or source.parent / ".build"
    program = folder / f"wsload-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        raise LoadError(f"no C compiler {compiler!r} for {source.name}: install gcc or set CC")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *_FLAGS, "-o", str(unfinished), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LoadError(f"{source.name} does not compile:\n{done.stderr.strip()}")
    unfinished.rename(program)  # atomic, so a second builder never runs half a program
    return program


def measure(program: Path, arguments: Sequence[str], limit_s: float) -> dict[str, Any]:
    """Run the load client once and return what it measured.

    Raises: LoadError where it says that the run failed, or takes longer than `limit_s`.
    """
    try:
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise LoadError(f"wsload {' '.join(arguments)}: no result within {limit_s:g} s") from None
    try:
        found = msgspec.json.decode(done.stdout, type=dict[str, Any])
    except msgspec.DecodeError:
        raise LoadError(f"wsload {' '.join(arguments)}: {done.stderr.strip() or done.returncode}") from None
    if done.returncode != 0:
        raise LoadError(str(found.get("error", f"wsload ended with status {done.returncode}")))
    if found.get("undelivered", 0) != 0:
        raise LoadError(f"{found['undelivered']} deliveries never came")
    return found
