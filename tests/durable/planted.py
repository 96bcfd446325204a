"""Bugs that are planted in a copy of the store, mistakes that somebody could make, and the proof that finds each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.serving import ROOT

from .faults import Faults, build, fail, kill
from .power import Cuts, history

__all__ = ["BUGS", "Bug", "find", "planted"]

HISTORIES, IMAGES = 20, 6
"""Each bug must show within so many; about every second history shows one."""


class Bug(NamedTuple):
    """Which proof finds it, of which mode, and what is replaced: module of `vixws_store.sqlite`, text, other text."""

    proof: str
    synchronous: str
    changes: tuple[tuple[str, str, str], ...]


_COMMIT = (
    '            self._db.execute("COMMIT")\n            self.files.after(self._db)\n            if result.advanced'
)
_UNDO = "\n            self._undo()\n"

BUGS = {
    "it answers before it commits": Bug(
        "kill",
        "FULL",
        (
            ("writer", _COMMIT, "            if result.advanced"),
            (
                "writer",
                "        self.log.make_room(self._db)\n",
                '        if self._db.in_transaction:\n            self._db.execute("COMMIT")\n'
                "        self.log.make_room(self._db)\n",
            ),
        ),
    ),
    "it does not look at its files before it answers": Bug(
        "cut", "FULL", (("writer", _COMMIT, _COMMIT.replace("            self.files.after(self._db)\n", "")),)
    ),
    "it does not sync what it answers": Bug(
        "power", "FULL", (("epochs", 'f"PRAGMA synchronous = {synchronous}"', '"PRAGMA synchronous = NORMAL"'),)
    ),
    "its ids go on behind the highest one that is there": Bug(
        "power",
        "NORMAL",
        (
            ("epochs", "else max(found.limit, last_id)", "else last_id"),
            ("writer", "            last_id += secrets.randbelow(1 << 31) + 1\n", "            secrets.randbelow(2)\n"),
        ),
    ),
    "its mark is not synced": Bug("power", "NORMAL", (("mark", "        _sync(self._descriptor)\n", ""),)),
    "its rooms keep their epoch after a loss": Bug(
        "power", "NORMAL", (("epochs", 'epoch = "" if complete else renew_all(db)', 'epoch = ""'),)
    ),
    "it answers what failed": Bug(
        "fail",
        "FULL",
        (
            (
                "writer",
                f"        except BaseException:{_UNDO}            raise\n        self._appender.committed",
                f"        except sqlite3.Error:{_UNDO}        else:\n            self._appender.committed",
            ),
        ),
    ),
}


def planted(bug: Bug, folder: Path) -> Path:
    """A tree whose store has the bug. Raises: `AssertionError` where what is replaced does not stand there once."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("vixws_core", "vixws_anyio", "vixws_metrics", "tests", "benchmarks"):
        (tree / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "vixws_store", tree / "vixws_store", ignore=shutil.ignore_patterns("__pycache__"))
    for module, old, new in bug.changes:
        path = tree / "vixws_store" / "sqlite" / f"{module}.py"
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{module}: expected once, found {text.count(old)} times: {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return tree


def find(name: str, folder: Path) -> list[str]:
    """What the proof says of a bug: not that a program ended by an error, but what is wrong with what was told."""
    bug, faults, cuts = BUGS[name], Faults(), Cuts()
    tree = planted(bug, folder)
    library = build(folder)
    match bug.proof:
        case "power":
            for number in range(HISTORIES):
                if not cuts.wrong:
                    history(f"planted/{number}", bug.synchronous, IMAGES, cuts, tree)
        case "kill":
            kill(library, bug.synchronous, "asyncio", "known", "kill", 3, faults, tree)
        case "cut":
            fail(library, bug.synchronous, "asyncio", "known", "cut", (1, 4, 8), faults, tree)
        case _:
            fail(library, bug.synchronous, "asyncio", "known", "eio", (3, 1, 1), faults, tree)
    return [each for each in (*faults.wrong, *cuts.wrong) if "Traceback" not in each and "Error:" not in each]
