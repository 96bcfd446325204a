"""What `docs/draw.py` draws: the committed pages are as the code has it, and the drawing says what the tables say."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest

from docs.draw import PAGES, PLACES, ROOT, main, stack, ways
from tests.layers import GROUND, TABLE


class Light(Enum):
    """States with ways forth and back, of which some cross."""

    RED = 1
    AMBER = 2
    GREEN = 3
    DARK = 4


LIGHTS = {
    Light.RED: (Light.AMBER, Light.DARK),
    Light.AMBER: (Light.RED, Light.GREEN),
    Light.GREEN: (Light.RED, Light.DARK),
    Light.DARK: (Light.AMBER,),
}
PICTURE = """
  RED ────●─────────────●
   ▲      ▼             │
   ●─── AMBER ───●      │
   │      ▲      ▼      │
   ●──────┼─── GREEN ───●
          │             ▼
          ●────────── DARK
"""


def test_pages_are_as_the_code_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--check"])

    assert (status, capsys.readouterr().err) == (0, "")


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with copies of the pages."""
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_a_place_that_differs_is_named_and_drawn_anew(copies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = copies / "docs" / "design.md"
    before = page.read_text(encoding="utf-8")
    changed = before.replace("│ rooms/cursors ", "│ rooms/curses  ").replace("| `asks` |", "| `ask` |")
    page.write_text(changed, encoding="utf-8")
    checked, told = main(["--check"], copies), capsys.readouterr().err
    after_check = page.read_text(encoding="utf-8")
    drawn = main([], copies)

    assert (checked, drawn) == (1, 0)
    assert [line.split(" is ")[0] for line in told.splitlines()] == ["docs/design.md: layers", "docs/design.md: parts"]
    assert after_check == changed != before
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("mark", ["<!-- drawn: layers -->", "<!-- end -->"])
def test_a_place_that_is_gone_is_a_mistake(mark: str, copies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = copies / "docs" / "design.md"
    page.write_text(page.read_text(encoding="utf-8").replace(mark, "", 1), encoding="utf-8")
    before = page.read_text(encoding="utf-8")

    assert main([], copies) == 1
    assert capsys.readouterr().err.startswith("docs/design.md: expected the places layers parts connection client")
    assert page.read_text(encoding="utf-8") == before


def test_every_place_is_on_one_page() -> None:
    assert sorted(name for names in PAGES.values() for name in names) == sorted(PLACES)


@pytest.mark.parametrize("folder", ["app", "client", "hub", "wire", "the ground"])
def test_modules_stand_above_what_they_import_of_their_folder(folder: str) -> None:
    table = {module: below for module, below in TABLE.items() if module.startswith(f"{folder}.")} or GROUND
    row = {name: number for number, names in enumerate(stack(table)) for name in names.split(" · ")}
    at = {module: row[module.partition(".")[2].replace(".", "/") or module] for module in table}

    assert len(row) == len(table)
    assert [(module, low) for module in table for low in table[module].split() if at[module] >= at.get(low, 99)] == []


def test_states_are_drawn_with_their_ways() -> None:
    assert ["", *ways(LIGHTS), ""] == PICTURE.split("\n")
