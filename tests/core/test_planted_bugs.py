"""Bugs planted on purpose, each in one expression of shipped code: the oracles of the simulated world find them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vixws_core

WORLDS = 120
"""Each bug must show within so many worlds; the seeds are always the same ones. All showed within 46 at first."""

EARLY: dict[str, str] = {
    "a member is live before the announced head": "first",
    "an older log's word on a room is taken": "fifth",
    "another log under a room is noticed by nobody": "first",
    "many dropped messages are counted as one": "third",
    "one who is held is told of another log": "seed3",
    "the kind is no part of what a key stands for": "first",
    "who is parked by its reset stays among the live": "seed18",
}
"""Seeds under which a bug shows early that shows late under the common ones."""

BUGS: dict[str, tuple[str, str, str]] = {
    "the tail skips a message": (
        "vixws_core.hub.rooms.tail",
        "islice(self.entries, cursor + 1 - self.entries[0][0], None)",
        "islice(self.entries, cursor + 2 - self.entries[0][0], None)",
    ),
    "a member is live before the announced head": (
        "vixws_core.hub.rooms.cursors",
        "member.cursor == room.pos and member.announced_head <= room.pos",
        "member.cursor == room.pos",
    ),
    "an advance is ignored while the first position is asked": (
        "vixws_core.hub.rooms.cursors",
        "if room is None or not room.stored:",
        "if room is None or not room.stored or not room.known:",
    ),
    "an advance with a gap is taken for whole": (
        "vixws_core.hub.rooms.cursors",
        "        if start > room.pos:",
        "        if not start:",
    ),
    "a page is taken after a new join": (
        "vixws_core.hub.rooms.cursors",
        "if waits and is_current(member) and ",
        "if waits and ",
    ),
    "a page is measured by the room as it is now": (
        "vixws_core.hub.rooms.cursors",
        "or page.head < until:",
        "or page.head < room.pos:",
    ),
    "a page comes to a parked connection": (
        "vixws_core.hub.rooms.cursors",
        "(member.live or member.asking or member.held or member.connection.parked)",
        "(member.live or member.asking or member.held)",
    ),
    "what is unparked does not read on": (
        "vixws_core.hub.rooms.cursors",
        "        self.catch_up(session)\n\n    def catch_up(",
        "        self.is_current\n\n    def catch_up(",
    ),
    "a failed read stays under way for ever": (
        "vixws_core.hub.rooms.pages",
        "            member.session.page_pending = False\n",
        "            member.session.page_pending = True\n",
    ),
    "what passed its mark stays live": (
        "vixws_core.hub.rooms.cursors",
        "                if member.live and member.room.stored:",
        "                if not member.live and member.room.stored:",
    ),
    "the floor is ignored": (
        "vixws_core.hub.rooms.members",
        "if since.off < input.floor:",
        "if since.off < 0:",
    ),
    "a position recovers without a look at its id": (
        "vixws_core.hub.rooms.members",
        "input.id_at != since.id:",
        "input.id_at is None:",
    ),
    "a join is given one message more than it asked for": (
        "vixws_core.hub.rooms.members",
        "return max(input.floor, input.head - member.last)",
        "return max(input.floor, input.head - member.last - 1)",
    ),
    "a join that is left is not answered": (
        "vixws_core.hub.rooms.members",
        "        if member.ref is not None:\n            self._outbox.answer(",
        "        if member.connection.parked:\n            self._outbox.answer(",
    ),
    "all clients share one scope of keys": (
        "vixws_core.hub.sessions.publishing",
        "            scope = session.scope",
        '            scope = ""',
    ),
    "a scope of keys ends with the process": (
        "vixws_core.hub.sessions.requests",
        'digest_size=16, person=b"vixws scope"',
        'digest_size=16, key=self._step.token("scope").encode()',
    ),
    "a publish without a key is acknowledged before any commit": (
        "vixws_core.hub.sessions.publishing",
        "if not ask.store or not self._members.is_stored(ask.room):",
        "if not ask.store or ask.mid is None or not self._members.is_stored(ask.room):",
    ),
    "another content under a known key is a repeat": (
        "vixws_core.log",
        "if digest not in (ask.digest, ANY_CONTENT):",
        "if digest is None:",
    ),
    "a producer may leave out a number": (
        "vixws_core.producers",
        "if seq > last + 1:",
        "if seq > last + 2:",
    ),
    "a producer's epoch that is over takes more": (
        "vixws_core.producers",
        "if epoch < kept.epoch:",
        "if epoch < kept.epoch - 1:",
    ),
    "a producer's new epoch does not begin at 1": (
        "vixws_core.producers",
        "last = kept.seq if epoch == kept.epoch else 0",
        "last = kept.seq",
    ),
    "a producer's rooms share its numbers": (
        "vixws_core.producers",
        "key, name = (ask.room, ask.scope), asked.producer",
        'key, name = ("", ask.scope), asked.producer',
    ),
    "nobody is parked at the high mark": (
        "vixws_core.hub.connection.outbox",
        "if connection.unsent > step.config.unsent_bytes_high or",
        "if connection.unsent > 4 * step.config.unsent_bytes_high or",
    ),
    "a parked connection is sent what is not stored": (
        "vixws_core.hub.rooms.cursors",
        "if m.live and not m.connection.parked]",
        "if m.live]",
    ),
    "a frame of 126 bytes has a short header": (
        "vixws_core.wire.encoding",
        "        if size < 126:\n            return bytes((0x80 | opcode, size)) + payload",
        "        if size < 127:\n            return bytes((0x80 | opcode, size)) + payload",
    ),
    "a join is told of a head that is behind": (
        "vixws_core.hub.rooms.members",
        '            "head": head,\n',
        '            "head": min(head, cursor + 1),\n',
    ),
    "the oldest page says that there is more": (
        "vixws_core.hub.sessions.history",
        "more = last > input.floor + 1 if",
        "more = last > input.floor if",
    ),
    "the newest page says that there is more": (
        "vixws_core.hub.sessions.history",
        "else last < input.head",
        "else last <= input.head",
    ),
    "a publish that failed is said to be of no use": (
        "vixws_core.hub.sessions.publishing",
        "asked.ref, room, input.retry, ",
        "asked.ref, room, False, ",
    ),
    "many dropped messages are counted as one": (
        "vixws_core.hub.rooms.unstored",
        "session.dropped.get(name, 0) + 1",
        "max(session.dropped.get(name, 0), 1)",
    ),
    "all connections together may hold what they like": (
        "vixws_core.hub.connection.outbox",
        "self.unsent_total > step.config.unsent_bytes_total",
        "self.unsent_total < 0",
    ),
    "a client sends its newest publish first": (
        "vixws_core.client.outbox",
        "for item in tuple(self._items.values()):\n            if not item.in_flight:",
        "for item in reversed(tuple(self._items.values())):\n            if not item.in_flight:",
    ),
    "a position moves before its message is handled": (
        "vixws_core.client.cursor",
        "while ledger and (not ledger[0][0] or ledger[0][0] in done):",
        "while ledger:",
    ),
    "a client takes a message twice": (
        "vixws_core.client.rooms",
        "elif message.off <= room.at[1]:",
        "elif message.off < room.at[1]:",
    ),
    "a client takes a message of another epoch": (
        "vixws_core.client.rooms",
        "elif room.at is None or message.ep != room.at[0] or message.off > room.at[1] + 1:",
        "elif room.at is None or message.off > room.at[1] + 1:",
    ),
    "an older log's word on a room is taken": (
        "vixws_core.hub.rooms.continuity",
        "if room.changes != asked.changes or (",
        "if (",
    ),
    "another log under a room is noticed by nobody": (
        "vixws_core.hub.rooms.cursors",
        "        elif input.ep != room.ep or (",
        "        elif not input.ep or (",
    ),
    "a log that went back is noticed by nobody": (
        "vixws_core.hub.rooms.cursors",
        "(input.prev_id != room.pos_id and is_other(",
        "(not input.head and is_other(",
    ),
    "a join is told another entry's id": (
        "vixws_core.hub.rooms.members",
        "(asked, input.id_at)",
        "(asked, input.id)",
    ),
    "who is parked by its reset stays among the live": (
        "vixws_core.hub.rooms.cursors",
        "if self._step.parked:  # By what it was told.",
        "if not ep:",
    ),
    "the kind is no part of what a key stands for": (
        "vixws_core.hub.sessions.publishing",
        'head = f"{len(kind)}:{kind}{len(type)}:{type}".encode()',
        'head = f"{len(type)}:{type}".encode()',
    ),
    "a drain waits for no answer": (
        "vixws_core.hub.sessions.lifecycle",
        "return session.busy or bool(session.queue) or ready or self._owes_answers(session)",
        "return session.busy or bool(session.queue) or ready",
    ),
    "a message passes the handler that is before it": (
        "vixws_core.hub.sessions.inbox",
        "        if session.busy:\n            self._line_up(session, items)",
        "        if session.busy and session.queue:\n            self._line_up(session, items)",
    ),
    "who is not read is pinged": (
        "vixws_core.hub.deadlines",
        "if connection.pauses and not (connection.pauses == Pause.CROWDED and self._is_late(connection)):",
        "if connection.pauses == Pause.CROWDED and not self._is_late(connection):",
    ),
}
"""What is wrong: the module, the expression as shipped, and the planted one."""


GRANT_BUGS: dict[str, tuple[str, str, str]] = {
    "a grant to join is one to read": (
        "vixws_core.hub.sessions.grants",
        "actions.get(action, -FAR) > self._step.now else None",
        'actions.get("join", actions.get(action, -FAR)) > self._step.now else None',
    ),
    "a grant is ignored on a join": (
        "vixws_core.hub.sessions.requests",
        """ and not self._may(session, "join", room):""",
        """ and not room:""",
    ),
    "a grant is ignored on a publish": (
        "vixws_core.hub.sessions.requests",
        """ and not self._may(session, "publish", _room_of(envelope)):""",
        """ and not _room_of(envelope):""",
    ),
    "a grant for one room holds for all": (
        "vixws_core.hub.sessions.grants",
        "actions = identity.allowed.get(room)",
        "actions = next(iter(identity.allowed.values()), None)",
    ),
    "a page is replayed to one who is held": (
        "vixws_core.hub.rooms.cursors",
        "member.asking or member.held or member.connection.parked)",
        "member.asking or member.connection.parked)",
    ),
    "one who is held stays among the live": (
        "vixws_core.hub.rooms.cursors",
        "            member.live = False\n            room.targets = None\n        if session.catching_up",
        "            member.live = False\n        if session.catching_up",
    ),
    "a page that was asked for before a revoke is given after it": (
        "vixws_core.hub.sessions.history",
        'if self._grants.holds(session, "read", asked.room):',
        "if session.hello or asked.room:",
    ),
    "a byte of the room follows a kick": (
        "vixws_core.hub.sessions.publishing",
        "barred = session.identity is not None and self._grants.is_barred(session, asked.room)",
        "barred = session.identity is None",
    ),
    "an answer from before a revoke counts": (
        "vixws_core.hub.sessions.grants",
        "if asked.revision == identity.revision:",
        "if asked.revision <= identity.revision:",
    ),
    "a grant that ended holds": (
        "vixws_core.hub.sessions.grants",
        "actions.get(action, -FAR) > self._step.now else None",
        "actions.get(action, -FAR) > -1.0 else None",
    ),
    "what is granted anew is never asked again": (
        "vixws_core.hub.sessions.grants",
        """                self._members.release(member)
            self._keep(session, identity, room, input)""",
        """                self._keep(session, identity, room, input)
                self._members.release(member)""",
    ),
    "the room of a user is everybody's": (
        "vixws_core.hub.identity",
        "return self.user is not None and room == user_room(self.user)",
        "return self.user is not None",
    ),
    "one who is held is told of another log": (
        "vixws_core.hub.rooms.cursors",
        "        if member.held:\n            member.owed_reset = reason",
        "        if not member.told:\n            member.owed_reset = reason",
    ),
}
"""The same of grants, found by worlds whose users' rights change all the time."""

BUGS |= GRANT_BUGS


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package to plant bugs in."""
    root = tmp_path_factory.mktemp("planted")
    source = Path(vixws_core.__file__).parent
    shutil.copytree(source, root / "vixws_core", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def run_worlds(tree: Path, seeds: str, count: int, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        (sys.executable, "-m", "vixws_core.testing", "-x", *flags, seeds, str(count)),
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_worlds_find_nothing_where_nothing_is_planted(tree: Path) -> None:
    for flags in ((), ("-p",)):
        run = run_worlds(tree, "planted", 10, *flags)

        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("bug", BUGS)
def test_the_worlds_find(bug: str, tree: Path) -> None:
    name, shipped, planted = BUGS[bug]
    path = tree / f"{name.replace('.', '/')}.py"
    text = path.read_text()
    assert text.count(shipped) == 1, f"{name} has {shipped!r} {text.count(shipped)} times, expected once"
    path.write_text(text.replace(shipped, planted))
    try:
        run = run_worlds(tree, EARLY.get(bug, "planted"), WORLDS, *(("-p",) if bug in GRANT_BUGS else ()))
    finally:
        path.write_text(text)

    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"^world \w+/\d+ failed at step \d+: ", run.stdout), run.stdout + run.stderr
