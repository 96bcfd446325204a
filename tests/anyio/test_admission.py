"""Who gives way where too many connections are opening: whoever holds most of them, and nobody else."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

import anyio
import pytest
import trustme

from vixws_anyio import Server
from vixws_anyio.server.admission import Admission, AdmissionLimits
from vixws_anyio.server.opening import Opening
from vixws_anyio.server.turned_away import TurnedAway
from vixws_core.inputs import Connected, Disconnected
from vixws_metrics import WebSocketMetrics

from .rig import PATIENCE_S, RawPeer, connected, http, limited, raw_peer, request, running
from .test_driver_limits import StillDriver

SILENT = [f"127.0.0.{number}" for number in range(2, 14)]
"""Twelve addresses that connect and send nothing."""


class Told:
    """What was told of those who are turned away."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def refused(self, setting: str) -> None:
        self.counts[setting] += 1

    def gave_way(self) -> None:
        self.counts["gave way"] += 1


def admission(now: list[float] | None = None, told: Told | None = None, **limits: Any) -> Admission:
    limits = {"handshakes_per_ip_per_s": 1e6, **limits}
    return Admission(AdmissionLimits(**limits), lambda: now[0] if now else 0.0, told)


def lines(act: Callable[[], object]) -> int:
    """Lines of the server that run while `act` does."""
    count = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if "vixws_anyio/server" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


# ---- who holds most -----------------------------------------------------------------------------


def test_who_holds_most_is_who_does_however_they_come_and_go() -> None:
    chance = random.Random(7)
    opening, held = Opening(), dict[int, str]()
    for conn in range(3_000):
        if held and chance.random() < 0.48:
            gone = chance.choice(list(held))
            opening.end(gone)
            opening.end(gone)
            del held[gone]
        else:
            held[conn] = f"a{chance.randrange(12) ** 2}"
            opening.begin(conn, held[conn], float(conn))
        counts = Counter(held.values())
        most = max(counts.values(), default=0)

        assert (len(opening), opening.most) == (len(held), most)
        assert all(opening.count(holder) == count for holder, count in counts.items())
        if held:
            late, since = opening.oldest_of_most()
            assert counts[held[late]] == most
            assert late == since == min(one for one, holder in held.items() if holder == held[late])
    for conn in list(held):
        opening.end(conn)

    assert (len(opening), opening.most, opening._held, opening._by_count) == (0, 0, {}, {})


@pytest.mark.parametrize("each", [2, 50])
def test_a_newcomer_costs_the_same_however_many_there_are(each: int) -> None:
    costs = []
    for holders in (3, 300):
        gate = admission(connections_max=20_000, connections_opening_max=holders * each)
        conns = iter(range(10**6))
        for number in range(holders):
            for _ in range(each):
                assert gate.admit(next(conns), f"10.0.{number // 200}.{number % 200}")
        costs.append(lines(lambda gate=gate, conns=conns: gate.admit(next(conns), "192.0.2.1")))  # type: ignore[misc]
        assert gate.gave_way() == 0

    assert costs[0] == costs[1] < 150


# ---- the rule -----------------------------------------------------------------------------------


def test_the_oldest_of_the_address_with_most_gives_way_to_one_with_fewer() -> None:
    told = Told()
    gate = admission(told=told, connections_opening_max=6)
    for conn, host in enumerate(("a", "b", "b", "b", "c", "c")):
        assert gate.admit(conn, f"192.0.2.{'abc'.index(host)}")

    assert gate.admit(6, "192.0.2.9")
    assert (gate.gave_way(), gate.gave_way()) == (1, None)
    gate.release(1)
    assert told.counts == {"gave way": 1}


def test_the_address_with_most_is_refused_itself_and_loses_nothing() -> None:
    told = Told()
    gate = admission(told=told, connections_opening_max=4)
    assert all(gate.admit(conn, "192.0.2.1") for conn in range(4))

    assert not gate.admit(4, "192.0.2.1")
    assert gate.gave_way() is None
    assert told.counts == {"maxHandshaking": 1}


def test_a_newcomer_that_its_own_limit_refuses_drops_nobody() -> None:
    told = Told()
    gate = admission(told=told, connections_opening_max=3, connections_per_ip=3)
    for conn in range(3):
        assert gate.admit(conn, "192.0.2.1")
        gate.opened(conn)
    assert all(gate.admit(conn, "192.0.2.2") for conn in range(3, 6))

    assert not gate.admit(6, "192.0.2.1")
    assert gate.gave_way() is None
    assert told.counts == {"maxConnectionsPerIp": 1}


def test_who_holds_one_more_than_a_newcomer_gives_way_after_five_seconds_only() -> None:
    now = [0.0]
    gate = admission(now, connections_opening_max=3)
    assert all(gate.admit(conn, f"192.0.2.{conn}") for conn in range(3))
    now[0] = 4.9
    early = gate.admit(3, "192.0.2.9")
    now[0] = 5.0

    assert not early
    assert gate.admit(4, "192.0.2.9")
    assert gate.gave_way() == 0


def test_a_storm_of_good_clients_lets_in_those_who_came_first() -> None:
    now = [0.0]
    gate = admission(now, connections_opening_max=10)
    taken = [conn for conn in range(100) if gate.admit(conn, f"10.0.0.{conn}")]

    assert taken == list(range(10))


def test_an_open_connection_does_not_count() -> None:
    gate = admission(connections_opening_max=2)
    for conn in range(50):
        assert gate.admit(conn, "192.0.2.1")
        gate.opened(conn)

    assert gate.gave_way() is None


def test_addresses_without_a_limit_give_way_to_each_other_only() -> None:
    now = [0.0]
    gate = admission(now, connections_opening_max=4, trusted_proxies=("10.0.0.1",))
    assert all(gate.admit(conn, "127.0.0.2") for conn in range(4))
    now[0] = 60.0

    assert not gate.admit(4, "192.0.2.1")
    assert gate.admit(5, "10.0.0.1")
    assert gate.gave_way() == 0


def test_a_client_behind_a_proxy_holds_its_own_once_it_is_known() -> None:
    gate = admission(connections_opening_max=6, trusted_proxies=("10.0.0.1",))
    for conn in range(6):
        assert gate.admit(conn, "10.0.0.1")
        assert gate.identify(conn, "203.0.113.5" if conn < 5 else "203.0.113.6")

    assert gate.admit(6, "10.0.0.1")
    assert gate.gave_way() == 0
    assert len(gate._opening) == 5 and len(gate._opening_free) == 1


# ---- at the driver ------------------------------------------------------------------------------


class CrowdedDriver(StillDriver):
    """A driver without a loop, behind a gate for twelve handshakes."""

    def __init__(self, **limits: Any) -> None:
        super().__init__()
        self._gate = admission(**limits)


def test_what_gives_way_is_closed_forgotten_and_told() -> None:
    driver = CrowdedDriver(connections_opening_max=2)
    pairs = [socket.socketpair() for _ in range(3)]
    for (ours, _), peer in zip(pairs, ("192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"), strict=True):
        driver.serve_socket(ours, peer)
    driver.tick()
    try:
        assert pairs[0][1].recv(10) == b""
        assert list(driver.links) == [2, 3]
        assert [type(told) for told in driver.told] == [Connected] * 3 + [Disconnected]
        assert driver.told[-1] == Disconnected(1, "it gave way to another address")
    finally:
        driver.close()
        for _, theirs in pairs:
            theirs.close()


def test_what_has_no_transport_yet_is_ended_its_own_way() -> None:
    driver = CrowdedDriver(connections_opening_max=2)
    ended: list[int] = []
    assert driver.admit("192.0.2.1", lambda: ended.append(1)) == 1
    assert driver.admit("192.0.2.1", lambda: ended.append(2)) == 2
    assert driver.admit("192.0.2.2") == 3
    driver.forgo(1)
    driver.forgo(2)

    assert ended == [1]
    assert driver._unlinked == {}


# ---- what is told -------------------------------------------------------------------------------


def test_the_log_tells_of_the_first_at_once_and_of_the_others_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now, metrics = [0.0], WebSocketMetrics()
    told = TurnedAway(metrics, lambda: now[0])
    with caplog.at_level(logging.WARNING, logger="vixws"):
        for _ in range(1_000):
            now[0] += 0.1
            told.gave_way()
            told.refused("maxHandshaking")
        told.tell_rest()
        told.tell_rest()

    assert len(caplog.messages) == 3
    assert sum(int(word) for line in caplog.messages for word in line.split() if word.isdigit()) == 2_000
    assert caplog.messages[0].startswith("connections turned away: 1 dropped before their request was complete")
    assert (metrics.fold.gave_way, metrics.fold.refused) == (1_000, 1_000)


# ---- over sockets -------------------------------------------------------------------------------


async def hold(hosts: Sequence[str], port: int, count: int) -> None:
    """Holds so many connections from each address, sending nothing, and replaces each that ends; for ever."""
    with ExitStack() as stack:

        def silent(host: str) -> socket.socket:
            sock = stack.enter_context(socket.socket())
            sock.bind((host, 0))
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            return sock

        held = [(host, silent(host)) for host in hosts for _ in range(count)]
        while True:
            await anyio.sleep(0.02)
            for at, (host, sock) in enumerate(held):
                try:
                    sock.recv(1_000)  # The answer 503, or the end.
                except BlockingIOError:
                    continue
                except OSError:
                    pass  # It was reset.
                sock.close()
                held[at] = host, silent(host)


async def gets_in(host: str, port: int) -> bool:
    """Whether a good client is answered 101."""
    try:
        async with await anyio.connect_tcp("127.0.0.1", port, local_host=host) as stream:
            await stream.send(request())
            return (await stream.receive()).startswith(b"HTTP/1.1 101 ")
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
        return False


@pytest.mark.threat(8)
@pytest.mark.threat(11)
@pytest.mark.anyio
async def test_twelve_addresses_that_send_nothing_keep_no_good_client_out() -> None:
    metrics = WebSocketMetrics()
    config = limited(limit_loopback=True, connections_opening_max=60, handshakes_per_ip_per_s=1e6, metrics_listen="off")
    good = 0
    async with running(Server(config, metrics=metrics)) as at, anyio.create_task_group() as tasks:
        tasks.start_soon(hold, SILENT, at.port, 6)
        while metrics.fold.refused < 12:  # They want 72, and have all 60.
            await anyio.sleep(0.001)
        for number in range(100):
            good += await gets_in(f"127.0.1.{number}", at.port)
        tasks.cancel_scope.cancel()

    assert good >= 99
    assert metrics.fold.gave_way > 0


@pytest.mark.threat(8)
@pytest.mark.anyio
async def test_a_tls_handshake_that_never_ends_gives_way_too() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    config = limited(limit_loopback=True, connections_opening_max=3, handshakes_per_ip_per_s=1e6)
    run = Server(config, tls=server)
    async with running(run) as at:
        silent = [await anyio.connect_tcp("127.0.0.1", at.port, local_host="127.0.0.2") for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        async with connected(at.ws, ssl=client):
            with anyio.fail_after(PATIENCE_S):
                ended = await RawPeer(silent[0]).rest()
        status = (await http(at.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", tls=client))[0]
        for stream in silent:
            await stream.aclose()
        left = run._running()._admission

    assert (ended, status) == (b"", 200)
    assert len(left._opening) == 0


@pytest.mark.anyio
async def test_who_holds_most_is_answered_503_and_its_others_stay() -> None:
    config = limited(limit_loopback=True, connections_opening_max=2, handshakes_per_ip_per_s=1e6)
    async with (
        running(Server(config)) as at,
        raw_peer(at.port, open=False) as first,
        raw_peer(at.port, open=False),
    ):
        status = (await http(at.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0]
        await first.open()

    assert status == 503
    assert first.head.startswith(b"HTTP/1.1 101 ")
