"""The house rules that a program can check: imports, purity, sameness, names, sizes."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import random
import re
import secrets
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.harness import MASK, Harness, close_frame
from vixws_core import HubConfig
from vixws_core.inputs import Join, ListHistory, Publish, Send, SendToAll, Shutdown
from vixws_core.wire.frames import PING, encode_frame

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vixws_core", "vixws_anyio", "vixws_store", "vixws_metrics", "vixws_pytest")
COMPOSERS = re.compile(r"vixws_anyio/(cli/\w+|__main__)\.py")
"""The command line alone composes the packages."""
IMPURE = frozenset(
    ["asyncio", "anyio", "trio", "socket", "ssl", "time", "random", "secrets", "threading", "logging", "os"]
)
TOP_LEVEL = frozenset(
    (
        *(*PACKAGES, "tests", "examples", "docs", "benchmarks"),
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"),
    )
)


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules of packages: path below the root, and tree."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    """The full names of what a module imports from outside its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module is not None:
            yield node.module


def own(package: str) -> frozenset[str]:
    """What a package may import of ours."""
    return frozenset({package} if package == "vixws_core" else {package, "vixws_core"})


# ---- who imports whom ------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction(package: str) -> None:
    others = frozenset(PACKAGES) - own(package)
    wrong = [
        f"{path} imports {name}"
        for path, tree in sources(package)
        for name in imports(tree)
        if name.split(".")[0] in others and not COMPOSERS.fullmatch(path)
    ]

    assert wrong == []


def test_core_imports_nothing_impure() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in sources("vixws_core")
        for name in imports(tree)
        if name.split(".")[0] in IMPURE
        and not (path.startswith("vixws_core/testing/") and name.split(".")[0] == "random")
    ]

    assert wrong == []


def test_core_awaits_nothing_and_opens_nothing() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in sources("vixws_core")
        if path != "vixws_core/protocols.py" and not path.startswith("vixws_core/testing/")
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        )
    ]

    assert wrong == []


def test_importing_the_core_imports_no_event_loop() -> None:
    code = "import sys, vixws_core; print(sorted({'asyncio','anyio','trio','uvloop','aiosqlite'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


# ---- purity at work ----------------------------------------------------------------------------------------


def scenario(harness: Harness) -> None:
    """An afternoon in a chat: handshakes, rooms, publishes, history, slow readers, pings, failures, a drain."""
    ada, bob = harness.client("africa"), harness.client("africa", "tmp.x")
    late = harness.connect(request=b"GET / HTTP/1.0\r\n\r\n")
    for number in range(20):
        ada.publish("africa", "x" * 100, ref=str(number), mid=f"m{number % 15}")
    bob.send("no json", {"type": "$history", "ref": "h", "room": "africa", "payload": {"limit": 3}})
    bob.send({"type": "$position", "ref": "p", "room": "africa"}, {"type": "$what", "ref": "w"})
    bob.send({"type": "app", "payload": {"n": 1}}, {"type": "$join", "ref": "j", "room": "\n"})
    harness.put(Publish("tmp.x", "typing", b"{}"), SendToAll(b"all"), Send(ada.conn, b"one"))
    eve = harness.client()
    eve.takes = False
    eve.join("africa", since={"ep": harness.log.epoch, "off": 2})
    for _ in range(60):
        harness.put(Publish("africa", "chat", b'{"text":"' + b"y" * 100 + b'"}'))
    while eve.unflushed:
        eve.flush(500)
    harness.put(Join(ada.conn, "asia", last=5), ListHistory(1, "africa", 5))
    bob.raw(encode_frame(PING, b"p", MASK) + b"\x81")
    harness.run_until(harness.now + 45)
    ada.raw(close_frame())
    bob.vanish()
    harness.put(Shutdown(3))
    harness.run_until(harness.now + 10)
    assert late.out
    assert harness.hub.connections == 0


CONFIG = HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000, tail_bytes_room=500, unstored_rooms=("tmp.*",))


def test_same_inputs_give_the_same_effects() -> None:
    one, two = Harness(CONFIG, seed=b"s"), Harness(CONFIG, seed=b"s")
    scenario(one)
    scenario(two)

    assert one.steps == two.steps
    assert len(one.steps) > 300


def test_hub_runs_without_clock_and_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> Any:
        raise AssertionError("the core asked for the time or for chance")

    inside = False

    def only_outside(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **more: forbidden() if inside else function(*args, **more)

    for module, names in (
        (os, ("urandom", "getrandom")),
        (time, ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")),
        (random, ("random", "randint", "getrandbits", "choice", "randbytes", "uniform")),
        (secrets, ("token_bytes", "token_hex", "randbits")),
    ):
        for name in names:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, only_outside(getattr(module, name)))
    harness = Harness(CONFIG, seed=b"s")
    handle = harness.hub.handle
    calls = 0

    class Door:
        def handle(self, input: Any, now: float, /) -> list[Any]:
            nonlocal inside, calls
            inside = True
            calls += 1
            try:
                return handle(input, now)
            finally:
                inside = False

        def next_deadline(self) -> float | None:
            return harness.hub.next_deadline()

    harness.pump.door = Door()
    scenario(harness)
    inside = True
    with pytest.raises(AssertionError, match="time or for chance"):
        os.urandom(1)
    inside = False

    assert calls == len(harness.steps) > 300


def digest_of_scenario() -> str:
    """What the scenario amounts to, as one line."""
    from hashlib import blake2b

    harness = Harness(CONFIG, seed=b"s")
    scenario(harness)
    return blake2b(repr(harness.steps).encode(), digest_size=16).hexdigest()


def test_hash_seeds_change_no_effect() -> None:
    code = "from tests.test_house import digest_of_scenario; print(digest_of_scenario())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }

    assert found == {digest_of_scenario() + "\n"}


# ---- names and sizes -----------------------------------------------------------------------------------------


def public_modules() -> list[str]:
    return [
        path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path, _ in sources(*PACKAGES)
        if "__main__" not in path
    ]


@pytest.mark.parametrize("name", public_modules())
def test_all_is_sorted_and_everything_in_it_is_there_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    listed: list[str] = list(getattr(module, "__all__", []))

    # Constants, classes, functions: each group in order, as ruff sorts them.
    def order(item: str) -> tuple[int, str]:
        return (0 if item.isupper() else 1 if item[0].isupper() else 2, item)

    assert module.__doc__
    assert listed == sorted(listed, key=order) or listed == sorted(listed)
    assert len(set(listed)) == len(listed)
    undocumented = []
    for item in listed:
        value = getattr(module, item)
        if (inspect.isclass(value) or inspect.isfunction(value)) and not _documented(value):
            undocumented.append(item)
    assert undocumented == []


def _documented(value: Any) -> bool:
    text = inspect.getdoc(value) or ""
    return bool(text) and not text.startswith(f"{value.__name__}(")  # A dataclass writes its signature.


def test_public_methods_of_public_classes_are_documented() -> None:
    wrong = []
    for path, tree in sources(*PACKAGES):
        for node in tree.body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            for item in node.body:
                if (
                    isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not item.name.startswith("_")
                    and not item.decorator_list
                    and not ast.get_docstring(item)
                    and node.name in _listed(tree)
                    and "/_" not in path
                ):
                    wrong.append(f"{path}: {node.name}.{item.name}")

    assert wrong == []


def _listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_modules_and_functions_are_of_a_readable_size() -> None:
    wrong = []
    for path, tree in sources(*PACKAGES):
        lines = len((ROOT / path).read_text().splitlines())
        if lines > 400:
            wrong.append(f"{path} has {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > 70:
                    wrong.append(f"{path}: {node.name} has {size} lines")

    assert wrong == []


SQL_PARTS = frozenset(
    (
        "', '.join('?' * count)",  # Marks for parameters.
        "', '.join(['(?, ?)'] * count)",
        "', '.join(['(?, ?, ?)'] * count)",
        "', '.join(_COLUMNS)",
        "', '.join(columns)",  # Constants of this package, as is `source`, and `where`.
        "source",
        "where",
        "marks",
        "order",  # One of two fixed expressions.
        "quoted",  # The name of an index, from the file's own catalogue: no parameter can stand there.
    )
)
"""What may be written into SQL, besides constants."""


@pytest.mark.threat(18)
def test_row_18_no_value_is_written_into_sql() -> None:
    words = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|REPLACE INTO|DROP|CREATE|ALTER)\b")
    wrong = []
    for path, tree in sources("vixws_store"):
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and words.search(ast.unparse(node)):
                parts = [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and words.search(ast.unparse(node.left)):
                parts = [ast.unparse(node.right)]
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "format"
                and words.search(ast.unparse(node.func.value))
            ):
                parts = [ast.unparse(node)]
            else:
                continue
            wrong += [f"{path}:{node.lineno}: {part}" for part in parts if not part.isupper() and part not in SQL_PARTS]

    assert wrong == []


def test_nothing_is_left_to_do_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|pragma: no cover")
    wrong = []
    for path, _ in sources(*PACKAGES, "tests", "examples", "benchmarks"):
        with (ROOT / path).open("rb") as file:
            wrong += [
                f"{path}:{token.start[0]}"
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.COMMENT and marks.search(token.string)
            ]

    assert wrong == []


def test_nothing_is_left_unwritten() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in sources(*PACKAGES, "examples")
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]

    assert wrong == []


def test_no_error_is_swallowed_by_a_bare_except() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in sources(*PACKAGES, "examples", "benchmarks", "tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]

    assert wrong == []


def test_top_level_holds_only_what_belongs_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # A source archive has no git; nothing but the archive is here then.
        names = {path.name for path in ROOT.iterdir()} - {"build", "dist", "vixws.egg-info"}
    else:
        names = {line.split("/")[0] for line in listed.stdout.splitlines()}

    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()


def test_packages_are_marked_as_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []
