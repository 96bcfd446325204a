"""The proofs themselves: each bug that is planted in the store is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .faults import Faults, build, fail, kill
from .planted import BUGS, planted
from .power import Cuts, history, strace_works

HISTORIES, IMAGES = 20, 6
"""Each bug must show within so many; the seeds are always the same ones."""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="expected gcc")
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    bug = BUGS[name]
    tree = planted(bug, tmp_path)
    faults, cuts = Faults(), Cuts()
    match bug.proof:
        case "power":
            if not strace_works():
                pytest.skip("expected strace that may trace")
            for number in range(HISTORIES):
                if not cuts.wrong:
                    history(f"planted/{number}", bug.synchronous, IMAGES, cuts, tree)
        case "kill":
            kill(build(tmp_path), bug.synchronous, "asyncio", "known", "kill", 3, faults, tree)
        case "cut":
            fail(build(tmp_path), bug.synchronous, "asyncio", "known", "cut", (1, 4, 8), faults, tree)
        case "fail":
            fail(build(tmp_path), bug.synchronous, "asyncio", "known", "eio", (3, 1, 1), faults, tree)

    found = [*faults.wrong, *cuts.wrong]
    assert found
    assert not any("Traceback" in each or "Error:" in each for each in found), found
