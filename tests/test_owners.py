"""One writer per field: each field of the hub's model names the one module that assigns it; all others read it.

A class may assign its own fields, in its constructor and in verbs of its own.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import vixws_core
from vixws_core.hub.identity import Identity
from vixws_core.hub.model import Connection, Handshake, Member, Room, Session

CORE = Path(vixws_core.__file__).parent

OWNERS: Final = {
    "connection.armed": "hub.connection.timers",
    "connection.budget": "hub.sessions.rates",
    "connection.close_by_peer": "hub.sessions.lifecycle",
    "connection.close_code": "hub.sessions.lifecycle",
    "connection.close_reason": "hub.sessions.lifecycle",
    "connection.codec": "hub.arrivals",
    "connection.control_allowance": "hub.sessions.inbox",
    "connection.discarded": "hub.sessions.lifecycle",
    "connection.handshake": "hub.arrivals",
    "connection.inflated_allowance": "hub.sessions.rates",
    "connection.last_data": "hub.connection.outbox",
    "connection.last_flush": "hub.connection.outbox",
    "connection.last_received": "hub.arrivals",
    "connection.message_since": "hub.connection.timers",
    "connection.message_allowance": "hub.sessions.rates",
    "connection.parked": "hub.connection.outbox",
    "connection.pauses": "hub.connection.reading",
    "connection.ping_sent": "hub.connection.timers",
    "connection.reader": "hub.arrivals",
    "connection.received": "hub.connection.reading",
    "connection.resume_at": "hub.connection.reading",
    "connection.resumed_at": "hub.connection.timers",
    "connection.unsent": "hub.connection.outbox",
    "handshake.request": "hub.arrivals",
    "handshake.trailing_data": "hub.arrivals",
    "identity.allowed": "hub.sessions.grants",
    "identity.budget": "hub.sessions.rates",
    "identity.due_at": "hub.sessions.identity",
    "identity.ends_at": "hub.sessions.identity",
    "identity.kicked": "hub.sessions.grants",
    "identity.lost": "hub.sessions.grants",
    "identity.next_at": "hub.sessions.grants",
    "identity.opening": "hub.sessions.identity",
    "identity.proof": "hub.sessions.identity",
    "identity.renewal_ref": "hub.sessions.grants",
    "identity.renewing": "hub.sessions.grants",
    "identity.revision": "hub.sessions.grants",
    "identity.told": "hub.sessions.grants",
    "identity.verdict": "hub.sessions.grants",
    "known.last_received": "hub.sessions.resume",
    "known.lost_at": "hub.sessions.resume",
    "member.announced_head": "hub.rooms.cursors",
    "member.asking": "hub.rooms.members",
    "member.cursor": "hub.rooms.cursors",
    "member.cursor_id": "hub.rooms.cursors",
    "member.held": "hub.rooms.cursors",
    "member.live": "hub.rooms.cursors",
    "member.owed_reset": "hub.rooms.cursors",
    "member.ref": "hub.rooms.members",
    "member.open_ask": "hub.rooms.members",
    "reader.more": "hub.sessions.inbox",
    "room.asking": "hub.rooms.members",
    "room.changes": "hub.rooms.cursors",
    "room.ep": "hub.rooms.cursors",
    "room.floor": "hub.rooms.cursors",
    "room.known": "hub.rooms.cursors",
    "room.pause_s": "hub.rooms.pages",
    "room.pos": "hub.rooms.cursors",
    "room.pos_id": "hub.rooms.cursors",
    "room.rests_until": "hub.rooms.pages",
    "room.targets": "hub.rooms.cursors",
    "room.waiting": "hub.rooms.cursors",
    "session.busy": "hub.sessions.inbox",
    "session.catching_up": "hub.rooms.cursors",
    "session.dropped": "hub.rooms.unstored",
    "session.greeting_over": "hub.sessions.requests",
    "session.hello": "hub.sessions.requests",
    "session.lookups": "hub.rooms.pages",
    "session.memberships": "hub.rooms.members",
    "session.page_pending": "hub.rooms.pages",
    "session.retry_at": "hub.rooms.pages",
    "session.scope": "hub.sessions.requests",
    "session.speaks": "hub.sessions.inbox",
    "session.unanswered": "hub.connection.reading",
    "step.now": "hub.hub",
    "step.out": "hub.hub",
    "tail.entries": "hub.rooms.tail",
    "tail.size": "hub.rooms.tail",
}
"""Who assigns a field of the hub's model or of its step, apart from the class itself."""

FILLED: Final = {
    "identity.allowed": "hub.sessions.grants",
    "identity.kicked": "hub.sessions.grants",
    "identity.lost": "hub.sessions.grants",
    "page.members": "hub.rooms.pages",
    "room.members": "hub.rooms.cursors",
    "room.waiting": "hub.rooms.cursors",
    "session.catching_up": "hub.rooms.cursors",
    "session.dropped": "hub.rooms.unstored",
    "session.lookups": "hub.rooms.pages",
    "session.memberships": "hub.rooms.members",
    "step.connections": "hub.sessions.lifecycle",
    "step.lost": "hub.sessions.lifecycle",
    "step.parked": "hub.connection.outbox",
    "step.ready": "hub.connection.reading",
    "step.rooms": "hub.rooms.members",
    "step.users": "hub.sessions.lifecycle",
    "tail.entries": "hub.rooms.tail",
}
"""Who puts into a collection of another part, and takes out. All parts add to the effects of the step, `step.out`."""

FILLING: Final = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "move_to_end", "pop", "popleft"),
    *("remove", "rotate", "setdefault", "update"),
}
"""Methods that change a collection."""

ONCE: Final = {
    Connection: {"id", "peer", "state", "since", "session"},
    Session: {"connection", "identity", "typed", "guarded", "guards_all", "queue", "queued"},
    Identity: {"user", "proved", "scope"},
    Member: {"session", "connection", "room", "since", "last", "from_floor", "told"},
    Room: {"name", "stored", "members", "tail"},
    Handshake: {"head", "limited"},
}
"""Fields that nobody assigns from outside: set in the constructor, or by the class's own verbs."""


def stores(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Attributes that are assigned or deleted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def name_of(target: ast.Attribute) -> str:
    """What is assigned, as `connection.unsent`: the nearest name before the dot, and the field."""
    base = target.value
    if isinstance(base, ast.Subscript):
        base = base.value
    found = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else "?"
    return f"{found.lstrip('_')}.{target.attr}"


def writers() -> dict[str, set[str]]:
    """Per field the modules that assign it on something that is not `self`."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(CORE.rglob("*.py")):
        if "testing" in path.parts:
            continue
        module = path.relative_to(CORE).with_suffix("").as_posix().replace("/", ".")
        for target in stores(ast.parse(path.read_text())):
            if not (isinstance(target.value, ast.Name) and target.value.id == "self"):
                found[name_of(target)].add(module)
    return dict(found)


def fillers() -> dict[str, set[str]]:
    """Per collection, reached by a dot from something that is not `self`, the modules of the hub that change it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((CORE / "hub").rglob("*.py")):
        module = path.relative_to(CORE).with_suffix("").as_posix().replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text())):
            target: ast.expr | None = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                target = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILLING:
                target = node.func.value
            if isinstance(target, ast.Attribute) and not name_of(target).startswith("self."):
                found[name_of(target)].add(module)
    return dict(found)


def own_writes() -> dict[str, set[str]]:
    """Per field the classes that assign it on `self` outside of their constructors."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(CORE.rglob("*.py")):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name != "__init__":
                    for target in stores(item):
                        if isinstance(target.value, ast.Name) and target.value.id == "self":
                            found[target.attr].add(node.name)
    return dict(found)


def test_every_field_of_the_hub_is_assigned_by_its_owner_alone() -> None:
    found = {name: sorted(modules) for name, modules in writers().items() if any(m[:4] == "hub." for m in modules)}

    assert found == {name: [owner] for name, owner in OWNERS.items()}


def test_every_collection_of_the_hub_is_filled_by_its_owner_alone() -> None:
    found = {name: sorted(modules) for name, modules in fillers().items() if name != "step.out"}

    assert found == {name: [owner] for name, owner in FILLED.items()}


def test_no_field_of_the_core_has_two_writers() -> None:
    assert {name: sorted(modules) for name, modules in writers().items() if len(modules) > 1} == {}


@pytest.mark.parametrize("kind", ONCE)
def test_every_field_of_the_model_has_an_owner(kind: type) -> None:
    owned = {name.split(".")[1] for name in OWNERS if name.split(".")[0] == kind.__name__.lower()}
    fields = set(vars(kind)["__slots__"])

    assert fields == owned | ONCE[kind]
    assert owned & ONCE[kind] == set()


def test_what_others_assign_a_class_does_not_assign_itself() -> None:
    classes = {"channel": "ClientChannel", "link": "Link", "state": "SessionState", "step": "Step", "room": "Room"}
    classes |= {"connection": "Connection", "session": "Session", "member": "Member", "identity": "Identity"}
    own = own_writes()
    both = {
        name
        for name in writers()
        for base, field in [name.split(".")]
        if classes.get(base, "") in own.get(field, set())
    }

    assert both == set()


def test_the_guard_sees_a_second_writer() -> None:
    (target,) = stores(ast.parse("member.connection.unsent += 1"))

    assert name_of(target) == "connection.unsent"
