"""What a browser may do: pages of other origins are refused, and a subprotocol carries the token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("playwright") is None and os.environ.get("CI") != "true":
    pytest.skip("playwright is not installed", allow_module_level=True)

from playwright.sync_api import Browser, Page

from tests.serving import Served, serving

APP = """
from vixws_anyio import Denied, PageRequest, Server, User

server = Server()


@server.page("/blank")
def blank(request: PageRequest) -> str:
    return "<!doctype html><title>blank</title>"


@server.authenticate
def who(request):
    name = request.token or request.cookies.get("sid")
    if name not in ("ada", "bob"):
        raise Denied("nobody we know")
    return User(name)
"""

CONNECT = """([url, protocols]) => new Promise(done => {
  const socket = new WebSocket(url, protocols)
  socket.onopen = () => socket.send(JSON.stringify({type: "$hello", ref: "1", payload: {v: [1]}}))
  socket.onmessage = event => {
    done([socket.protocol, JSON.parse(event.data).payload.user])
    socket.close()
  }
  socket.onerror = () => done("refused")
})"""
"""Opens a WebSocket and says `$hello`; gives the subprotocol and the user, or `refused`."""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "blank.py").write_text(APP, encoding="utf-8")
    return tmp_path


def blank_site(folder: Path, *flags: str) -> Any:
    return serving(folder, "--app", "blank:server", "--store", "memory://", *flags)


def visit(page: Page, served: Served, cookie: str = "") -> list[str]:
    """Opens a blank page of that server; returns what Chromium will say on its console."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{served.http}blank")
    if cookie:
        page.evaluate("cookie => { document.cookie = cookie }", cookie)
    return said


def test_a_page_of_another_origin_is_answered_403_and_the_own_one_is_let_in(page: Page, app: Path) -> None:
    token = ["vixws.v1", "vixws.bearer.ada"]
    with blank_site(app) as other, blank_site(app, "--allowed-origins", "https://chat.example") as guarded:
        said = visit(page, other)
        refused = page.evaluate(CONNECT, [guarded.ws, token])
        own = page.evaluate(CONNECT, [other.ws, token])
        visit(page, guarded)
        again = page.evaluate(CONNECT, [guarded.ws, token])

    assert refused == "refused"
    assert [text for text in said if "Unexpected response code: 403" in text and guarded.ws in text] != []
    assert own == again == ["vixws.v1", "ada"]


def test_a_page_of_a_listed_origin_is_let_in(page: Page, app: Path) -> None:
    with blank_site(app) as other, blank_site(app, "--allowed-origins", other.http.rstrip("/")) as server:
        visit(page, other)

        assert page.evaluate(CONNECT, [server.ws, ["vixws.v1", "vixws.bearer.bob"]]) == ["vixws.v1", "bob"]


def test_a_bad_token_fails_the_socket(page: Page, app: Path) -> None:
    with blank_site(app) as server:
        said = visit(page, server)
        refused = page.evaluate(CONNECT, [server.ws, ["vixws.v1", "vixws.bearer.eve"]])

    assert refused == "refused"
    assert any("code: 401" in text or "Authentication" in text for text in said)


def test_the_cookie_of_a_visitor_counts_for_allowed_pages_alone(page: Page, app: Path) -> None:
    """Cookies know no ports: a page of another server on the same host sends them as well."""
    with blank_site(app) as server, blank_site(app, "--allowed-origins", "*") as lax, blank_site(app) as other:
        visit(page, server, "sid=ada")
        own = page.evaluate(CONNECT, [server.ws, []])
        visit(page, other)
        from_other = page.evaluate(CONNECT, [server.ws, []])
        from_any = page.evaluate(CONNECT, [lax.ws, []])

    assert own == ["", "ada"]
    assert from_other == from_any == "refused"
