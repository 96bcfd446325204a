"""The metrics server in a thread: real sockets on loopback, good and bad clients."""

from __future__ import annotations

import gzip
import logging
import queue
import socket
import struct
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families  # pyright: ignore[reportUnknownVariableType] -- untyped.

from vixws_core.effects import Joined, Left, Opened
from vixws_core.errors import LocalError
from vixws_core.inputs import Accept, Disconnected
from vixws_metrics import WebSocketMetrics, exporter, run_metrics_server


@dataclass
class Running:
    """A server that runs, and where."""

    port: int
    metrics: WebSocketMetrics
    stop: threading.Event
    thread: threading.Thread

    def ask(self, method: str = "GET", target: str = "/metrics", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request; status, headers with lower-case names, body. Reads to the end: then its place is free again."""
        lines = [f"{method} {target} HTTP/1.1", "Host: h", *(f"{name}: {value}" for name, value in headers.items())]
        head, _, body = self.send("\r\n".join([*lines, "", ""]).encode()).partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        return (
            int(first.split()[1]),
            {key.lower(): value for key, _, value in (row.partition(": ") for row in rest)},
            body,
        )

    def connect(self, stack: ExitStack, count: int) -> list[socket.socket]:
        """Connections that say nothing."""
        where = ("127.0.0.1", self.port)
        return [stack.enter_context(socket.create_connection(where, timeout=5)) for _ in range(count)]

    def send(self, data: bytes) -> bytes:
        """Sends bytes and reads to the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The server has heard enough already.
            return read_to_end(sock)


def read_to_end(sock: socket.socket) -> bytes:
    parts = b""
    try:
        while part := sock.recv(65_536):
            parts += part
    except ConnectionError:
        pass  # A server that has heard enough may reset the connection.
    return parts


def scraping() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vixws-scrape"]


@contextmanager
def server() -> Generator[Running, None, None]:
    ports: queue.Queue[int] = queue.Queue()
    metrics, stop = WebSocketMetrics(), threading.Event()
    metrics.see(0.0, Accept(1), [Opened(1, "/", None)])
    thread = threading.Thread(
        target=run_metrics_server, args=(metrics, "127.0.0.1", 0), kwargs={"ready": ports.put, "stop": stop}
    )
    thread.start()
    try:
        yield Running(ports.get(timeout=10), metrics, stop, thread)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One server for the tests that only ask."""
    with server() as running:
        yield running


@pytest.fixture
def alone() -> Iterator[Running]:
    """A server of the test's own; at its end none of its threads is left."""
    before = set(scraping())
    with server() as running:
        yield running
    assert set(scraping()) <= before


def test_a_scrape_is_answered_with_what_was_counted(running: Running) -> None:
    with urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=10) as answer:
        body = answer.read()

    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"vixws_active_sessions 1.0\n" in body


def test_a_scrape_sees_what_happened_since_the_last(alone: Running) -> None:
    alone.ask()
    alone.metrics.see(1.0, Accept(2), [Opened(2, "/", None)])

    assert b"vixws_active_sessions 2.0\n" in alone.ask()[2]


def test_openmetrics_is_served_on_request(running: Running) -> None:
    _, headers, body = running.ask(Accept="application/openmetrics-text; version=1.0.0")

    assert headers["content-type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # The parser is untyped.
    assert "vixws_active_sessions" in {family.name for family in families}


def test_a_scrape_may_be_compressed_and_restricted(running: Running) -> None:
    _, headers, body = running.ask(target="/metrics?name[]=vixws_active_sessions", **{"Accept-Encoding": "gzip"})

    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body).splitlines()[-1] == b"vixws_active_sessions 1.0"
    assert b"vixws_rooms" not in gzip.decompress(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "NONSENSE"])
def test_only_get_is_answered(running: Running, method: str) -> None:
    status, headers, _ = running.ask(method)

    assert (status, headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("target", ["/", "/metrics/", "/favicon.ico", "/../etc/passwd", "/metrics%00"])
def test_there_is_nothing_but_metrics(running: Running, target: str) -> None:
    assert running.ask(target=target)[0] == 404


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n\r\n",
        b"\0\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=abc\r\n\r\n",
        b"GET /metrics?%FF[]=&;=& HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"GET /" + b"a" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_garbage_harms_nothing_and_says_nothing(
    running: Running, garbage: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    running.send(garbage)

    assert running.ask()[0] == 200
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_a_head_that_is_too_large_is_refused(running: Running) -> None:
    head = b"GET /metrics HTTP/1.1\r\nX: " + b"a" * exporter.HEAD_BYTES_MAX

    assert b" 431 " in running.send(head[: exporter.HEAD_BYTES_MAX + 1]).splitlines()[0]


def test_clients_that_send_nothing_do_not_hold_up_a_scrape(alone: Running) -> None:
    with ExitStack() as stack:
        slow = alone.connect(stack, exporter.SCRAPES_MAX - 1)
        slow[0].sendall(b"GET /metr")

        assert alone.ask()[0] == 200


def test_one_connection_too_many_is_closed_at_once(alone: Running) -> None:
    with ExitStack() as stack:
        *_, last = alone.connect(stack, exporter.SCRAPES_MAX + 1)

        assert read_to_end(last) == b""


def test_a_client_that_takes_too_long_is_shut_and_makes_room(alone: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        monkeypatch.setattr(exporter, "SCRAPE_S", 0.05)
        slow = alone.connect(stack, exporter.SCRAPES_MAX)

        assert {read_to_end(sock) for sock in slow} == {b""}

    monkeypatch.undo()
    for thread in scraping():
        thread.join(10)
    assert alone.ask()[0] == 200


def test_a_client_that_breaks_off_is_no_news(
    alone: Running, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "vixws.metrics")
    with ExitStack() as stack:
        (sock,) = alone.connect(stack, 1)
        sock.sendall(b"GET /metr")
        # RFC 9293 §3.10.4: a close without lingering resets the connection.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert alone.ask()[0] == 200  # By then the one before has its thread.
    for thread in scraping():
        thread.join(10)
    assert "a scrape broke off" in {record.message for record in caplog.records}
    assert capfd.readouterr() == ("", "")


def test_the_server_stops_with_a_scrape_under_way(alone: Running) -> None:
    with ExitStack() as stack:
        (sock,) = alone.connect(stack, 1)
        sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        alone.stop.set()

        assert read_to_end(sock) == b""

    alone.thread.join(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", alone.port), timeout=10)


def test_a_scrape_while_the_loop_counts_never_fails(alone: Running) -> None:
    over = threading.Event()

    def count() -> None:
        conn = 0
        while not over.is_set():
            conn += 1
            alone.metrics.see(0.0, Accept(conn), [Opened(conn, "/", None), Joined(conn, f"room {conn}")])
            alone.metrics.see(0.0, Disconnected(conn), [Left(conn, f"room {conn - 5}")])

    thread = threading.Thread(target=count)
    thread.start()
    try:
        assert {alone.ask()[0] for _ in range(30)} == {200}
    finally:
        over.set()
        thread.join(10)


def test_a_port_in_use_is_an_error_of_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        run_metrics_server(WebSocketMetrics(), "127.0.0.1", taken.getsockname()[1])


def test_a_port_that_is_none_is_named() -> None:
    with pytest.raises(LocalError, match="port must be 0 to 65535, got 65536"):
        run_metrics_server(WebSocketMetrics(), port=65_536)


def test_the_server_listens_on_other_families_too() -> None:
    stop = threading.Event()
    stop.set()
    ports: list[int] = []

    run_metrics_server(WebSocketMetrics(), "::1", 0, ready=ports.append, stop=stop)

    assert len(ports) == 1
