"""Who may import whom inside the store and the metrics: calls go down, nothing goes round, fields have one writer.

All imports count, those under `TYPE_CHECKING` too. That Python runs the `__init__` of a folder before a module in it
does not: what a face re-exports is no business of the modules behind it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]

STORE = {
    "vixws_store": "memory outbox urls",
    "_calls": "",
    "_kept": "_retention",
    "_retention": "",
    "checks": "checks.suite",
    "checks.appending": "checks.parts",
    "checks.keeping": "checks.parts",
    "checks.order": "checks.parts",
    "checks.parts": "",
    "checks.reading": "checks.parts",
    "checks.reference": "checks.parts",
    "checks.suite": "checks.appending checks.keeping checks.order checks.reading checks.reference",
    "checking": "sqlite.counter sqlite.producers",
    "inspect": "checking sqlite.reader",
    "maintain": "inspect sqlite.failures sqlite.lock sqlite.writer",
    "memory": "_calls _kept sqlite.working",
    "outbox": "sqlite.outbox",
    "rebuild": "salvage",
    "repair": "inspect rebuild sqlite.failures sqlite.lock",
    "salvage": "sqlite.counter sqlite.producers",
    "sqlite": "sqlite.store",
    "sqlite.answer": "",
    "sqlite.at_once": "",
    "sqlite.appending": "sqlite.counter sqlite.producers",
    "sqlite.asking": "sqlite.answer sqlite.positions",
    "sqlite.bridge": "",
    "sqlite.chunks": "",
    "sqlite.counter": "sqlite.rooms",
    "sqlite.damage": "",
    "sqlite.database": "sqlite.bridge sqlite.failures sqlite.children sqlite.reader sqlite.writer",
    "sqlite.epochs": "sqlite.mark sqlite.rooms",
    "sqlite.failures": "sqlite.damage",
    "sqlite.files": "sqlite.lock",
    "sqlite.children": "sqlite.lock",
    "sqlite.limits": "sqlite.wal",
    "sqlite.lock": "",
    "sqlite.mark": "sqlite.lock",
    "sqlite.migrating": "sqlite.schema",
    "sqlite.outbox": "sqlite.answer sqlite.bridge sqlite.failures sqlite.children sqlite.outbox_file sqlite.working",
    "sqlite.outbox_file": "",
    "sqlite.patience": "",
    "sqlite.queue": "sqlite.answer sqlite.limits",
    "sqlite.producers": "sqlite.at_once sqlite.chunks sqlite.schema",
    "sqlite.paging": "sqlite.at_once sqlite.schema",
    "sqlite.positions": "sqlite.rooms",
    "sqlite.reader": "sqlite.paging sqlite.positions",
    "sqlite.redacting": "sqlite.writer",
    "sqlite.rooms": "sqlite.at_once sqlite.chunks sqlite.schema",
    "sqlite.schema": "sqlite.damage",
    "sqlite.store": "sqlite.upkeep sqlite.working",
    "sqlite.trimming": "_retention sqlite.rooms",
    "sqlite.upkeep": "sqlite.redacting sqlite.worker",
    "sqlite.worker": "_calls sqlite.asking sqlite.database sqlite.queue",
    "sqlite.wal": "sqlite.files sqlite.patience",
    "sqlite.working": "",
    "sqlite.writer": "sqlite.appending sqlite.epochs sqlite.failures sqlite.migrating sqlite.positions"
    " sqlite.trimming sqlite.wal",
    "upkeep": "maintain sqlite.epochs sqlite.redacting",
    "urls": "memory sqlite",
}
"""Each module of vixws_store, and what it may import of that package: what is listed, and what that lists."""

METRICS = {
    "vixws_metrics": "exporter",
    "collector": "fold",
    "exporter": "collector",
    "fold": "",
}
"""The same for vixws_metrics."""

TABLES = {"vixws_store": STORE, "vixws_metrics": METRICS}


# ---- reading ---------------------------------------------------------------------------------------------


def trees(package: str) -> dict[str, ast.Module]:
    """The modules of a package by their names below it; a folder's `__init__` has the folder's name."""
    found: dict[str, ast.Module] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or package] = ast.parse(path.read_text())
    return found


def folders(package: str) -> set[str]:
    """Those of the names that are folders."""
    names = (path.parent.relative_to(ROOT / package) for path in (ROOT / package).rglob("__init__.py"))
    return {".".join(name.parts) or package for name in names}


def imports(package: str, name: str, tree: ast.Module, modules: set[str], is_folder: bool) -> set[str]:
    """What a module imports of its own package, by the names of the table; also what is not there."""
    full = package if name == package else f"{package}.{name}"
    here = full.split(".") if is_folder else full.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner.removeprefix(f"{package}.") in modules else base)
    ours = {each for each in found if each == package or each.startswith(f"{package}.")}
    return {each.removeprefix(f"{package}.") for each in ours}


def imports_of(package: str) -> dict[str, set[str]]:
    """Who imports whom in a package."""
    found, inner = trees(package), folders(package)
    return {name: imports(package, name, tree, set(found), name in inner) for name, tree in found.items()}


# ---- judging ---------------------------------------------------------------------------------------------


def below(table: Mapping[str, str], name: str) -> set[str]:
    """What the table lets a module import: what is listed, and what that lists."""
    found: set[str] = set()
    new = table.get(name, "").split()
    while new:
        each = new.pop()
        if each not in found:
            found.add(each)
            new += table.get(each, "").split()
    return found


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that stand on each other, sorted; none where imports only go down."""
    left = {name: set(targets) for name, targets in edges.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    return sorted(left)


def faults(edges: Mapping[str, set[str]], table: Mapping[str, str]) -> list[str]:
    """What is wrong with the imports, or with the table."""
    wrong = [f"{name} is not in the table" for name in sorted(edges.keys() - table.keys())]
    wrong += [f"{name} is in the table and not in the package" for name in sorted(table.keys() - edges.keys())]
    for name, targets in sorted(edges.items()):
        wrong += [f"{name} imports {target}" for target in sorted(targets - below(table, name))]
    for name, listed in sorted(table.items()):
        wrong += [f"{name} need not be let import {each}" for each in listed.split() if each not in edges.get(name, ())]
    wrong += [f"{name} stands on itself" for name in circle(edges)]
    wrong += [f"{name} stands on itself in the table" for name in circle({n: set(t.split()) for n, t in table.items()})]
    return wrong


@pytest.mark.parametrize("package", TABLES)
def test_modules_import_only_what_lies_below_them(package: str) -> None:
    assert faults(imports_of(package), TABLES[package]) == []


@pytest.mark.parametrize("package", TABLES)
def test_nothing_is_imported_for_type_checkers_alone(package: str) -> None:
    assert [name for name, tree in trees(package).items() if "TYPE_CHECKING" in ast.unparse(tree)] == []


@pytest.mark.parametrize(
    ("edges", "fault"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}, "c imports d"),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, "c stands on itself"),
        ({"a": {"b"}, "b": {"c"}, "c": set(), "new": set()}, "new is not in the table"),
        ({"a": {"b"}, "b": set()}, "c is in the table and not in the package"),
        ({"a": {"b"}, "b": set(), "c": set()}, "b need not be let import c"),
        ({"a": {"b"}, "b": {"c"}, "c": {"c"}}, "c imports c"),
    ],
)
def test_wrong_imports_are_found(edges: dict[str, set[str]], fault: str) -> None:
    table = {"a": "b", "b": "c", "c": ""}

    assert faults({"a": {"b", "c"}, "b": {"c"}, "c": set()}, table) == []
    assert fault in faults(edges, table)


def test_a_circle_in_the_table_is_found() -> None:
    edges = {"a": {"b"}, "b": set[str]()}

    assert "a stands on itself in the table" in faults(edges, {"a": "b", "b": "a"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from .reader import LogReader", "sqlite.reader"),
        ("from . import reader", "sqlite.reader"),
        ("from .. import urls as stores", "urls"),
        ("from .. import open_store", "p"),
        ("from ..urls import open_store", "urls"),
        ("import p.sqlite.reader", "sqlite.reader"),
        ("from p.sqlite import reader, LogReader", "sqlite sqlite.reader"),
        ("from p import urls", "urls"),
        ("from p.none import thing", "none"),
        ("if TYPE_CHECKING:\n    from .reader import LogReader", "sqlite.reader"),
        ("def f():\n    from .reader import LogReader", "sqlite.reader"),
        ("import os, q.sqlite\nfrom pq import urls", ""),
    ],
)
def test_every_form_of_import_is_read(line: str, expected: str) -> None:
    modules = {"p", "sqlite", "sqlite.reader", "sqlite.writer", "urls"}

    assert set(expected.split()) == imports("p", "sqlite.writer", ast.parse(line), modules, is_folder=False)


# ---- fields ----------------------------------------------------------------------------------------------


def declared(tree: ast.Module) -> set[str]:
    """The fields of a module's classes: named in a class's body or in `__slots__`, or set on `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            targets = [target for item in node.body for target in _targets(item)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return names


def _targets(item: ast.stmt) -> list[ast.expr]:
    if isinstance(item, ast.Assign):
        return item.targets
    return [item.target] if isinstance(item, ast.AnnAssign) else []


def _is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id == "self"


def set_elsewhere(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines at which a field of anything but `self` is set or deleted, and the field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and not _is_self(node.value):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__", "delattr"):
            name = node.args[1]
            yield node.lineno, str(name.value) if isinstance(name, ast.Constant) else ast.unparse(name)


def foreign_writes(modules: Mapping[str, ast.Module], known: set[str]) -> list[str]:
    """Where a module sets a field that it does not declare and another one does; `known` are fields of yet others."""
    fields = {name: declared(tree) for name, tree in modules.items()}
    anywhere = known.union(*fields.values())
    return [
        f"{name}:{line} sets {field}"
        for name, tree in modules.items()
        for line, field in set_elsewhere(tree)
        if field not in fields[name] and field in anywhere
    ]


def test_each_field_is_set_by_the_module_that_declares_it() -> None:
    modules = {f"{package}.{name}": tree for package in TABLES for name, tree in trees(package).items()}
    core = set[str]().union(*map(declared, trees("vixws_core").values()))

    assert foreign_writes(modules, core) == []


@pytest.mark.parametrize(
    "line",
    ["owner.size = 1", "self.owner.size += 1", "owner.size: int = 1", "del owner.size", "setattr(owner, 'size', 1)"],
)
def test_a_second_writer_is_found(line: str) -> None:
    owner = ast.parse(
        dedent("""
        class Owner:
            def __init__(self):
                self.size = 0
            def grow(self, other):
                other.size += 1
        """)
    )

    assert foreign_writes({"owner": owner, "user": ast.parse(line)}, set()) == ["user:1 sets size"]
    assert foreign_writes({"user": ast.parse(line)}, {"size"}) == ["user:1 sets size"]
    assert foreign_writes({"owner": owner, "user": ast.parse("db.text_factory = bytes")}, set()) == []
