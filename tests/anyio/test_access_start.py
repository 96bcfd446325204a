"""A server that lets everybody do everything says so, and never starts so where other machines reach it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from vixws_anyio import Grant, Server, User
from vixws_core.errors import LocalError

from .command_line import refused, serving
from .rig import connected, limited, running

OPEN = "open access: "


def nobody(server: Server) -> None:
    """Registers nothing."""


def users(server: Server) -> None:
    server.authenticate(lambda request: User("ada"))


def grants(server: Server) -> None:
    server.authorize(lambda user, action, room: Grant())


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_without_hooks_it_does_not_start_where_others_reach_it(host: str) -> None:
    server = Server(host=host, port=0)

    with pytest.raises(LocalError) as caught:
        await server.serve()

    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in ("server.authenticate", "server.authorize", "auth.access", "--access open"))
    assert server.listening is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "access", "hooks", "told"),
    [
        ("127.0.0.1", "auto", nobody, 1),
        ("localhost", "auto", nobody, 1),
        ("127.0.0.1", "auto", users, 0),
        ("127.0.0.1", "open", nobody, 0),
        ("0.0.0.0", "auto", users, 0),
        ("0.0.0.0", "auto", grants, 0),
        ("0.0.0.0", "open", nobody, 0),
        ("0.0.0.0", "closed", nobody, 0),
    ],
)
async def test_it_starts_where_somebody_says_what_holds_and_tells_once_that_it_is_open(
    host: str, access: str, hooks: Callable[[Server], None], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(limited(host=host, access=access))
    hooks(server)
    with caplog.at_level(logging.INFO, "vixws"):
        async with running(server) as at, connected(at.ws):
            pass

    assert sum(record.getMessage().startswith(OPEN) for record in caplog.records) == told


@pytest.mark.anyio
async def test_closed_without_hooks_lets_nobody_do_anything() -> None:
    async with running(Server(limited(access="closed"))) as at, connected(at.ws) as peer:
        answers = [
            await peer.ask({"type": type, "ref": "1", "room": "africa"})
            for type in ("$join", "$history", "$position", "say")
        ]

    assert [answer["payload"]["code"] for answer in answers] == ["denied"] * 4


@pytest.mark.parametrize(
    ("flag", "place"), [(("--host", "0.0.0.0"), "--host"), (("--config", "config.json"), "config.json: websocket.host")]
)
def test_the_command_refuses_in_one_line_that_says_what_to_do(
    tmp_path: Path, flag: tuple[str, ...], place: str
) -> None:
    (tmp_path / "config.json").write_text('{"websocket": {"host": "0.0.0.0"}}', encoding="utf-8")

    line = refused(tmp_path, "--port", "0", "--metrics", "off", *flag)

    assert line.startswith(f"{place}: expected server.authenticate and server.authorize, or an explicit auth.access")


def test_the_command_starts_where_open_access_is_meant(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--access", "open") as served:
        code, lines = served.end()

    assert code == 0
    assert not any(OPEN in line for line in lines)


def test_on_loopback_the_command_starts_and_says_once_that_access_is_open(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        code, lines = served.end()

    assert code == 0
    assert sum(OPEN in line for line in lines) == 1


def test_the_built_in_chat_does_not_pretend_to_be_closed(tmp_path: Path) -> None:
    line = refused(tmp_path, "--port", "0", "--metrics", "off", "--access", "closed")

    assert line == (
        "--access: expected auto or open, or an application by --app, as the built-in chat lets everybody into every "
        'room, got "closed"'
    )
