"""A server without a store keeps its rooms in memory, and no more of them than it may."""

from __future__ import annotations

import pytest

from vixws_anyio import Server

from .rig import connected, limited, running

pytestmark = pytest.mark.anyio


async def test_a_server_without_a_store_forgets_its_oldest_messages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vixws_anyio.server.memory.MEMORY_BYTES", 50_000)
    server = Server(limited())
    async with running(server) as at, connected(at.ws, max_queue=None) as peer:
        places = [await server.publish("africa", "note", {"number": number}) for number in range(200)]
        since = {"ep": places[0].ep, "off": 1}
        await peer.send(
            {"type": "$join", "ref": "j", "room": "africa", "payload": {"since": since, "on_fail": "floor"}}
        )
        joined = await peer.receive_type("$joined")
        first = await peer.receive_type("note")

    assert [place.off for place in places] == list(range(1, 201))
    assert (joined["payload"]["recovered"], joined["payload"]["reason"]) == (False, "trimmed")
    assert first["off"] == joined["payload"]["floor"] + 1 > 80
    assert len([line for line in caplog.messages if "of the oldest messages are forgotten" in line]) == 1
