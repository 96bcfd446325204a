"""Plain HTTP on the server's port: the chat page, the health checks, and the application's own pages."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from vixws_anyio import Page, PageRequest, Server, Session
from vixws_core.errors import LocalError

from .rig import connected, get, http, running

pytestmark = pytest.mark.anyio


async def test_a_page_answers_text_as_html_and_objects_as_json() -> None:
    server = Server(port=0)

    @server.page("/about")
    def about(request: PageRequest) -> str:
        return "<h1>Über uns</h1>"

    @server.page("/rooms")
    def rooms(request: PageRequest) -> dict[str, Any]:
        return {"rooms": server.rooms()}

    async with running(server) as at:
        status, headers, body = await http(at.port, get("/about"))
        assert (status, headers["content-type"], body.decode()) == (
            200,
            "text/html; charset=utf-8",
            "<h1>Über uns</h1>",
        )
        assert headers["x-content-type-options"] == "nosniff"
        status, headers, body = await http(at.port, get("/rooms"))

    assert (status, headers["content-type"], body) == (200, "application/json", b'{"rooms":[]}')


async def test_a_page_sees_its_request_and_decides_about_its_answer() -> None:
    server = Server(port=0)
    seen: list[PageRequest] = []

    @server.page("/a b")
    def answer(request: PageRequest) -> Page:
        seen.append(request)
        return Page(b"x", "text/plain", 404, (("Cache-Control", "no-store"), ("x-own", "1")))

    async with running(server) as at:
        status, headers, body = await http(at.port, get("/a%20b?room=africa&n=1"))

    assert (status, body, headers["content-type"], headers["x-own"]) == (404, b"x", "text/plain", "1")
    assert headers["cache-control"] == "no-store"
    (request,) = seen
    assert (request.method, request.path, request.query) == ("GET", "/a%20b", "room=africa&n=1")
    assert (request.header("host"), request.header("cookie", "none")) == ("localhost", "none")


async def test_a_page_at_the_root_replaces_the_chat_page_and_leaves_the_websocket() -> None:
    server = Server(port=0)
    server.page("/")(lambda request: "mine")

    @server.on_message
    def echo(session: Session, message: str | bytes) -> None:
        session.send_text(str(message))

    async with running(server) as at:
        assert (await http(at.port, get("/")))[2] == b"mine"
        async with connected(at.ws) as peer:
            await peer.send("hello")
            assert await peer.raw() == "hello"
        status, _, body = await http(at.port, get("/healthz"))

    assert (status, body) == (200, b"ok\n")


async def test_head_of_a_page_has_its_length_and_no_body() -> None:
    server = Server(port=0)
    server.page("/p")(lambda request: request.method + "!")

    async with running(server) as at:
        status, headers, body = await http(at.port, get("/p", "HEAD"))
        other, allowed, _ = await http(at.port, get("/p", "DELETE"))

    assert (status, headers["content-length"], body) == (200, "5", b"")
    assert (other, allowed["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "returned",
    [Page(b"", status=99), Page(b"", headers=(("x", "a\r\nb: c"),)), {"a": float("nan")}, object(), "\ud800"],
    ids=["status", "header", "nan", "no json", "no text"],
)
async def test_a_page_that_cannot_be_sent_is_reported_and_answered_500(
    returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(port=0)
    server.page("/bad")(lambda request: returned)

    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at:
            status, _, body = await http(at.port, get("/bad"))
            assert (status, body) == (500, b"internal error\n")
            assert (await http(at.port, get("/healthz")))[0] == 200

    assert "pages" in caplog.text


@pytest.mark.parametrize("path", ["no-slash", "/a?b", "/a#b", "/healthz", "/readyz", "/taken"])
async def test_a_path_that_cannot_be_a_page_is_refused(path: str) -> None:
    server = Server(port=0)
    server.page("/taken")(lambda request: "")

    with pytest.raises(LocalError, match="path"):
        server.page(path)


async def test_an_async_page_is_refused() -> None:
    async def waits(request: PageRequest) -> str:
        return ""

    with pytest.raises(LocalError, match="async"):
        Server(port=0).page("/w")(waits)
