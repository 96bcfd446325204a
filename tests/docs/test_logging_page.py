"""docs/logging.md says of the log what the code has: fields, levels, bounds, and where the page is listed."""

from __future__ import annotations

import json
import logging
import re

from tests.serving import ROOT
from vixws_anyio.cli.loglines import LEVELS, LINE_MAX, TALKATIVE, TRACE_LINES_MAX, JsonLines
from vixws_anyio.config.settings import SETTINGS
from vixws_anyio.logs import HIDDEN, SECRET_LEAST

PAGE = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")


def column(title: str) -> list[str]:
    """The first cells of the table that begins so."""
    rows = PAGE[PAGE.index(f"| {title} |") :].partition("\n\n")[0].splitlines()[2:]
    return [row.split(" | ")[0].removeprefix("| ").strip("`") for row in rows]


def test_the_fields_are_those_of_a_line() -> None:
    exc = ValueError()
    line = JsonLines().format(logging.LogRecord("vixws", logging.INFO, "", 0, "", (), (ValueError, exc, None)))

    assert column("Field") == list(json.loads(line))


def test_the_settings_are_those_of_the_table() -> None:
    ours = [setting for setting in SETTINGS if setting.section == "log"]

    assert column("Setting") == [setting.path for setting in ours]
    for setting in ours:
        assert f"| `{setting.path}` | `{setting.flag}` | `{setting.variable}` |" in PAGE


def test_the_levels_are_those_that_can_be_set() -> None:
    assert column("Level") == list(reversed(LEVELS))
    assert all(f"`{name}`" in PAGE for name in TALKATIVE)


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"cut at {LINE_MAX:,} characters" in PAGE
    assert f"its last {TRACE_LINES_MAX} lines" in PAGE
    assert f"values of {SECRET_LEAST} characters" in PAGE
    assert f"`{HIDDEN}`" in PAGE


def test_the_page_is_listed_where_the_others_are() -> None:
    assert re.search(r"\(docs/logging\.md\)", (ROOT / "README.md").read_text(encoding="utf-8"))
