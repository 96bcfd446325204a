"""Draws what the docs show of tables in code: layers, states, error codes, close codes.

A page has marked places, from `<!-- drawn: NAME -->` to `<!-- end -->`. From the repository's root:

    python -m docs.draw          # writes what is drawn into its places
    python -m docs.draw --check  # writes nothing; names the places that differ, and ends with 1 where there are any
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from tests.layers import GROUND, TABLE
from vixws_core import client, codes, hub

__all__ = ["PAGES", "PLACES", "ROOT", "differences", "draw", "drawn", "main", "stack", "ways"]

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = {"docs/design.md": ("layers", "parts", "connection", "client"), "docs/protocol.md": ("errors", "closes")}
"""The pages with marked places, and the places that each must have, in order."""

_PLACE: Final = re.compile(r"(<!-- drawn: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SIDES: Final = {"hub": "server", "either": "either side", "later": "reserved"}
"""What a page says instead of the word in a table; other words stay."""

State = TypeVar("State", bound=Enum)


# ---- layers ---------------------------------------------------------------------------------------


def layers() -> str:
    """The modules of the core by folder; each row stands above what it may import of its own folder."""
    folders: dict[str, dict[str, str]] = {}
    for module, below in TABLE.items():
        folders.setdefault(module.partition(".")[0], {})[module] = below
    upper = [_box(name, stack(folders.pop(name))) for name in ("app", "client", "hub")]
    trace, wire = stack(folders.pop("trace")), stack(folders.pop("wire"))
    assert not folders, f"{', '.join(folders)}: expected to be drawn somewhere"
    height = max(len(box) for box in upper)
    lines = [" ".join(line) for line in zip(*(_on_the_floor(box, height) for box in upper), strict=True)]
    width = len(lines[-1])
    lines = [*_box("trace", trace, width), *lines]
    lines += _box("wire", wire, width)
    lines += _box("the ground, which all packages may import", stack(GROUND), width)
    return _as_text(lines)


def stack(table: Mapping[str, str]) -> list[str]:
    """The modules of one folder in rows, those that need no other of it in the last."""
    rows: dict[int, list[str]] = {}
    for module in table:
        rows.setdefault(_height(module, table), []).append(_short(module))
    return [" · ".join(rows[height]) for height in sorted(rows, reverse=True)]


def _height(module: str, table: Mapping[str, str]) -> int:
    """How many modules of its folder stand below a module, one on another."""
    return max((1 + _height(name, table) for name in table[module].split() if name in table), default=0)


def _short(module: str) -> str:
    """A module's name within its folder: `sessions/inbox` of `hub.sessions.inbox`."""
    return module.partition(".")[2].replace(".", "/") or module


def _box(title: str, rows: Sequence[str], width: int = 0) -> list[str]:
    inner = max(width - 4, len(title) + 1, *(len(row) for row in rows))
    middle = [f"│ {row.ljust(inner)} │" for row in rows]
    return [f"┌─ {title} {'─' * (inner - len(title) - 1)}┐", *middle, f"└{'─' * (inner + 2)}┘"]


def _on_the_floor(box: Sequence[str], height: int) -> list[str]:
    """A box with empty lines above it, so that it stands as low as its higher neighbours."""
    return [" " * len(box[0])] * (height - len(box)) + list(box)


def parts() -> str:
    """The parts of the hub from above, each with the first line of its docstring."""
    names = [module for module in TABLE if module.startswith("hub.")]
    return _as_table(("part of `hub/`", "what it is"), ((f"`{_short(n)}`", _first_line(n)) for n in reversed(names)))


def _first_line(module: str) -> str:
    text = (importlib.import_module(f"vixws_core.{module}").__doc__ or "").splitlines()[0]
    return re.sub(r" \(PROTOCOL [^)]*\)", "", text)  # A reference for whoever has the code open.


# ---- states ---------------------------------------------------------------------------------------


def connection() -> str:
    """The life of a connection, and what its states mean."""
    return _states(hub.MOVES, hub.ConnectionState)


def client_states() -> str:
    """The life of a client, and what its states mean."""
    return _states(client.MOVES, client.ClientState)


def _states(moves: Mapping[State, Iterable[State]], kind: type[State]) -> str:
    return _as_text([*ways({state: list(moves[state]) for state in kind}), "", *_meanings(kind)])


def ways(moves: Mapping[State, Sequence[State]]) -> list[str]:
    """Each state has a row, in which its name stands, and the column below and above the name is the way to it.

    A `●` in the row of a state is a way that it can take; a `┼` is a way of others that crosses.
    """
    order = list(moves)
    pitch = max(len(state.name) for state in order) + 2
    at = {state: number * pitch + pitch // 2 for number, state in enumerate(order)}
    lines: list[str] = []
    for row, state in enumerate(order):
        line = [" "] * (pitch * len(order))
        ends = [at[target] for target in moves[state]] + [at[state]]
        line[min(ends) : max(ends) + 1] = "─" * (max(ends) + 1 - min(ends))
        for target in order:
            if target in moves[state]:
                line[at[target]] = "●"
            elif target is not state and _passes(order, moves, target, row, row):
                line[at[target]] = "┼" if line[at[target]] == "─" else "│"
        start = at[state] - len(state.name) // 2
        line[start - 1 : start + len(state.name) + 1] = f" {state.name} "
        lines.append("".join(line).rstrip())
        if row + 1 < len(order):
            lines.append(_between(order, moves, row, at))
    return lines


def _between(order: Sequence[State], moves: Mapping[State, Sequence[State]], row: int, at: Mapping[State, int]) -> str:
    """The ways from one row to the next."""
    line = [" "] * (max(at.values()) + 1)
    for target in order:
        if _passes(order, moves, target, row, row + 1):
            line[at[target]] = "▼" if order[row + 1] is target else "▲" if order[row] is target else "│"
    return "".join(line).rstrip()


def _passes(
    order: Sequence[State], moves: Mapping[State, Sequence[State]], target: State, first: int, last: int
) -> bool:
    """Whether the way to `target` goes from row `first` to row `last`: it reaches from its outermost sources to it."""
    rows = [order.index(target), *(number for number, state in enumerate(order) if target in moves[state])]
    return min(rows) <= first and last <= max(rows)


def _meanings(kind: type[Enum]) -> list[str]:
    """What each state means: the docstring behind its line."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)  # It is the source of a class.
    found: dict[str, str] = {}
    for line, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(line, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(line.targets[0])] = str(text.value.value)
    width = max(len(state.name) for state in kind)
    return [f"{state.name.ljust(width)}  {found[state.name]}" for state in kind]


# ---- codes ----------------------------------------------------------------------------------------


def errors() -> str:
    """The codes of `$err`: those in use, then those that are reserved."""
    rows = sorted(codes.ERRORS, key=lambda row: row.by == "later")
    return _as_table(
        ("code", "`retry`", "decided by", "when"),
        ((f"`{row.code}`", "yes" if row.retry else "no", _SIDES.get(row.by, row.by), row.meaning) for row in rows),
    )


def closes() -> str:
    """The close codes, by number."""
    rows = sorted(codes.CLOSES, key=lambda row: row.code)
    return _as_table(
        ("code", "from", "meaning", "a client"),
        ((str(row.code), _SIDES.get(row.by, row.by), row.meaning, row.client) for row in rows),
    )


# ---- pages ----------------------------------------------------------------------------------------


PLACES: Final[Mapping[str, Callable[[], str]]] = {
    "layers": layers,
    "parts": parts,
    "connection": connection,
    "client": client_states,
    "errors": errors,
    "closes": closes,
}
"""What may be drawn, by the name of its place."""


def _as_text(lines: Iterable[str]) -> str:
    return "```text\n" + "".join(f"{line.rstrip()}\n" for line in lines) + "```\n"


def _as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- | ", "|---| ").replace(" --- ", "---")


def drawn(text: str) -> str:
    """A page with everything drawn anew in its places."""
    return _PLACE.sub(lambda place: place[1] + PLACES[place[2]]() + place[4], text)


def differences(text: str) -> list[str]:
    """The names of the places of a page that do not hold what would be drawn."""
    return [place[2] for place in _PLACE.finditer(text) if place[3] != PLACES[place[2]]()]


def draw(root: Path, *, check: bool) -> list[str]:
    """Draws all pages below `root`, or with `check` only looks; returns what is wrong, a line for each place."""
    wrong: list[str] = []
    for page, places in PAGES.items():
        text = (root / page).read_text(encoding="utf-8")
        found = tuple(place[2] for place in _PLACE.finditer(text))
        if found != places:
            wrong.append(f"{page}: expected the places {' '.join(places)}, found {' '.join(found) or 'none'}")
        elif check:
            wrong += [
                f"{page}: {name} is not as the code has it; run python -m docs.draw" for name in differences(text)
            ]
        else:
            (root / page).write_text(drawn(text), encoding="utf-8")
    return wrong


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.draw", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a place differs")
    wrong = draw(root, check=parser.parse_args(arguments).check)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
