"""Plain HTTP on both listeners: the page, the health checks, and the metrics."""

from __future__ import annotations

import logging
import socket
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from vixws_anyio import Listening, Server
from vixws_anyio.server.listeners import SCRAPES_MAX
from vixws_anyio.server.pages import pages
from vixws_core.effects import Effect
from vixws_core.inputs import Input
from vixws_metrics import WebSocketMetrics
from vixws_store import Limits, SqliteMessageStore

from .rig import PATIENCE_S, chat_server, connected, get, http, limited, raw_peer, request, running

pytestmark = pytest.mark.anyio


async def test_the_chat_page_is_at_the_root() -> None:
    async with running(chat_server()) as at:
        status, headers, body = await http(at.port, get("/"))

    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    assert body.lstrip().lower().startswith(b"<!doctype html>")


async def test_head_is_answered_without_the_body() -> None:
    async with running(chat_server()) as at:
        full = await http(at.port, get("/"))
        head = await http(at.port, get("/", "HEAD"))

    assert head[0] == 200
    assert head[1]["content-length"] == full[1]["content-length"]
    assert head[2] == b""


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/healthz", "GET", 200),
        ("/readyz", "GET", 200),
        ("/healthz?x=1", "GET", 200),
        ("/nothing", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/", "PUT", 405),
        ("/healthz", "DELETE", 405),
    ],
)
async def test_what_is_answered_to_plain_requests(path: str, method: str, status: int) -> None:
    async with running(chat_server()) as at:
        found, headers, _ = await http(at.port, get(path, method))

    assert found == status
    assert ("allow" in headers) == (status == 405)


async def test_an_upgrade_of_an_unknown_path_is_404() -> None:
    async with running(chat_server()) as at, raw_peer(at.port, open=False) as peer:
        await peer.stream.send(request("/nothing"))
        answer = await peer.rest()

    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.threat(25)
async def test_readyz_is_503_while_the_store_is_locked_and_the_room_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = SqliteMessageStore(path, limits=Limits(busy_timeout_s=0.05))
    server = chat_server(store=store)
    async with running(server) as at, connected(at.ws) as peer:
        await peer.receive()
        await peer.send({"type": "chat.join", "payload": {"room": "r", "user": "ada"}})
        await peer.receive()
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            publish = {"type": "chat.message", "payload": {"room": "r", "user": "ada", "text": "hello"}}
            refused = await peer.ask({**publish, "ref": "1"})
            told = await peer.ask(publish)
            while_locked = [(await http(at.port, get(name)))[0] for name in ("/readyz", "/healthz")]
            await peer.send({"type": "chat.typing", "payload": {"room": "r", "user": "ada"}})
            typing = await peer.receive()
            other.execute("ROLLBACK")
        finally:
            other.close()
        with anyio.fail_after(PATIENCE_S):
            while (await http(at.port, get("/readyz")))[0] != 200:
                await anyio.sleep(0.01)
        await peer.send(publish)
        stored = await peer.receive()

    assert (refused["type"], refused["payload"]["code"]) == ("$err", "store_unavailable")
    assert told["type"] == "chat.error"
    assert while_locked == [503, 200]
    assert typing["type"] == "chat.typing"
    assert stored["off"] == 1


@pytest.mark.threat(26)
async def test_readyz_names_a_damaged_room_and_all_others_are_served(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = SqliteMessageStore(path)
    async with store.run():
        for room in ("good", "b\u00e4d"):
            await store.append("event", room, "note", {})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE ws_rooms SET ep = x'ff' WHERE room = 'b\u00e4d'")
    async with running(Server(store=SqliteMessageStore(path), port=0)) as at, connected(at.ws) as peer:
        await peer.ask({"type": "$hello", "ref": "0"})
        sent = [
            await peer.ask({"type": "note", "ref": f"p{room}", "room": room, "payload": {}})
            for room in ("b\u00e4d", "good")
        ]
        joined = [await peer.ask({"type": "$join", "ref": room, "room": room}) for room in ("b\u00e4d", "good")]
        status, _, body = await http(at.port, get("/readyz"))

    assert [(answer["type"], answer["payload"].get("code")) for answer in joined] == [
        ("$err", "store_unavailable"),
        ("$joined", None),
    ]
    assert [answer["type"] for answer in sent] == ["$err", "$ack"]
    assert (status, body) == (200, b'ready\ndamaged rooms: 1: "b\\u00e4d"\n')


def test_readyz_names_ten_rooms_at_most() -> None:
    answer = pages(lambda: False, {}, lambda: [f"room {number}\n" for number in range(12)])
    status, _, body = answer("GET", "/readyz", ())

    assert status == 503
    assert body.count(b"\n") == 2
    assert body.startswith(b'not ready\ndamaged rooms: 12: "room 0\\n", ')
    assert body.endswith(b'"room 9\\n", ...\n')


# ---- metrics ------------------------------------------------------------------------------------


class SmallMetrics:
    """Counts steps, and writes that down; or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.steps = 0
        self.failure = failure
        self.accepts: list[str] = []

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        self.steps += 1

    def render(self, accept: str) -> tuple[str, bytes]:
        if self.failure is not None:
            raise self.failure
        self.accepts.append(accept)
        return "text/plain; version=0.0.4", f"steps {self.steps}\n".encode()


def with_metrics(metrics: Any) -> Server:
    server = Server(limited(metrics_listen="127.0.0.1:0"), metrics=metrics)
    server.on("echo")(lambda session, payload: payload)
    return server


def metrics_port(at: Listening) -> int:
    assert at.metrics is not None
    return int(at.metrics.rpartition(":")[2].partition("/")[0])


@pytest.mark.threat(22)
async def test_row_22_metrics_have_a_listener_of_their_own() -> None:
    metrics = SmallMetrics()
    async with running(with_metrics(metrics)) as at:
        head = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\nAccept: */*;q=0.1\r\n\r\n"
        status, headers, body = await http(metrics_port(at), head)
        on_the_other = await http(at.port, get("/metrics"))

    assert at.metrics == f"http://127.0.0.1:{metrics_port(at)}/metrics"
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4")
    assert body.startswith(b"steps ")
    assert metrics.accepts == ["text/plain, */*;q=0.1"]
    assert on_the_other[0] == 404


async def test_real_metrics_say_how_many_sessions_are_open() -> None:
    async with running(with_metrics(WebSocketMetrics())) as at, connected(at.ws), connected(at.ws):
        _, _, body = await http(metrics_port(at), get("/metrics"))

    assert b"vixws_active_sessions 2.0\n" in body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/"), 404),
        (get("/metrics/x"), 404),
        (get("/metrics", "POST"), 405),
        (get("/metrics", "HEAD"), 200),
        (get("/metrics?x=1"), 200),
        ("GET /metrics HTTP/1.0\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + "a" * 9000 + "\r\n\r\n", 431),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 65 + "\r\n", 431),
    ],
    ids=["root", "beside", "post", "head", "query", "http 1.0", "nonsense", "large head", "many headers"],
)
@pytest.mark.threat(22)
async def test_row_22_whatever_else_is_asked_of_the_metrics_listener_has_an_answer(data: str, status: int) -> None:
    async with running(with_metrics(SmallMetrics())) as at:
        found, headers, body = await http(metrics_port(at), data)
        again = await http(metrics_port(at), get("/metrics"))

    assert found == status
    assert len(body) == (0 if data.startswith("HEAD") else int(headers["content-length"]))
    assert again[0] == 200


@pytest.mark.threat(22)
async def test_row_22_a_ninth_scraper_takes_the_place_of_the_one_that_is_here_longest() -> None:
    async with running(with_metrics(SmallMetrics())) as at, AsyncExitStack() as stack:
        port = metrics_port(at)
        slow = [await stack.enter_async_context(raw_peer(port, open=False)) for _ in range(SCRAPES_MAX)]
        for peer in slow:
            await peer.stream.send(b"GET /metrics HT")
            await anyio.sleep(0.01)
        status, _, _ = await http(port, get("/metrics"))
        gave_way = await slow[0].rest()
        await slow[1].stream.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        answer = await slow[1].rest()

    assert status == 200
    assert gave_way == b""
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.threat(22)
async def test_row_22_idle_connections_shut_no_scraper_out() -> None:
    async with running(with_metrics(SmallMetrics())) as at, AsyncExitStack() as stack:
        port = metrics_port(at)
        found = []
        for _ in range(10):
            for _ in range(SCRAPES_MAX):
                await stack.enter_async_context(raw_peer(port, open=False))
            found.append((await http(port, get("/metrics")))[0])

    assert found == [200] * 10


@pytest.mark.threat(22)
async def test_row_22_a_scraper_that_is_too_slow_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_anyio.server.listeners.SCRAPE_S", 0.1)
    async with running(with_metrics(SmallMetrics())) as at, raw_peer(metrics_port(at), open=False) as peer:
        await peer.stream.send(b"GET /metrics HT")
        rest = await peer.rest()

    assert rest == b""


async def test_metrics_that_cannot_be_rendered_are_500_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(with_metrics(SmallMetrics(ValueError("no figures")))) as at:
            status, _, _ = await http(metrics_port(at), get("/metrics"))

    assert status == 500
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_metrics_off_listens_nowhere() -> None:
    server = Server(limited(metrics_listen="off"), metrics=SmallMetrics())
    async with running(server) as at:
        pass

    assert at.metrics is None


async def test_a_scrape_during_shutdown_harms_nothing() -> None:
    server = with_metrics(SmallMetrics())
    async with anyio.create_task_group() as tasks:
        listening: Listening = await tasks.start(server.serve)
        async with raw_peer(metrics_port(listening), open=False) as peer:
            await peer.stream.send(b"GET /metrics HT")
            server.stop()
            rest = await peer.rest()

    assert rest == b""
    assert server.listening is None


@pytest.mark.threat(22)
async def test_row_22_a_connection_that_is_reset_at_once_harms_nobody() -> None:
    async with running(with_metrics(SmallMetrics())) as at:
        port = metrics_port(at)
        for _ in range(20):
            peer = socket.create_connection(("127.0.0.1", port), 5)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await anyio.sleep(0.01)
        status, _, _ = await http(port, get("/metrics"))

    assert status == 200
