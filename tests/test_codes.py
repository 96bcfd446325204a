"""The words and numbers of failure stand in `vixws_core/codes.py`, and nowhere else."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vixws_core import codes
from vixws_core.codes import CLOSES, ERRORS, MISBEHAVIOUR, RETRY_CODES
from vixws_core.wire import RETRY_CODES as WIRE_RETRY_CODES
from vixws_metrics.fold import ERROR_KINDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vixws_core", "vixws_anyio", "vixws_store", "vixws_metrics")
WORDS = {error.code for error in ERRORS} | {fault.word for fault in MISBEHAVIOUR}
NUMBERS = {close.code for close in CLOSES}


def literals(tree: ast.Module) -> Iterator[ast.Constant]:
    """Constants of a module that are values: no docstrings, no parts of formatted text, no factor of a sum."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.Expr | ast.JoinedStr | ast.BinOp):
            continue
        if isinstance(parent, ast.keyword) and parent.arg == "action":  # argparse has a `version` of its own.
            continue
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.Constant):
                yield child


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_is_written_out_elsewhere(package: str) -> None:
    wrong: list[str] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name == "codes.py":
            continue
        for node in literals(ast.parse(path.read_text())):
            # 1000 is a thousand nearly everywhere: only the other numbers are looked for.
            number = type(node.value) is int and node.value in NUMBERS - {codes.CLOSE_NORMAL}
            if number or (isinstance(node.value, str) and node.value in WORDS):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")

    assert wrong == []


def test_every_code_stands_once() -> None:
    counts = Counter([*(error.code for error in ERRORS), *(fault.word for fault in MISBEHAVIOUR)])
    numbers = Counter(close.code for close in CLOSES)

    assert [word for word, count in counts.items() if count > 1] == []
    assert [number for number, count in numbers.items() if count > 1] == []


def test_every_constant_stands_in_a_table() -> None:
    constants = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    numbers = {
        value
        for name, value in vars(codes).items()
        if name.startswith("CLOSE_") and not name.startswith(("CLOSE_STOPS", "CLOSE_OWN"))
    }

    assert constants == WORDS
    assert numbers == NUMBERS


def names_used() -> set[str]:
    """Names of constants that some module reads; in codes.py itself the tables from which the hub tells."""
    found = {node.id for node in names(ast.parse(inspect.getsource(codes)), "FRAMING_FAULTS")}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "codes.py":
                found |= {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    return found


def names(tree: ast.Module, table: str) -> Iterator[ast.Name]:
    """The names in what is assigned to `table`."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            assert node.value is not None
            yield from (name for name in ast.walk(node.value) if isinstance(name, ast.Name))
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == table for t in node.targets):
            yield from (name for name in ast.walk(node.value) if isinstance(name, ast.Name))


def test_what_is_said_to_be_in_use_is_and_what_is_for_later_is_not() -> None:
    used = names_used()
    spelled = {value: name for name, value in vars(codes).items() if name.isupper() and isinstance(value, str | int)}
    rows: list[tuple[str | int, str]] = [(error.code, error.by) for error in ERRORS]
    # Codes that others send, or nobody, only have a meaning here.
    rows += [(close.code, close.by) for close in CLOSES if close.by not in ("others", "nobody")]
    rows += [(fault.word, "hub") for fault in MISBEHAVIOUR]

    assert [spelled[value] for value, by in rows if (spelled[value] in used) is (by == "later")] == []


def test_what_derives_from_the_tables_agrees_with_them() -> None:
    assert frozenset(error.code for error in ERRORS if error.retry) == RETRY_CODES == WIRE_RETRY_CODES
    assert set(ERROR_KINDS) > WORDS
    assert set(ERROR_KINDS) - WORDS == {"handler", "other", "store"}
