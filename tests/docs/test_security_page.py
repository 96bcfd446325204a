"""docs/security.md is as the table of threats and the markers of the tests have it, and no row is without a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from docs.security import PAGE, main, marked, page, rows_of_tests
from tests.serving import ROOT
from tests.threats import NOT_BUILT, PARTLY_BUILT, THREATS, Threat
from vixws_anyio.config import default, show
from vixws_anyio.config.settings import SETTINGS

ROWS = rows_of_tests()
"""The tests of each row."""


def test_the_page_is_as_table_and_tests_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--check"])

    assert (status, capsys.readouterr().err) == (0, "")


def test_a_page_that_differs_is_told_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / PAGE
    copy.parent.mkdir()
    good = (ROOT / PAGE).read_text(encoding="utf-8")
    copy.write_text(good.replace("| 3 |", "| three |"), encoding="utf-8")

    assert main(["--check"], tmp_path) == 1
    assert "run python -m docs.security" in capsys.readouterr().err
    assert main([], tmp_path) == 0
    assert copy.read_text(encoding="utf-8") == good
    assert page(good, ROWS) == good


def test_rows_have_the_numbers_from_1_to_38_in_order() -> None:
    assert [threat.row for threat in THREATS] == list(range(1, 39))


def test_every_row_has_a_test_unless_its_feature_is_not_built() -> None:
    assert {threat.row for threat in THREATS} - set(ROWS) == set(NOT_BUILT) == {35}


def test_what_is_missing_is_said_of_these_rows_and_no_others() -> None:
    assert {threat.row for threat in THREATS if threat.missing} == PARTLY_BUILT


def test_no_marker_names_a_row_that_there_is_not() -> None:
    assert set(ROWS) - {threat.row for threat in THREATS} == set()


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: str(threat.row))
def test_defaults_are_those_of_the_settings(threat: Threat) -> None:
    known = {setting.key: show(default(setting)).strip('"') for setting in SETTINGS}
    said = threat.defaults()

    assert said == {key: known.get(key) for key in said}
    assert [text for text in threat.settings if text.split(" ")[0] in known and text.split(" ")[0] not in said] == []


def test_a_name_says_the_row_that_its_marker_has() -> None:
    wrong = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        rows: dict[str, set[int]] = {}
        for row, name in marked(tree):
            rows.setdefault(name, set()).add(row)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                words = node.name.split("_")
                if words[:2] in (["test", "row"], ["test", "threat"]) and words[2].isdigit():
                    wrong += [node.name] if int(words[2]) not in rows.get(node.name, set()) else []

    assert wrong == []
