"""Who may import whom inside vixws_anyio, and who writes whose fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "vixws_anyio"

LAYERS = {
    "logs": "",
    "transport/children": "",
    "transport/pieces": "",
    "transport/turns": "",
    "transport/interface": "transport/pieces transport/turns",
    "transport/stream": "transport/children transport/interface",
    "transport/socket": "transport/interface",
    "transport/driver": "transport/children transport/socket logs",
    "transport/on_asyncio": "transport/driver",
    "transport/on_trio": "transport/driver",
    "transport/loops": "transport/on_asyncio transport/on_trio",
    "transport": "transport/socket transport/stream",
    "config/kinds": "",
    "config/setting": "config/kinds",
    "config/rules": "config/setting",
    "config/websocket": "config/setting",
    "config/settings": "config/rules config/websocket",
    "config/layers": "config/settings",
    "config/config": "config/layers",
    "config": "config/config",
    "server/opening": "",
    "server/admission": "server/opening logs",
    "server/memory": "logs",
    "server/threads": "",
    "server/handlers": "server/threads logs",
    "server/ending": "logs",
    "server/pages": "",
    "server/listeners": "transport/children logs",
    "server/signals": "logs",
    "server/tls": "config/config logs",
    "server/turned_away": "logs",
    "server/acceptor": "server/listeners server/tls transport/driver transport/stream",
    "server/retaining": "config/config",
    "server/trace_file": "",
    "server/tracing": "server/trace_file logs",
    "server/runtime": (
        "server/acceptor server/admission server/ending server/handlers server/memory server/pages server/tracing"
        " server/turned_away transport/loops"
    ),
    "server/server": "server/retaining server/runtime server/signals",
    "server": "server/server",
    "client/errors": "",
    "client/room": "client/errors",
    "client/dispatch": "logs",
    "client/transport": "transport/stream",
    "client/run": "client/dispatch client/room client/transport",
    "client/client": "client/run",
    "client": "client/client",
    "": "client config server transport",
    "auth/jwt": "",
    "auth": "",
    "chat": "",
    "cli/terminal": "",
    "cli/loglines": "cli/terminal logs",
    "cli/messages": "cli/terminal",
    "cli/flags": "cli/terminal config/config",
    "cli/config": "cli/terminal config/config",
    "cli/process": "",
    "cli/serve": "cli/process cli/terminal chat server/server",
    "cli/talk": "cli/loglines cli/messages client/client",
    "cli/upkeep": "cli/flags",
    "cli/store": "cli/upkeep cli/messages",
    "cli/redact": "cli/terminal",
    "cli/replay": "cli/flags cli/redact",
    "cli/main": "cli/config cli/replay cli/serve cli/store cli/talk",
    "cli": "cli/main",
    "__main__": "cli/main",
}
"""For each module those it may import; with them, what they may. Lower ones first: calls go down. "" is the package."""

OWNERS = {
    "config": "cli/serve",
    "dirty": "transport/driver",
    "metrics": "cli/serve",
    "store": "cli/serve",
    "tls": "cli/serve",
}
"""Fields that are assigned from outside of their class: the one module that does, as of every field of the core."""


@cache
def trees() -> dict[str, ast.Module]:
    """The modules by name, `transport/socket`; a package has its folder's."""
    return {
        name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if "web" not in path.parts
    }


def name_of(path: Path) -> str:
    """The name in the table."""
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return name.removesuffix("__init__").removesuffix("/")


def imported(module: str) -> set[str]:
    """The modules of the package that this one imports, anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = base_of(module, node)
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in dotted:
            head, _, rest = name.partition(".")
            if head == PACKAGE.name:
                place = rest.replace(".", "/")
                found.add(place if place in trees() else place.rpartition("/")[0])
    return found


def base_of(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what an import takes its names from."""
    if not node.level:
        return node.module or ""
    parts = [PACKAGE.name, *module.split("/")] if module else [PACKAGE.name]
    up = node.level - (1 if (PACKAGE / module / "__init__.py").is_file() else 0)
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def folders(module: str) -> set[str]:
    """The packages above a module, which run before it does."""
    parts = module.split("/")
    return {"/".join(parts[:count]) for count in range(len(parts))}


@cache
def allowed(module: str) -> frozenset[str]:
    listed = LAYERS[module].split()
    return frozenset(listed).union(*map(allowed, listed))


# ---- imports ------------------------------------------------------------------------------------


def test_every_module_stands_in_the_table() -> None:
    assert sorted(LAYERS) == sorted(trees())


def test_the_table_goes_down() -> None:
    order = list(LAYERS)
    wrong = [
        f"{module} < {below}"
        for module in order
        for below in LAYERS[module].split()
        if order.index(below) > order.index(module)
    ]

    assert wrong == []


def test_modules_import_only_what_stands_below_them() -> None:
    wrong = [f"{module} imports {name}" for module in trees() for name in sorted(imported(module) - allowed(module))]

    assert wrong == []


def test_the_table_allows_nothing_that_is_not_used() -> None:
    unused = [f"{module}: {name}" for module in trees() for name in set(LAYERS[module].split()) - imported(module)]

    assert unused == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for found in imported(module) for name in (found, *(folders(found) - folders(module)))} - {module}
        for module in trees()
    }

    assert len(list(TopologicalSorter(graph).static_order())) == len(trees())


# ---- fields -------------------------------------------------------------------------------------


def stores(tree: ast.Module) -> Iterator[ast.Attribute]:
    """The attributes that are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def test_a_field_has_one_writer() -> None:
    fields = {module: {node.attr for node in stores(tree) if is_own(node)} for module, tree in trees().items()}
    ours = frozenset[str]().union(*fields.values())
    wrong = [
        f"{module}:{node.lineno}: {ast.unparse(node)} is set"
        for module, tree in trees().items()
        for node in stores(tree)
        if not is_own(node)
        and node.attr in ours
        and (node.attr not in fields[module])
        and OWNERS.get(node.attr) != module
    ]

    assert wrong == []


# ---- sizes --------------------------------------------------------------------------------------


def test_a_file_has_400_lines_and_a_function_70_at_most() -> None:
    wrong = [
        f"{module or '__init__'}: {getattr(node, 'name', 'the file')} has {size} lines"
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := lines_of(node)) > (400 if isinstance(node, ast.Module) else 70)
    ]

    assert wrong == []


def lines_of(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first to the last."""
    if isinstance(node, ast.Module):
        return node.body[-1].end_lineno or 0
    return (node.end_lineno or 0) - node.lineno + 1
