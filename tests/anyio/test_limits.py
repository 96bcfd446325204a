"""Too many, too slow, too much at once: the server stays up and says no."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.serving import serving
from vixws_anyio import Server
from vixws_anyio.server.admission import UNREADABLE, Admission, AdmissionLimits, open_files_max
from vixws_core.effects import Effect, PauseReading

from .rig import PATIENCE_S, connected, frame, get, http, limited, raw_peer, running

pytestmark = pytest.mark.anyio


def server_with(**settings: Any) -> Server:
    server = Server(limited(**settings))
    server.on("echo")(lambda session, payload: payload)
    return server


async def status_of(port: int) -> int:
    """What a new connection is answered."""
    return (await http(port, get("/healthz")))[0]


class Pauses:
    """Counts how often reading was paused; a consumer."""

    def __init__(self) -> None:
        self.count = 0

    def see(self, now: float, input: object, effects: list[Effect]) -> None:
        self.count += sum(isinstance(effect, PauseReading) for effect in effects)


# ---- how many -----------------------------------------------------------------------------------


@pytest.mark.threat(11)
async def test_row_11_over_the_limit_of_connections_the_answer_is_503_and_room_is_made_again() -> None:
    async with running(server_with(connections_max=2)) as at:
        async with connected(at.ws), connected(at.ws):
            status, headers, _ = await http(at.port, get("/healthz"))
        with anyio.fail_after(PATIENCE_S):
            while await status_of(at.port) != 200:
                await anyio.sleep(0.001)

    assert status == 503
    assert headers["retry-after"] == "5"


@pytest.mark.threat(11)
async def test_row_11_connections_that_only_connect_are_limited_by_themselves() -> None:
    async with (
        running(server_with(connections_opening_max=3)) as at,
        connected(at.ws) as peer,
        raw_peer(at.port, open=False),
        raw_peer(at.port, open=False),
        raw_peer(at.port, open=False),
    ):
        status = await status_of(at.port)
        told = await peer.ask({"type": "echo", "ref": "1"})

    assert status == 503
    assert told["ref"] == "1"


@pytest.mark.threat(11)
async def test_row_11_an_address_has_a_limit_of_its_own() -> None:
    settings = {"limit_loopback": True, "connections_per_ip": 2, "handshakes_per_ip_per_s": 1000.0}
    async with running(server_with(**settings)) as at, connected(at.ws), connected(at.ws):
        status = await status_of(at.port)

    assert status == 503


@pytest.mark.threat(11)
async def test_row_11_an_address_has_a_rate_of_its_own() -> None:
    async with running(server_with(limit_loopback=True, handshakes_per_ip_per_s=0.1)) as at:
        statuses = [await status_of(at.port) for _ in range(3)]

    assert statuses == [200, 503, 503]


@pytest.mark.threat(11)
async def test_row_11_loopback_is_not_limited_unless_asked() -> None:
    async with running(server_with(connections_per_ip=1, handshakes_per_ip_per_s=0.1)) as at, connected(at.ws):
        status = await status_of(at.port)

    assert status == 200


@pytest.mark.parametrize("limited_host", [True, False])
@pytest.mark.threat(11)
def test_an_address_is_an_ipv4_address_or_an_ipv6_network(limited_host: bool) -> None:
    admission = Admission(AdmissionLimits(connections_per_ip=1, handshakes_per_ip_per_s=1000.0), lambda: 0.0)
    first, second = ("2001:db8:1:2::1", "2001:db8:1:2::2") if limited_host else ("2001:db8:1:2::1", "2001:db8:1:3::1")

    assert admission.admit(1, first)
    assert admission.admit(2, second) is not limited_host
    assert admission.admit(3, "::ffff:192.0.2.1")
    assert not admission.admit(4, "192.0.2.1")
    assert admission.admit(5, "") and admission.admit(6, "")
    assert admission.admit(7, "::1") and admission.admit(8, "::1")
    assert admission.admit(9, "fe80::1%eth0")


def test_tokens_come_back_with_time() -> None:
    now = [0.0]
    admission = Admission(AdmissionLimits(handshakes_per_ip_per_s=2.0), lambda: now[0])
    taken = [admission.admit(number, "192.0.2.1") for number in range(3)]
    now[0] = 0.5
    later = [admission.admit(number, "192.0.2.1") for number in range(3, 5)]

    assert taken == [True, True, False]
    assert later == [True, False]


def test_addresses_without_a_reason_to_be_remembered_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_anyio.server.admission.ADDRESSES_MAX", 3)
    now = [0.0]
    admission = Admission(AdmissionLimits(connections_per_ip=1, handshakes_per_ip_per_s=1.0), lambda: now[0])
    for number in range(1, 4):
        assert admission.admit(number, f"192.0.2.{number}")
    admission.release(1)
    admission.release(2)
    now[0] = 60.0
    assert admission.admit(4, "192.0.2.4")

    assert len(admission._addresses) == 2
    assert not admission.admit(5, "192.0.2.3")


@pytest.mark.threat(11)
def test_memory_of_addresses_is_bounded_even_under_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_anyio.server.admission.ADDRESSES_MAX", 3)
    admission = Admission(AdmissionLimits(handshakes_per_ip_per_s=1.0), lambda: 0.0)
    taken = [admission.admit(number, f"192.0.2.{number}") for number in range(1, 9)]

    assert taken == [True] * 3 + [False] * 5
    assert len(admission._addresses) == 3


@pytest.mark.threat(11)
def test_the_descriptors_of_the_process_bound_the_connections() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert open_files_max(10) == (1_000_000 if soft == resource.RLIM_INFINITY else max(1, soft - 10))


@pytest.mark.threat(11)
async def test_row_11_a_process_out_of_descriptors_recovers(
    tmp_path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    name, options = anyio_backend
    flags = ["--backend", name, *(["--uvloop"] if options.get("use_uvloop") else [])]
    with serving(tmp_path, *flags) as served:
        pid = served.process.pid
        port = int(served.ws.rstrip("/").rpartition(":")[2])
        held = len(os.listdir(f"/proc/{pid}/fd"))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        async with connected(served.ws) as friend:
            await friend.receive()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (held + 10, hard))
            crowd = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(80)]
            asked = {"type": "chat.history", "ref": "1", "payload": {"room": "africa"}}
            told = await friend.ask(asked)
            log = await anyio.to_thread.run_sync(_wait_for_log, tmp_path / "stderr.txt", "accepting pauses")
            for sock in crowd:
                sock.close()
            began = time.monotonic()
            async with connected(served.ws) as late:
                welcome = await late.receive()
            took = time.monotonic() - began
        code = await anyio.to_thread.run_sync(served.stop)

    assert told["ref"] == "1"
    assert "Too many open files" in log
    assert welcome["payload"]["text"] == "Welcome!"
    assert took < PATIENCE_S / 2
    assert code == 0


def _wait_for_log(path: Path, word: str) -> str:
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        for line in path.read_text().splitlines():
            if word in line:
                return line
        time.sleep(0.005)
    raise AssertionError(f"no {word!r} in the log:\n{path.read_text()}")


# ---- how slow -----------------------------------------------------------------------------------


@pytest.mark.threat(8)
async def test_row_8_a_handshake_has_a_deadline_in_all_however_often_a_byte_comes() -> None:
    async with running(server_with(handshake_timeout_s=0.3)) as at, raw_peer(at.port, open=False) as trickler:
        answer = b""
        async with anyio.create_task_group() as tasks:

            async def trickle() -> None:
                for byte in b"GET /" + b"a" * 10_000:
                    try:
                        await trickler.stream.send(bytes((byte,)))
                    except anyio.BrokenResourceError:
                        return
                    await anyio.sleep(0.01)

            tasks.start_soon(trickle)
            answer = await trickler.rest()
            tasks.cancel_scope.cancel()
        status = await status_of(at.port)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert status == 200


@pytest.mark.threat(8)
async def test_row_8_many_tricklers_do_not_keep_a_good_client_out() -> None:
    async with running(server_with(handshake_timeout_s=60)) as at, anyio.create_task_group() as tasks:

        async def trickler() -> None:
            async with raw_peer(at.port, open=False) as peer:
                await peer.stream.send(b"GET / HTTP/1.1\r\n")
                await anyio.sleep_forever()

        for _ in range(100):
            tasks.start_soon(trickler)
        await anyio.wait_all_tasks_blocked()
        async with connected(at.ws) as friend:
            told = await friend.ask({"type": "echo", "ref": "1"})
        tasks.cancel_scope.cancel()

    assert told["ref"] == "1"


@pytest.mark.threat(14)
async def test_row_14_a_peer_that_answers_no_ping_is_let_go() -> None:
    settings = {"ping_interval_s": 0.1, "pong_timeout_s": 0.1}
    async with running(server_with(**settings)) as at, raw_peer(at.port) as peer:
        code = await peer.ended()

    assert code == 1011


async def test_an_idle_peer_is_closed() -> None:
    async with running(server_with(idle_timeout_s=0.1)) as at, connected(at.ws) as peer:
        end = await peer.ended()

    assert end == (1001, "idle")


async def test_a_peer_that_never_closes_its_half_is_let_go() -> None:
    server = server_with(close_timeout_s=0.1)
    server.on("bye")(lambda session, payload: session.close(4000, "bye"))
    async with running(server) as at, raw_peer(at.port) as peer:
        await peer.stream.send(frame({"type": "bye"}))
        code = await peer.ended()
        rest = await peer.rest()

    assert (code, rest) == (4000, b"")


# ---- how much -----------------------------------------------------------------------------------


@pytest.mark.threat(3)
async def test_row_3_a_message_over_the_limit_is_1009_and_nobody_elses_problem() -> None:
    async with running(server_with(message_bytes_max=1000)) as at, connected(at.ws) as bad, connected(at.ws) as good:
        await bad.send("x" * 1001)
        code, _ = await bad.ended()
        told = await good.ask({"type": "echo", "ref": "1"})

    assert code == 1009
    assert told["ref"] == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\xff" * 100,
        b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"\r\n\r\n\r\n",
    ],
    ids=["zeros", "http 1.0", "large head", "tls", "post", "empty lines"],
)
async def test_garbage_in_place_of_a_request_ends_that_connection(data: bytes) -> None:
    async with running(server_with(handshake_timeout_s=0.2)) as at, raw_peer(at.port, open=False) as peer:
        await peer.stream.send(data)
        answer = await peer.rest()
        status = await status_of(at.port)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert status == 200


@pytest.mark.threat(34)
async def test_row_34_headers_that_break_others_break_nothing_here() -> None:
    bad = [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc",
        "Sec-WebSocket-Protocol: caf\u00e9",
        "Connection: Upgrade, \u00ff",
    ]
    async with running(server_with()) as at, connected(at.ws) as victim:
        answers: list[bytes] = []
        for line in bad:
            async with raw_peer(at.port, open=False) as peer:
                head = (
                    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{line}\r\n\r\n"
                )
                await peer.stream.send(head.encode("latin-1"))
                answers.append((await peer.stream.receive())[:12])
        told = await victim.ask({"type": "echo", "ref": "1"})

    assert all(answer in (b"HTTP/1.1 101", b"HTTP/1.1 400") for answer in answers)
    assert told["ref"] == "1"


@pytest.mark.parametrize("limited_too", [True, False])
@pytest.mark.threat(7)
async def test_row_7_over_the_rate_publishers_wait_and_loopback_is_let_off(limited_too: bool) -> None:
    server = server_with(messages_per_s=200.0, messages_burst=5, limit_loopback=limited_too)
    server.metrics = pauses = Pauses()
    async with running(server) as at, connected(at.ws) as peer:
        told = [await peer.ask({"type": "echo", "ref": str(number), "payload": {"n": number}}) for number in range(20)]

    assert [message["payload"]["n"] for message in told] == list(range(20))
    assert (pauses.count > 0) is limited_too


@pytest.mark.parametrize("limited_too", [True, False])
@pytest.mark.threat(7)
async def test_row_7_what_a_connection_spent_its_address_owes_where_it_is_limited(limited_too: bool) -> None:
    server = server_with(messages_per_s=0.1, messages_burst=50, limit_loopback=limited_too)
    async with running(server) as at:
        hub = server._running().hub
        for _ in range(3):
            async with connected(at.ws) as peer:
                for number in range(10):
                    await peer.ask({"type": "echo", "ref": str(number), "payload": {}})
            with anyio.fail_after(PATIENCE_S):
                while hub.connections:
                    await anyio.sleep(0.01)
        owing = hub.debts_remembered

    assert owing == int(limited_too)


PROXIES = AdmissionLimits(trusted_proxies=("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "203.0.113.5", "192.0.2.1"),  # Nobody we know: what it says of itself is not believed.
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.9, 203.0.113.5", "203.0.113.5"),  # The first is the client's own invention, perhaps.
        ("10.0.0.1", "203.0.113.5, 10.9.9.9", "203.0.113.5"),
        ("10.0.0.1", "10.1.1.1, 10.9.9.9", "10.1.1.1"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::5]:4711", "2001:db8::5"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", '"203.0.113.5"', "203.0.113.5"),
        ("10.0.0.1", "unknown", UNREADABLE),
        ("10.0.0.1", "", UNREADABLE),
        ("10.0.0.1", "203.0.113.5, _hidden", UNREADABLE),
        ("10.0.0.1", "203.0.113.5,", UNREADABLE),
        ("192.0.2.1", "unknown", "192.0.2.1"),
        ("", "203.0.113.5", ""),
    ],
)
@pytest.mark.threat(11)
def test_row_11_a_client_behind_a_proxy_is_whom_the_last_trusted_one_heard(
    peer: str, forwarded: str, client: str
) -> None:
    assert Admission(PROXIES, lambda: 0.0).client_of(peer, forwarded) == client


@pytest.mark.threat(11)
def test_row_11_a_trusted_proxy_has_no_limit_and_its_clients_have_one_each() -> None:
    limits = AdmissionLimits(connections_per_ip=2, trusted_proxies=("10.0.0.1",))
    admission = Admission(limits, lambda: 0.0)
    assert all(admission.admit(conn, "10.0.0.1") for conn in range(10))

    assert [admission.identify(conn, "203.0.113.5") for conn in range(3)] == [True, True, False]
    assert admission.identify(3, "203.0.113.6")
    admission.release(0)
    assert admission.identify(2, "203.0.113.5")
    assert admission.limited_as("203.0.113.5") == "203.0.113.5"
    assert not admission.limited_as("10.0.0.1")


@pytest.mark.threat(11)
def test_row_11_clients_whom_a_proxy_does_not_name_share_one_limit_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = Admission(AdmissionLimits(connections_per_ip=2, trusted_proxies=("10.0.0.1",)), lambda: 0.0)
    with caplog.at_level("WARNING"):
        clients = [admission.client_of("10.0.0.1", text) for text in ("unknown", "", "_x\n", "unknown")]

    assert [admission.identify(conn, client) for conn, client in enumerate(clients)] == [True, True, False, False]
    assert admission.limited_as(clients[0])
    assert len(caplog.records) == 1


@pytest.mark.threat(11)
async def test_row_11_over_its_clients_limit_a_trusted_proxy_is_answered_503() -> None:
    server = server_with(connections_per_ip=2, trusted_proxies=("127.0.0.1",), limit_loopback=True)
    peers: list[str] = []
    server.on_open(lambda session: peers.append(session.peer))
    one, two = {"X-Forwarded-For": "203.0.113.5"}, {"X-Forwarded-For": "203.0.113.6"}

    def asking(headers: dict[str, str]) -> str:
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{told}\r\n"

    async with running(server) as at:
        async with connected(at.ws, additional_headers=one), connected(at.ws, additional_headers=one):
            refused, _, _ = await http(at.port, asking(one))
            others, _, _ = await http(at.port, asking(two))
        with anyio.fail_after(PATIENCE_S):
            while (await http(at.port, asking(one)))[0] != 200:
                await anyio.sleep(0.001)

    assert (refused, others) == (503, 200)
    assert peers == ["203.0.113.5", "203.0.113.5"]
