"""Two checkouts of vixws side by side: copies of both, and servers that are asked which one they run."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.contestants import Running, ServerError, Vixws, root, serving

__all__ = ["RevisionError", "Side", "Told", "check", "commit_of", "unpacked"]

_LAUNCHER = Path(__file__).parent / "serve_telling.py"
_PACKAGES = "vixws_*"


class RevisionError(Exception):
    """A revision is none, or has nothing to measure; the text is for the user."""


class Told(msgspec.Struct, frozen=True):
    """What a server said of itself."""

    pid: int
    files: dict[str, str]
    """The `__init__.py` of each package."""


@dataclass(frozen=True, slots=True)
class Side:
    """The server of one tree."""

    server: Vixws
    label: str
    """Which tree, in the tables."""
    tree: Path

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.server.name} ({self.label})"

    @contextlib.contextmanager
    def started(self, application: str, store: Path | None, fill: int) -> Generator[Running, None, None]:
        """Its server from ready line to end.

        Raises: ServerError also where the server runs another tree's packages.
        """
        del fill
        with tempfile.TemporaryDirectory(prefix="vixws-bench-") as folder:
            told = Path(folder) / "told.json"
            command = [sys.executable, "-P", str(_LAUNCHER), str(told), *self.server.arguments(application, store)]
            with serving(command, self.tree) as running:
                check(msgspec.json.decode(told.read_bytes(), type=Told), self, running)
                yield running


def check(told: Told, side: Side, running: Running) -> None:
    """Make sure that what was told comes from the measured process, and all packages from its tree.

    Raises: ServerError.
    """
    if told.pid != running.pid:
        raise ServerError(f"{side.name}: process {told.pid} told its files, expected {running.pid}, which serves")
    tree = side.tree.resolve()
    for name, file in told.files.items():
        if Path(file).resolve() != tree / name / "__init__.py":
            raise ServerError(f"{side.name}: {name} comes from {file}, expected {tree / name / '__init__.py'}")


def commit_of(revision: str, checkout: Path = root) -> str:
    """The full hash of a revision's commit.

    Raises: RevisionError where the checkout's repository has no such commit.
    """
    try:
        found = _git(checkout, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except RevisionError as error:
        raise RevisionError(f"{revision!r}: expected a commit of this repository ({error})") from None
    return found.decode().strip()


@contextlib.contextmanager
def unpacked(commit: str, checkout: Path = root) -> Generator[tuple[Path, Path], None, None]:
    """Copies of a checkout's packages as they are and as they were in a commit, for the length of a block.

    Both are copies, so that neither starts with compiled files and edits during a run change nothing. Both hold
    the benchmark applications as they are.

    Raises: RevisionError where the commit holds no packages.
    """
    with tempfile.TemporaryDirectory(prefix="vixws-bench-") as folder:
        this, beside = Path(folder) / "this", Path(folder) / "beside"
        unwanted = shutil.ignore_patterns("__pycache__")
        for package in checkout.glob(_PACKAGES):
            if (package / "__init__.py").is_file():
                shutil.copytree(package, this / package.name, ignore=unwanted)
        with tarfile.open(fileobj=io.BytesIO(_git(checkout, "archive", commit, "--", _PACKAGES))) as archive:
            archive.extractall(beside, filter="data")
        for tree in (this, beside):
            shutil.copytree(checkout / "benchmarks" / "apps", tree / "benchmarks" / "apps", ignore=unwanted)
            shutil.copy(checkout / "benchmarks" / "__init__.py", tree / "benchmarks")
        yield this, beside


def _git(checkout: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, check=False)
    except FileNotFoundError:
        raise RevisionError("expected git on PATH") from None
    if done.returncode != 0:
        raise RevisionError(done.stderr.decode(errors="replace").strip().removeprefix("fatal: "))
    return done.stdout
