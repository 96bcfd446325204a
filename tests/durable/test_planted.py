"""The proofs themselves: bugs that are planted in the store are found; of the slow ones one, another by each commit."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from tests.seeds import base_seed

from .planted import BUGS, find
from .power import strace_works

QUICK = [name for name, bug in BUGS.items() if bug.proof != "power"]
SLOW = [name for name, bug in BUGS.items() if bug.proof == "power"]


@pytest.mark.skipif(shutil.which("gcc") is None or not strace_works(), reason="expected gcc, and strace that may trace")
def test_planted_bugs_are_found(tmp_path: Path) -> None:
    for number, name in enumerate((*QUICK, Random(f"{base_seed()}/planted").choice(SLOW))):
        folder = tmp_path / str(number)
        folder.mkdir()

        assert find(name, folder) != [], name
