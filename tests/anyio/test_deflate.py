"""permessage-deflate with somebody else's client, on every loop (PROTOCOL §13)."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import ClientConnection

from vixws_anyio import Config, Server, Session
from vixws_core.app.chat import build
from vixws_core.wire.deflate import NAME

from .rig import Peer, connected, raw_peer, running

pytestmark = pytest.mark.anyio

OFFERS: dict[str, dict[str, Any]] = {
    "no offer": {},
    "its own offer": {"compression": "deflate"},
    "small windows": {
        "extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)]
    },
    "no context": {
        "extensions": [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]
    },
}


def deflating(**settings: Any) -> Server:
    server = Server(Config(port=0, deflate=True, **settings))
    build(server)

    @server.on_message
    def echo(session: Session, message: str | bytes) -> None:
        if isinstance(message, bytes):
            session.send_binary(message)

    return server


def agreed(peer: Peer) -> list[str]:
    """The extensions that a client speaks."""
    assert isinstance(peer.connection, ClientConnection)
    return [str(extension.name) for extension in peer.connection.protocol.extensions]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
async def test_messages_pass_both_ways_with_and_without_compression(offer: dict[str, Any]) -> None:
    async with running(deflating()) as at, connected(at.ws, **offer) as peer, connected(at.ws) as plain:
        for one in (peer, plain):
            await one.receive_type("chat.system")
            await one.send({"type": "$join", "ref": "j", "room": "africa"})
            await one.receive_type("$live")
        for number, size in enumerate((0, 10, 200, 5_000, 60_000)):
            text = "".join(f"{at * 7919 % 1009} é€ " for at in range(size // 20))
            await (peer, plain)[number % 2].send({"type": "say", "room": "africa", "payload": {"text": text}})
            told = [await one.receive_type("say") for one in (peer, plain)]

            assert [message["payload"]["text"] for message in told] == [text, text]
        assert agreed(peer) == ([NAME] if offer else [])
        assert agreed(plain) == []


async def test_binary_and_fragmented_messages_are_echoed() -> None:
    async with running(deflating()) as at, connected(at.ws, compression="deflate") as peer:
        await peer.receive_type("chat.system")
        for data in (b"", b"\xff", b"\0" * 60_000, bytes(range(256)) * 100):
            await peer.send(data)

            assert await peer.raw() == data


async def test_a_reader_that_comes_late_gets_its_pages() -> None:
    async with running(deflating(tail_bytes_room=0)) as at, connected(at.ws) as plain:
        for number in range(60):
            said = {"type": "say", "ref": "r", "room": "africa", "payload": {"n": number, "text": "ha" * 9 * number}}
            await plain.send(said)
            await plain.receive_type("$ack")
        async with connected(at.ws, compression="deflate") as peer:
            await peer.send({"type": "$join", "ref": "j", "room": "africa", "payload": {"last": 60}})
            told = [await peer.receive_type("say") for _ in range(60)]

    assert [message["payload"]["n"] for message in told] == list(range(60))


async def test_a_bomb_closes_its_own_connection_alone() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (deflater.compress(bytes(1 << 24)) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with (
        running(deflating()) as at,
        connected(at.ws, compression="deflate") as good,
        raw_peer(at.port, open=False) as bad,
    ):
        await good.receive_type("chat.system")
        await bad.open(f"Sec-WebSocket-Extensions: {NAME}")
        frame = b"\xc2\xfe" + len(bomb).to_bytes(2, "big") + bytes(4) + bomb
        await bad.stream.send(frame)

        assert await bad.ended() == 1009
        assert (await good.ask({"type": "$ping", "ref": "1"}))["type"] == "$pong"


async def test_it_is_off_unless_it_is_switched_on() -> None:
    server = Server(Config(port=0))
    build(server)
    async with running(server) as at, connected(at.ws, compression="deflate") as peer:
        await peer.receive_type("chat.system")

        assert agreed(peer) == []
