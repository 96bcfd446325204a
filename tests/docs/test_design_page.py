"""docs/design.md names modules that exist, and for each decision a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.serving import ROOT

PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
COMING = PAGE.index("## Where each coming feature goes")
DECIDED = PAGE[PAGE.index("## Who decides what") : PAGE.index("## The path of one publish")]
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| ((?:`[\w/]+` \w+(?:, )?)+) \|$", DECIDED, re.MULTILINE)
OWN = ("hub", "wire", "app", "client")
"""Folders of the core: what the page names without the package."""


def path_of(name: str) -> Path:
    """Where a module lies that the page names."""
    return ROOT / ("vixws_core" if name.split("/")[0] in OWN or "/" not in name else "") / f"{name}.py"


def test_every_row_of_the_table_has_a_module_and_a_test() -> None:
    lines = [line for line in DECIDED.splitlines() if line.startswith("| ")]

    assert len(lines) - 1 == len(ROWS) > 15
    assert [what for what, where, _ in ROWS if not re.search(r"`[a-z_]+(/[a-z_]+)*`", where)] == []


@pytest.mark.parametrize(("what", "where", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_what_decides_exists_and_is_tested(what: str, where: str, tests: str) -> None:
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*)`", where)
    modules = [name for name in named if path_of(name).is_file()]
    code = "".join(path_of(name).read_text() for name in modules)
    missing = [name for name in named if name not in modules and f"def {name}(" not in code]

    assert missing == []
    for file, word in re.findall(r"`([\w/]+)` (\w+)", tests):
        assert re.search(rf"^(async )?def test_\w*{word}", (ROOT / "tests" / f"{file}.py").read_text(), re.MULTILINE), (
            word
        )


def test_modules_that_the_page_names_exist() -> None:
    names = set(re.findall(rf"`((?:{'|'.join(OWN)}|vixws_\w+|tests|docs)(?:/\w+)+)`", PAGE[:COMING]))

    assert len(names) > 20
    assert sorted(name for name in names if not path_of(name).is_file() and not is_test(name)) == []


def is_test(name: str) -> bool:
    """Whether a test is meant, named from the folder of the tests."""
    return (ROOT / "tests" / f"{name}.py").is_file()


def test_files_that_the_page_names_exist() -> None:
    names = set(re.findall(r"`((?:tests|docs|benchmarks|\.ci)(?:/[\w.]+)+|\.ci/\w+|(?:tests|docs)/\w*/?)`", PAGE))

    assert len(names) > 5
    assert sorted(name for name in names if not (ROOT / name).exists() and not is_test(name)) == []
