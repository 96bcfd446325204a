"""The campaign of rooms as durable logs, much smaller: everything is measured, and said beside what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.durable.__main__ import ALL, SMALL, main
from benchmarks.durable.figures import FIGURES, Figure, opening, sizes
from benchmarks.durable.filled import fill
from benchmarks.durable.stopped import stopped
from vixws_store.inspect import check


def test_a_file_that_is_made_by_sql_is_what_a_store_writes(tmp_path: Path) -> None:
    said: list[str] = []
    fill(tmp_path / "a.db", {"africa": 300, "asia": 5}, said.append)
    report = check(tmp_path / "a.db")

    assert report.sound
    assert said == ["making the indexes"]


def test_a_figure_says_whether_it_held() -> None:
    most, least = Figure("memory", 5.0, 4.0, "KiB"), Figure("publishes", 50_000.0, 45_000, "/s", True, "a note")

    assert most.text().split() == ["NOT", "HELD", "memory", "5.00", "KiB", "<=", "4"]
    assert least.text().split() == ["held", "publishes", "50,000", "/s", ">=", "45,000", "(a", "note)"]


@pytest.mark.parametrize("measure", [sizes, opening, stopped])
def test_small_figures_are_measured(measure: object) -> None:
    assert callable(measure)
    figures: list[Figure] = measure(SMALL)

    assert figures
    assert all(figure.value >= 0 for figure in figures)
    delivered = [figure for figure in figures if figure.unit == "messages"]
    assert len(delivered) == (4 if measure is stopped else 0) // 2
    assert all(figure.held for figure in delivered)


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--none"], ["more"]])
def test_wrong_usage_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage: python -m benchmarks.durable" in capsys.readouterr().err
    assert set(ALL) == {*FIGURES, "stopped"}
