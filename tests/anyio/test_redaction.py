"""A payload that is taken back under a server: members hear of it, and nobody is sent it any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vixws_anyio import Config, Server
from vixws_core.protocols import MessageStore
from vixws_store import MemoryMessageStore, SqliteMessageStore

from .rig import connected, running

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], MessageStore]:
    if request.param == "memory":
        return MemoryMessageStore
    return lambda: SqliteMessageStore(tmp_path / "a.db")


async def test_a_member_is_told_and_newcomers_get_what_stands_in_its_place(
    make_store: Callable[[], MessageStore],
) -> None:
    store = make_store()
    async with running(Server(Config(port=0), store=store)) as at, connected(at.ws) as member, connected(at.ws) as late:
        await member.send({"type": "$join", "ref": "j", "room": "africa"})
        await member.receive_type("$live")
        await member.send({"type": "card", "room": "africa", "payload": {"number": 4111}})
        sent = await member.receive_type("card")

        await store.redact("africa", sent["off"])
        told = await member.receive_type("$redacted")
        await late.send({"type": "$join", "ref": "j", "room": "africa", "payload": {"last": 1}})
        found = await late.receive_type("card")

    assert sent["payload"] == {"number": 4111}
    assert (told["room"], told["payload"]) == ("africa", {"off": sent["off"], "id": sent["id"]})
    assert (found["off"], found["id"], found["payload"]) == (sent["off"], sent["id"], {"$redacted": True})
