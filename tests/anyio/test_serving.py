"""The chat as its users meet it, with somebody else's client, on every loop."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.serving import serving
from vixws_store import MemoryMessageStore, MessageStore, SqliteMessageStore

from .rig import Peer, chat_server, chatting, connected, running

pytestmark = pytest.mark.anyio


def said(text: str, room: str = "africa", **more: object) -> dict[str, Any]:
    return {"type": "chat.message", "payload": {"room": room, "user": "ada", "text": text, **more}}


async def test_a_new_client_is_welcomed() -> None:
    async with running(chat_server()) as at, connected(at.ws) as peer:
        told = await peer.receive()

    assert told == {"type": "chat.system", "payload": {"user": "server", "text": "Welcome!"}}


async def test_both_paths_lead_to_the_chat() -> None:
    async with running(chat_server()) as at, connected(f"{at.ws}ws?token=x") as peer:
        told = await peer.receive()

    assert told["payload"]["text"] == "Welcome!"


@pytest.mark.parametrize("kind", ["none", "memory", "sqlite"])
async def test_a_message_reaches_all_three_members_with_its_place_in_the_log(kind: str, tmp_path: Path) -> None:
    store: MessageStore | None = None
    if kind != "none":
        store = MemoryMessageStore() if kind == "memory" else SqliteMessageStore(tmp_path / "chat.db")
    async with running(chat_server(store=store)) as at, chatting(at.ws, 3) as peers:
        await peers[1].send(said("hello", colour="blue"))
        told = [await peer.receive() for peer in peers]

    assert told[0] == told[1] == told[2]
    assert told[0]["room"] == "africa"
    assert told[0]["off"] == 1
    assert len(told[0]["id"]) == 20
    assert told[0]["payload"] == {"room": "africa", "user": "ada", "text": "hello", "colour": "blue"}


async def test_who_is_in_another_room_hears_nothing() -> None:
    async with (
        running(chat_server()) as at,
        chatting(at.ws, 1) as (first,),
        chatting(at.ws, 1, "asia") as (second,),
    ):
        await first.send(said("for africa"))
        await second.send(said("for asia", "asia"))
        told = [await first.receive(), await second.receive()]

    assert [message["payload"]["text"] for message in told] == ["for africa", "for asia"]


async def test_leaving_is_told_to_those_who_stay() -> None:
    async with running(chat_server()) as at, chatting(at.ws, 2) as (first, second):
        await second.send({"type": "chat.leave", "payload": {"room": "africa", "user": "user1"}})
        told = await first.receive()
        await first.send(said("alone"))
        await first.receive()
        page = await second.ask({"type": "chat.history", "payload": {"room": "africa"}})

    assert told["payload"] == {"room": "africa", "text": "user1 left"}
    assert [message["payload"]["text"] for message in page["payload"]["messages"]] == ["alone"]


async def fill(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Sends so many messages and returns them as they came back."""
    await peer.send(*(said(f"message {number}") for number in range(1, count + 1)))
    return [await peer.receive() for _ in range(count)]


async def test_history_comes_in_pages_by_the_id_before() -> None:
    async with running(chat_server()) as at, chatting(at.ws, 1) as (peer,):
        sent = await fill(peer, 5)
        newest = await peer.ask({"type": "chat.history", "payload": {"room": "africa", "limit": 2}})
        before = newest["payload"]["messages"][0]["id"]
        older = await peer.ask({"type": "chat.history", "payload": {"room": "africa", "limit": 3, "before": before}})

    assert [message["off"] for message in newest["payload"]["messages"]] == [4, 5]
    assert [message["id"] for message in older["payload"]["messages"]] == [message["id"] for message in sent[:3]]


async def test_the_protocols_own_history_says_the_same() -> None:
    async with running(chat_server()) as at, chatting(at.ws, 1) as (peer,):
        sent = await fill(peer, 3)
        page = await peer.ask({"type": "$history", "ref": "h", "room": "africa", "payload": {"after": 1}})

    assert page["ref"] == "h"
    assert page["payload"] == {"messages": sent[1:], "more": False}


async def test_a_restart_leaves_history_intact(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(chat_server(store=SqliteMessageStore(path))) as at, chatting(at.ws, 1) as (peer,):
        sent = await fill(peer, 3)
    async with running(chat_server(store=SqliteMessageStore(path))) as at, chatting(at.ws, 1) as (peer,):
        page = await peer.ask({"type": "chat.history", "payload": {"room": "africa"}})
        since = {"ep": sent[0]["ep"], "off": 1, "id": sent[0]["id"]}
        await peer.send({"type": "chat.join", "payload": {"room": "africa", "user": "ada", "since": since}})
        told = [await peer.receive() for _ in range(3)]
        again = (await fill(peer, 1))[0]

    assert [message["id"] for message in page["payload"]["messages"]] == [message["id"] for message in sent]
    assert [message.get("off") for message in told if "off" in message] == [2, 3]
    assert again["off"] == 4
    assert again["id"] > sent[2]["id"]


async def test_a_server_serves_again_with_the_same_store() -> None:
    server = chat_server(store=MemoryMessageStore())
    async with running(server) as at, chatting(at.ws, 1) as (peer,):
        await fill(peer, 2)
    async with running(server) as at, chatting(at.ws, 1) as (peer,):
        page = await peer.ask({"type": "chat.history", "payload": {"room": "africa"}})

    assert [message["off"] for message in page["payload"]["messages"]] == [1, 2]


async def test_a_publish_is_acknowledged_when_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with running(chat_server(store=SqliteMessageStore(path))) as at, connected(at.ws) as peer:
        await peer.receive()
        asked = {"type": "note", "room": "africa", "ref": "1", "mid": "m1", "payload": {"n": 2**80}}
        first = await peer.ask(asked)
        second = await peer.ask({**asked, "ref": "2"})
        with sqlite3.connect(path) as database:
            rows = database.execute("select off, payload_json from ws_messages").fetchall()
        database.close()

    assert (first["type"], first["ref"], first["payload"]["off"], first["payload"]["dup"]) == ("$ack", "1", 1, False)
    assert (second["payload"]["off"], second["payload"]["dup"]) == (1, True)
    assert [(off, bytes(data) if isinstance(data, bytes) else data.encode()) for off, data in rows] == [
        (1, b'{"n": 1208925819614629174706176}')
    ]


@pytest.mark.threat(30)
async def test_sigterm_with_clients_connected_closes_them_and_ends_in_time(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    name, options = anyio_backend
    flags = ["--backend", name, *(["--uvloop"] if options.get("use_uvloop") else [])]
    with serving(tmp_path, *flags, "--drain", "3") as served:
        async with chatting(served.ws, 3) as peers:
            sent = await fill_and_pass_on(peers)
            served.process.send_signal(signal.SIGTERM)
            ends = [await peer.ended() for peer in peers]
            code = await anyio.to_thread.run_sync(served.process.wait, 10.0)

    assert sent == 20
    assert [end[0] for end in ends] == [1012] * 3
    assert code == 0
    with sqlite3.connect(tmp_path / "chat_messages.db") as database:
        assert database.execute("select count(*) from ws_messages").fetchone() == (20,)
    database.close()


async def fill_and_pass_on(peers: list[Peer]) -> int:
    """Lets the first say 20 things, which all others hear."""
    await fill(peers[0], 20)
    for peer in peers[1:]:
        for _ in range(20):
            await peer.receive()
    return 20
