"""Where a server listens: one host or several, IPv4 and IPv6, on one port."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from vixws_anyio import Config, Server
from vixws_anyio.config import ConfigError
from vixws_anyio.server.listeners import bind, is_loopback, port_of
from vixws_anyio.transport.driver import address_text
from vixws_core.errors import LocalError

from .command_line import LOOPS, last_words, serving
from .rig import RawPeer, running


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def bound(host: str, port: int = 0) -> list[tuple[str, int]]:
    """The addresses that a host is listened on."""
    sockets = bind(host, port, "the setting")
    try:
        return [sock.getsockname()[:2] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


async def peer_of(server: Server, address: str) -> str | None:
    """What the server calls a client of that address; None where nobody listens there."""
    peers: list[str] = []
    server.on_open(lambda session: peers.append(session.peer))
    async with running(server) as at:
        try:
            async with await anyio.connect_tcp(address, at.port) as stream:
                await RawPeer(stream).open()
        except OSError:
            return None
    return peers[0].rpartition(":")[0]


# ---- the setting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "hosts"),
    [
        ("::", "::", ("::",)),
        ("127.0.0.1,::1", "127.0.0.1,::1", ("127.0.0.1", "::1")),
        (" 127.0.0.1 , ::1 ", "127.0.0.1,::1", ("127.0.0.1", "::1")),
        (["127.0.0.1", "::1"], "127.0.0.1,::1", ("127.0.0.1", "::1")),
        (("localhost", "localhost"), "localhost", ("localhost",)),
    ],
)
def test_a_host_is_one_or_several(given: Any, host: str, hosts: tuple[str, ...]) -> None:
    config = Config(host=given)

    assert (config.host, config.hosts) == (host, hosts)
    assert Config.load(flags={"host": given}).host == host if isinstance(given, str) else True
    assert config.replace(host=config.host) == config


@pytest.mark.parametrize(
    "given",
    ["", ",", "a,", "127.0.0.1,http://x", [], ["a", 1], ["a b"], [["a"]], 7, None, ["a"] * 17, "\x1b,a", "a b,c"],
)
def test_what_is_no_host_is_refused_whole(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^host: expected a host name or an IP address, or up to 16 of them, got "):
        Config(host=given)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1,127.0.0.2", True),
        ("127.0.0.1,0.0.0.0", False),
        ("0.0.0.0,127.0.0.1", False),
        ("127.0.0.1,::", False),
    ],
)
def test_loopback_is_where_all_hosts_are(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here


def test_what_cannot_be_looked_up_is_not_taken_for_loopback() -> None:
    with pytest.raises(LocalError, match="cannot listen on no"):
        is_loopback("127.0.0.1,no.such.host.invalid")


@pytest.mark.anyio
async def test_a_host_beside_loopback_needs_access_rules_too() -> None:
    with pytest.raises(LocalError, match=r"^websocket.host: expected server.authenticate .*got 127.0.0.1,0.0.0.0 "):
        await Server(host="127.0.0.1,0.0.0.0", port=0).serve()


# ---- the command --------------------------------------------------------------------------------


@ipv6
@pytest.mark.parametrize("loop", LOOPS)
def test_the_ready_line_is_of_the_first_host_and_names_all(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, "--store", "memory://", "--host", "127.0.0.1,::1", *LOOPS[loop]) as served:
        port = served.ready["port"]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, int(port))).close()
        code, _ = served.end()
    with serving(tmp_path, "--store", "memory://") as alone:
        pass

    assert served.ready["ws"] == f"ws://127.0.0.1:{port}/"
    assert served.ready["all"] == f"ws://127.0.0.1:{port}/,ws://[::1]:{port}/"
    assert code == 0
    assert not alone.ready["all"]


def test_a_port_that_one_host_has_taken_is_told_with_its_settings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        flags = ("--port", str(port_of(taken)), "--metrics", "off", "--store", "memory://")
        line = last_words(tmp_path, "--host", "127.0.0.1,127.0.0.2", *flags)

    assert line.startswith(f"vixws serve: cannot listen on 127.0.0.2:{flags[1]}: ")
    assert line.endswith("in use (websocket.host and websocket.port: --host, --port)")


# ---- listening ----------------------------------------------------------------------------------


def test_all_hosts_have_one_port_and_each_address_is_taken_once() -> None:
    places = bound("127.0.0.1,127.0.0.2,127.0.0.1")

    assert [host for host, _ in places] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in places}) == 1


@ipv6
def test_a_wildcard_of_ipv6_takes_ipv4_too_unless_it_is_named() -> None:
    only: dict[str, list[bool]] = {}
    for host in ("::", "0.0.0.0,::", "127.0.0.1,::", "::1"):
        for sock in bind(host, 0, "the setting"):
            with sock:
                if sock.family == socket.AF_INET6:
                    only.setdefault(host, []).append(bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)))

    assert only == {"::": [False], "0.0.0.0,::": [True], "127.0.0.1,::": [True], "::1": [True]}


def test_one_host_that_cannot_be_had_leaves_no_other_and_names_the_setting() -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = port_of(taken)
        with pytest.raises(LocalError, match=rf"^cannot listen on 127\.0\.0\.2:{port}: .*in use \(the setting\)$"):
            bind("127.0.0.1,127.0.0.2", port, "the setting")

        assert bound("127.0.0.1", port) == [("127.0.0.1", port)]
    with pytest.raises(LocalError, match=r"^cannot listen on no\.such\.host\.invalid:0: .*\(the setting\)$"):
        bind("127.0.0.1,no.such.host.invalid", 0, "the setting")


def test_a_free_port_that_another_host_has_taken_is_not_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        free = [port_of(taken), 0]
        real = socket.socket.bind

        def bind_to(sock: socket.socket, address: Any) -> None:
            real(sock, (address[0], free.pop(0) if free and not address[1] else address[1]))

        monkeypatch.setattr(socket.socket, "bind", bind_to)
        places = bound("127.0.0.1,127.0.0.2")

    assert len(places) == 2
    assert places[0][1] == places[1][1] != 0


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 9), "192.0.2.1:9"),
        (("::ffff:192.0.2.1", 9, 0, 0), "192.0.2.1:9"),
        (("2001:db8::1", 9, 0, 0), "[2001:db8::1]:9"),
        (("::ffff:0:102:304", 9, 0, 0), "[::ffff:0:102:304]:9"),
        ("", "unix"),
    ],
)
def test_an_ipv4_client_is_called_the_same_over_either_listener(address: Any, text: str) -> None:
    assert address_text(address) == text


@ipv6
@pytest.mark.anyio
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_both_families_reach_a_server_of_both(address: str) -> None:
    expected = f"[{address}]" if ":" in address else address

    assert await peer_of(Server(host="127.0.0.1,::1", port=0), address) == expected
    assert await peer_of(Server(Config(host="::", port=0, access="open")), address) == expected
    assert (await peer_of(Server(host="127.0.0.1", port=0), address) is None) is (address == "::1")


@ipv6
@pytest.mark.anyio
async def test_a_server_of_several_hosts_names_them_all() -> None:
    async with running(Server(host="127.0.0.1,::1", port=0)) as at:
        pass

    assert at.host == "127.0.0.1"
    assert (at.ws, at.all_ws) == (
        f"ws://127.0.0.1:{at.port}/",
        (f"ws://127.0.0.1:{at.port}/", f"ws://[::1]:{at.port}/"),
    )
