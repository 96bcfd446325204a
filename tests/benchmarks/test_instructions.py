"""Instructions are counted as the difference of two runs, and a machine that cannot count says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contestants import root
from benchmarks.counted.loads import LOADS, frames_in, text_frame
from benchmarks.instructions import Counted, CountError, counted_text, per_unit, read_count, summary_text
from benchmarks.turns import drive

LOG = """\
==7== Cachegrind, a cache and branch-prediction profiler
==7== I   refs:      1,439,127,522
"""


def test_the_start_cancels_out() -> None:
    assert per_unit(once=1_000_000 + 600 * 40, twice=1_000_000 + 1_200 * 40, units=600) == 40


def test_a_longer_run_that_took_no_more_is_told() -> None:
    with pytest.raises(CountError, match="expected more than the 7 for one"):
        per_unit(once=7, twice=7, units=1)


def test_the_count_is_read_from_the_log() -> None:
    assert read_count(LOG) == 1_439_127_522
    with pytest.raises(CountError, match="I refs"):
        read_count("==7== Cachegrind, a cache and branch-prediction profiler\n")


@pytest.mark.parametrize(("this", "word"), [(1_030.0, "pass"), (1_031.0, "MISS")])
def test_the_limit_is_that_of_times(this: float, word: str) -> None:
    found = Counted(LOADS["room"], "core", "3.13.0", this=(this, this), beside=(1_000.0, 1_010.0))

    assert found.spread == pytest.approx(0.01)
    assert Counted(LOADS["room"], "core", "3.13.0", (this,), (1_000.0,)).word == word
    assert "1.000 %" in counted_text([found], "60c4dfb")


def test_ratios_that_keep_the_limit_are_counted() -> None:
    rows = [Counted(LOADS["echo"], "core", "3.13.0", (each,), (100.0,)) for each in (90.0, 110.0)]

    assert summary_text(rows) == "1 of 2 ratios are at most 1.03"
    assert [row.split()[-1] for row in counted_text(rows, "60c4dfb").splitlines()[1:]] == ["pass", "MISS"]


def test_all_messages_of_a_load_have_the_same_size() -> None:
    for load in LOADS.values():
        sizes = {len(data) for turn in (0, 99) for data in load.sent(turn).values()}
        assert sizes == {load.depth * (2 + 4 + 125)}


def test_a_message_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="126 bytes, expected at most 125"):
        text_frame("x" * 126)


def test_only_whole_frames_are_counted() -> None:
    assert frames_in(b"\x81\x02hi\x81\x7e\x00\x03abc\x81\x05he") == (2, 11)


@pytest.mark.parametrize("name", LOADS)
def test_every_load_gets_its_answers_without_a_loop(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "benchmarks.counted.core", name, "0"]  # warming is checked
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", ["echo-single", "room", "publish"])
def test_every_load_gets_its_answers_on_a_loop(name: str, backend: str) -> None:
    command = [sys.executable, "-m", "benchmarks.counted.server", name, backend]

    drive(command, root, dict(os.environ), replace(LOADS[name], turns=1), 1)


def test_without_valgrind_one_line_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.instructions", "--beside", "HEAD"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "benchmarks.instructions: expected valgrind on PATH (apt-get install valgrind)\n"
