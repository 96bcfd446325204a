"""No token, cookie or query string is in any line of the log, whatever a handler's exception says of it."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from vixws_anyio.logs import HIDDEN, conceal, report
from vixws_core.app.access import AuthRequest

from .command_line import LOOPS, PATIENCE_S, Served, serving

APPLICATION = """
import asyncio
from vixws_anyio import Config, Server, Session
from vixws_core.app.access import Denied, User

server = Server(Config(allowed_origins=("https://pages.example",)))
USERS = {"nobody": 1}


@server.authenticate
def who(request):
    kind = request.path.strip("/")
    if not request.in_message and not request.token and not request.cookies and "?" not in request.target:
        return None  # Tell it in $hello.
    if "KeyError" in str(request.headers) or request.in_message:
        return USERS[request.token]
    for name in ("x-fail",):
        match request.header(name):
            case "int":
                return int(request.token)
            case "headers":
                raise ValueError(f"what is {request.headers}?")
            case "cookies":
                raise LookupError(request.cookies, request.header("cookie"))
            case "query":
                raise ValueError(f"{request.target} {request.query}")
            case "request":
                raise ValueError(request)
            case "answer":
                return request.token
            case "group":
                raise ExceptionGroup("all", [ValueError(request.token), KeyError(request.token)])
            case "denied":
                raise Denied("no", headers={"set-cookie": "s=" + request.token + "\\n"})
    return User("ada")


@server.on_open
def opened(session: Session) -> None:
    if "open" in session.target:
        raise RuntimeError(f"{session.headers} {session.target} {session.query}")


@server.on("plain")
def plain(session: Session, payload: dict) -> None:
    raise RuntimeError(session.headers, session.target)


@server.on("wait")
async def wait(session: Session, payload: dict) -> None:
    try:
        raise KeyError(session.query)
    finally:
        raise ValueError(session.header("authorization") if hasattr(session, "header") else session.headers)


@server.on("thread", thread=True)
def thread(session: Session, payload: dict) -> None:
    raise RuntimeError(dict(session.headers))


@server.on_error
def failed(session: Session, exc: Exception) -> None:
    raise TypeError(str(exc))


@server.page("/page")
def page(request):
    raise ValueError(f"{request}")
"""

TOKEN = "eyJhbGciOiJIUzI1NiJ9." + "secret-of-the-header" * 20 + ".sig"
OFFERED = "secret-of-the-subprotocol"
COOKIE = "secret-of-the-cookie"
QUERY = "secret-of-the-query"
ENCODED = "secret%20of%2Bthe%20query"
SAID = "secret-of-hello"
SECRETS = (TOKEN, TOKEN[:40], "secret-of-the-header", OFFERED, COOKIE, QUERY, ENCODED, "secret of+the query", SAID)


def refused(ws: str, path: str = "", offered: str = "", **headers: str) -> int:
    """The status of an upgrade that fails."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    subprotocols = [Subprotocol(offered)] if offered else None
    with pytest.raises(InvalidStatus) as caught:
        connect(ws + path, additional_headers=sent, subprotocols=subprotocols, compression=None).__enter__()
    return caught.value.response.status_code


def closed(ws: str, message: str, path: str = "", **headers: str) -> int:
    """The code of the close that a message is answered with."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect(ws + path, additional_headers=sent, compression=None) as client:
        try:
            if message:
                client.send(message)
            while True:
                client.recv(PATIENCE_S)
        except ConnectionClosed as exc:
            return 1006 if exc.rcvd is None else exc.rcvd.code


def provoke(served: Served) -> None:
    """Lets every hook and handler fail, each with secrets at hand."""
    ws, bearer = served.ready["ws"], f"Bearer {TOKEN}"
    for way in ("int", "headers", "request", "answer", "group"):
        assert refused(ws, Authorization=bearer, x_fail=way) == 500
        assert refused(ws, offered=f"vixws.bearer.{OFFERED}", x_fail=way) == 500
    assert refused(ws, Authorization=bearer, x_fail="KeyError") == 500
    assert refused(ws, Authorization=bearer, x_fail="denied") == 500
    cookies = {"Cookie": f"a=1; session={COOKIE}", "Origin": "https://pages.example"}
    for way in ("cookies", "headers"):
        assert refused(ws, x_fail=way, **cookies) == 500
    assert refused(ws, f"?token={QUERY}&more={ENCODED}", x_fail="query") == 500
    assert closed(ws, json.dumps({"type": "$hello", "payload": {"v": [1], "token": SAID}})) != 1000
    path = f"?token={QUERY}&more={ENCODED}"
    for type in ("plain", "wait", "thread"):
        told = json.dumps({"type": type, "payload": {}})
        assert closed(ws, told, path, Authorization=bearer, **cookies) == 1011
    assert closed(ws, "", f"{path}&open", Authorization=bearer, **cookies) == 1011
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(
            urllib.request.Request(f"{served.ready['http']}page{path}", headers={"Authorization": bearer}),
            timeout=PATIENCE_S,
        )


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("loop", LOOPS)
def test_no_secret_is_in_the_log_at_any_level(tmp_path: Path, loop: str, form: str) -> None:
    (tmp_path / "secretive.py").write_text(APPLICATION)
    flags = ("--app", "secretive:server", "--log-level", "debug", "--log-format", form, *LOOPS[loop])
    with (tmp_path / "log").open("w+") as file:
        with serving(tmp_path, *flags, stderr=file) as served:
            provoke(served)
            served.process.terminate()
            code = served.process.wait(PATIENCE_S)
        file.seek(0)
        text = file.read()

    assert code == 0
    assert [secret for secret in SECRETS if secret in text] == []
    assert text.count(HIDDEN) > 20
    lines = text.splitlines()
    assert sum("failed" in line for line in lines) > 18
    if form == "json":
        events = [json.loads(line) for line in lines]
        assert {"time", "level", "logger", "message"} == set(events[0])
        assert any("Traceback (most recent call last):\n" in event.get("traceback", "") for event in events)


def test_what_looks_like_a_secret_is_hidden_in_any_line() -> None:
    assert conceal("Authorization: Bearer abc.def, then") == f"Authorization: Bearer {HIDDEN}, then"
    assert conceal("offered vixws.bearer.abc.def-g") == f"offered vixws.bearer.{HIDDEN}"
    assert conceal("('cookie', 'a=1; b=2') next") == f"('cookie', '{HIDDEN}') next"
    assert conceal("GET /ws?token=abc HTTP/1.1") == f"GET /ws?{HIDDEN} HTTP/1.1"
    assert conceal("is it so? it is") == "is it so? it is"


@pytest.mark.parametrize("conjure", [lambda: BadRepr(), lambda: ValueError("x" * 5_000_000)])
def test_an_exception_of_any_kind_is_one_event(
    conjure: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    headers = tuple((f"x-{number}", "v") for number in range(60))
    request = AuthRequest("/?" + "&".join(f"a={number:06}" for number in range(900)), headers, token="t" * 4_000)
    report(request, conjure(), "hand\nler")

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("handler hand\\nler of <AuthRequest '/' from ''> failed: ")


class BadRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__
