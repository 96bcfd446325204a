"""Threats as a whole server meets them: foreign pages, forged log lines, where the metrics are."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.sync.client import connect

from vixws_anyio import Config, Server, Session
from vixws_anyio.logs import clean
from vixws_core.app.access import AuthRequest, Denied
from vixws_core.wire.frames import encode_close
from vixws_store import Limits, SqliteMessageStore

from .command_line import LOG_LINE, PATIENCE_S, serving
from .rig import MASK, connected, frame, get, http, limited, raw_peer, request, running

HOSTILE = "\x1b[2J\u202e2030-01-01T00:00:00.000Z INFO vixws: all is well"


async def answered(port: int, *headers: str) -> bytes:
    """The first line of the answer to an upgrade."""
    async with raw_peer(port, open=False) as peer:
        await peer.stream.send(request("/", *headers))
        return (await peer.stream.receive()).partition(b"\r\n")[0]


@pytest.mark.anyio
@pytest.mark.threat(1)
@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ((), "http://localhost", 101),
        ((), "http://evil.example", 403),
        ((), "null", 403),
        ((), "http://localhost:1", 403),
        (("https://app.example",), "https://app.example", 101),
        (("https://app.example",), "https://app.example.evil", 403),
    ],
)
async def test_a_foreign_page_is_refused_by_a_server_as_it_comes(
    allowed: tuple[str, ...], origin: str, status: int
) -> None:
    async with running(Server(limited(allowed_origins=allowed))) as at:
        first = await answered(at.port, f"Origin: {origin}")

    assert first.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.threat(20)
@pytest.mark.parametrize("text", ["a\r\nb", HOSTILE, "\x1b" * 1_000, "\u202e" * 1_000, "é" * 199 + "\n", "x" * 1_000])
def test_what_a_peer_sent_is_one_line_of_200_characters(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) <= 200


@pytest.mark.anyio
@pytest.mark.threat(20)
async def test_what_peers_send_forges_no_log_line_and_tells_no_token(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(limited(access="open", allowed_origins=("*",)))

    @server.authenticate
    def who(asked: AuthRequest) -> None:
        if asked.query.get("token"):
            raise Denied("no such token")

    @server.on("fail")
    def fail(session: Session, payload: dict[str, Any]) -> None:
        raise ValueError(payload["text"])

    agent, origin = "User-Agent: \x1b[2J\xff", "Origin: http://evil.example"
    with caplog.at_level(logging.DEBUG, "vixws"):
        async with running(server) as at:
            first = await answered(at.port, "Authorization: Bearer s3cret", agent, origin)
            second = await answered(at.port, "Sec-WebSocket-Protocol: vixws.bearer.s3cret")
            async with raw_peer(at.port, open=False) as peer:
                await peer.stream.send(request("/?token=s3cret", agent))
                third = await peer.stream.receive()
            async with raw_peer(at.port) as peer:
                await peer.stream.send(frame({"type": "$hello", "payload": {"v": [1], "token": "s3cret"}}))
                await peer.ended()

    assert (first[:12], second[:12], third[:12]) == (b"HTTP/1.1 101", b"HTTP/1.1 101", b"HTTP/1.1 401")
    assert "s3cret" not in caplog.text
    assert [record.getMessage() for record in caplog.records if not record.getMessage().isprintable()] == []


@pytest.mark.threat(20)
def test_a_log_has_one_line_for_each_event_whatever_peers_send(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from vixws_anyio import Server\n"
        "server = Server()\n"
        "@server.on('fail')\n"
        "def fail(session, payload):\n"
        "    raise ValueError(payload['text'], session.headers, session)\n"
    )
    with serving(tmp_path, "--app", "app:server") as served:
        url = served.ready["ws"] + "?token=s3cret"
        for kind in ("fail", HOSTILE):
            with connect(url, proxy=None, open_timeout=PATIENCE_S) as client:
                client.send(json.dumps({"type": "$join", "room": HOSTILE}))
                client.send(json.dumps({"type": kind, "ref": "1", "payload": {"text": f"{HOSTILE}\r\n{HOSTILE}"}}))
                assert json.loads(client.recv(PATIENCE_S))["payload"]["code"] == "bad_room"
                client.close(4000, HOSTILE[:30])
        code, lines = served.end()

    assert code == 0
    assert sum("handler fail" in line for line in lines) == 1
    assert [line for line in lines if not (LOG_LINE.fullmatch(line) and line.isprintable())] == []
    assert "s3cret" not in "\n".join(lines)


@pytest.mark.threat(22)
def test_metrics_are_on_loopback_unless_another_address_is_named() -> None:
    assert Config().metrics_address == ("127.0.0.1", 9100)


@pytest.mark.anyio
@pytest.mark.threat(15)
async def test_a_close_whose_reason_is_no_text_is_1007() -> None:
    async with running(Server(port=0)) as at, raw_peer(at.port) as peer, connected(at.ws) as other:
        good = encode_close(4000, "xx", MASK)
        bad = bytearray(good)
        bad[-1] ^= 0xFF ^ ord("x")  # The last byte of the reason, masked, is FF now.
        await peer.stream.send(bytes(bad))
        code = await peer.ended()
        await other.close()

    assert code == 1007


@pytest.mark.anyio
@pytest.mark.threat(24)
async def test_a_full_store_refuses_what_is_to_be_stored_and_nothing_else(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", pages_max=60, limits=Limits(retry_timeout_s=0.05, probe_s=0.02))
    server = Server(limited(unstored_rooms=("live.*",)), store=store)
    publish = {"type": "note", "room": "africa", "ref": "1", "payload": {"text": "x" * 3_000}}
    async with running(server) as at, connected(at.ws) as peer:
        await peer.ask({"type": "$join", "room": "live.1", "ref": "0"})
        while (told := await peer.ask(publish))["type"] == "$ack":
            pass
        status, _, _ = await http(at.port, get("/readyz"))
        page = await peer.ask({"type": "$history", "room": "africa", "ref": "2", "payload": {"limit": 5}})
        live = await peer.ask({"type": "typing", "room": "live.1"})
        await store.trim("africa", (await store.position("africa")).head - 5)
        with anyio.fail_after(PATIENCE_S):
            while (await http(at.port, get("/readyz")))[0] != 200:
                await anyio.sleep(0.01)
        again = await peer.ask(publish)

    assert (told["payload"]["code"], told["payload"]["retry"]) == ("store_full", True)
    assert status == 503
    assert (page["type"], live["type"], again["type"]) == ("$page", "typing", "$ack")
