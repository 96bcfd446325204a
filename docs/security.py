"""Writes docs/security.md: its head by hand, and a table of threats with the tests that show what becomes of each.

From the repository's root:

    python -m docs.security          # writes the page
    python -m docs.security --check  # writes nothing; ends with 1 where the page is not as the tests have it
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.threats import NOT_BUILT, THREATS, Threat

__all__ = ["PAGE", "ROOT", "main", "marked", "page", "rows_of_tests"]

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = "docs/security.md"
_BEGIN: Final = "<!-- drawn: threats -->\n"
_END: Final = "<!-- end -->"


def rows_of_tests(root: Path = ROOT) -> dict[int, list[str]]:
    """The tests that carry a row's marker, `module::name`, by row; found by reading their files."""
    found: dict[int, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        module = path.relative_to(root / "tests").as_posix()
        for row, name in marked(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(row, []).append(f"{module}::{name}")
    return found


def marked(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The rows and names of a module's tests."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.threat":
                    yield ast.literal_eval(decorator.args[0]), node.name


def page(text: str, tests: dict[int, list[str]]) -> str:
    """The page with what is drawn in it anew."""
    head, _, rest = text.partition(_BEGIN)
    return "".join((head, _BEGIN, _table(), "\n", _listed(tests), _END, rest.partition(_END)[2]))


def _table() -> str:
    lines = ["| | threat | what becomes of it | default |\n|---|---|---|---|\n"]
    for threat in THREATS:
        outcome = f"{threat.outcome}."
        if threat.row in NOT_BUILT:
            outcome += f" **Not built: {NOT_BUILT[threat.row]}.**"
        elif threat.missing:
            outcome += f" **Not built:** {threat.missing}."
        lines.append(f"| {threat.row} | {threat.threat} | {outcome} | {_default(threat)} |\n")
    return "".join(lines)


def _default(threat: Threat) -> str:
    known = threat.defaults()
    words = [text for text in threat.settings if text.partition(" ")[0] not in known]
    return ", ".join([*(f"`{key}` `{value}`" for key, value in known.items()), *words]) or "none"


def _listed(tests: dict[int, list[str]]) -> str:
    """The tests of each row, a line each."""
    lines: list[str] = []
    for threat in THREATS:
        names = tests.get(threat.row, [])
        lines.append(f"**{threat.row}. {threat.threat}**\n\n")
        lines += [f"- `{name}`\n" for name in names] or [f"- none: {NOT_BUILT.get(threat.row, 'missing')}\n"]
        lines.append("\n")
    return "".join(lines)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.security", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where the page differs")
    check = parser.parse_args(arguments).check
    found = (root / PAGE).read_text(encoding="utf-8")
    wanted = page(found, rows_of_tests())
    if found == wanted:
        return 0
    if check:
        print(f"{PAGE} is not as the tests have it; run python -m docs.security", file=sys.stderr)
        return 1
    (root / PAGE).write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
