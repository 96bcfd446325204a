"""Calls go down, facts come up: who imports whom in the core, and that nothing is wired from above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vixws_core
from tests.layers import GROUND, TABLE, allowed

CORE = Path(vixws_core.__file__).parent
MODULES = {**GROUND, **TABLE}


def module_of(path: Path) -> str:
    """The name of a module, within the package."""
    return path.relative_to(CORE).with_suffix("").as_posix().replace("/", ".")


@cache
def modules() -> list[tuple[str, ast.Module]]:
    """All modules but the simulator and the folders' faces, with their trees."""
    paths = [path for path in sorted(CORE.rglob("*.py")) if path.name != "__init__.py" and "testing" not in path.parts]
    return [(module_of(path), ast.parse(path.read_text())) for path in paths]


def imports(module: str, tree: ast.Module) -> Iterator[str]:
    """What a module imports of its own package, imports for type checkers included; a face as the folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["vixws_core", *module.split(".")][: -node.level] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{whole}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "vixws_core":
                continue
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            yield ".".join(parts) or name


def test_every_module_has_its_line() -> None:
    assert sorted(name for name, _ in modules()) == sorted(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_import_only_from_below(module: str) -> None:
    (tree,) = [tree for name, tree in modules() if name == module]

    assert sorted(set(imports(module, tree)) - allowed(module)) == []


def test_the_table_has_no_circle() -> None:
    assert [module for module in MODULES if module in allowed(module)] == []


def test_no_line_names_what_nobody_needs() -> None:
    needless = []
    for module, tree in modules():
        used = set(imports(module, tree))
        for name in MODULES[module].split():
            if module in TABLE and not used & ({name} | (allowed(name) - set(GROUND))):
                needless.append(f"{module} may import {name}, and imports nothing of it")
            elif module in GROUND and name not in used:
                needless.append(f"{module} may import {name}, and does not")

    assert needless == []


def test_nothing_is_imported_for_type_checkers_only() -> None:
    wrong = [
        name
        for path in CORE.rglob("*.py")
        for name in [module_of(path)]
        if any(
            isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith("TYPE_CHECKING")
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]

    assert wrong == []


def test_the_hub_wires_nothing_by_assignment() -> None:
    """Each part gets what it may call in its constructor; the step's time and effects are the hub's own to set."""
    tree = ast.parse((CORE / "hub" / "hub.py").read_text())
    wrong = [
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
        and not (isinstance(target.value, ast.Name) and target.value.id == "self")
        and ast.unparse(target) not in ("step.now", "step.out")
    ]

    assert wrong == []


def test_the_guard_sees_an_upward_import() -> None:
    tree = ast.parse("from ..sessions import inbox\nif TYPE_CHECKING:\n    from ..hub import Hub\n")

    assert set(imports("hub.rooms.tail", tree)) - allowed("hub.rooms.tail") == {"hub.sessions.inbox", "hub.hub"}
