"""Some of each proof of `python -m tests.durable`, other ones with each commit: kills, power cuts, faults, bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from tests.seeds import base_seed
from tests.store.flipping import aimed, anywhere, flip, in_rows, make_clean

from .faults import ERRORS, KILLS, Faults, build, fail, kill
from .filling import fill_apart, may_mount
from .kills import ACKS_MIN, Killed, kills
from .power import Cuts, history, strace_works

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="expected gcc")
needs_strace = pytest.mark.skipif(not strace_works(), reason="expected strace that may trace")


@pytest.mark.threat(23)
@pytest.mark.parametrize(("synchronous", "backend"), [("FULL", "asyncio"), ("NORMAL", "trio")])
def test_a_server_that_is_killed_four_times_loses_doubles_and_skips_nothing(synchronous: str, backend: str) -> None:
    found = Killed()
    kills(f"{base_seed()}/kills", synchronous, backend, 4, found)

    assert found.wrong == []
    assert found.kills == 4
    assert found.acks_least >= ACKS_MIN
    assert found.open_kills >= 2
    assert found.delivered > 0


@needs_strace
@pytest.mark.threat(27)
@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_power_cuts_take_nothing_that_is_synced_and_no_place_is_given_twice(synchronous: str) -> None:
    cuts = Cuts()
    history(f"{base_seed()}/power", synchronous, 9, cuts)

    assert cuts.wrong == []
    assert cuts.images == 9
    assert cuts.told > 9
    assert cuts.unsynced > 0


@needs_gcc
@pytest.mark.threat(23)
@pytest.mark.threat(24)
def test_a_commit_may_fail_or_end_at_any_of_its_calls(tmp_path: Path) -> None:
    random, found, library = Random(f"{base_seed()}/faults"), Faults(), build(tmp_path)
    for kind in random.sample(ERRORS, 3):
        synchronous, backend = random.choice((("FULL", "trio"), ("NORMAL", "asyncio")))
        fail(library, synchronous, backend, "known", kind, (random.randrange(1, 4), 3, 99), found)
    for kind in KILLS:
        kill(library, random.choice(("FULL", "NORMAL")), "asyncio", "known", kind, random.randrange(1, 15), found)
    errors = found.faults - found.kills
    fail(library, "FULL", "asyncio", "known", "cut", (random.randrange(1, 4), 3, 99), found)

    assert found.wrong == []
    assert found.kills == len(KILLS)
    assert errors >= 12
    assert found.failed >= errors


@pytest.mark.skipif(not may_mount(), reason="expected the right to mount")
@pytest.mark.threat(24)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_file_system_that_is_full_and_grows_loses_nothing(backend: str, tmp_path: Path) -> None:
    acked, failed, wrong = fill_apart(tmp_path, backend)

    assert wrong == []
    assert acked > 100
    assert failed >= 40


@pytest.mark.threat(26)
def test_bits_that_change_are_never_served_wrong(tmp_path: Path) -> None:
    random, path = Random(f"{base_seed()}/flips"), tmp_path / "a.db"
    clean = make_clean(tmp_path / "clean.db")
    rows = flip(clean, path, in_rows(clean, path, random, 20), all_change=True)
    rest = flip(clean, path, [*anywhere(clean, random, 60), *aimed(clean, path, random, 30)])

    assert rows == (20, 20, [])
    assert (rest.bits, rest.wrong) == (90, [])
    assert rest.changed > 10
