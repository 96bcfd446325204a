"""Who somebody is and what they may do, on a running server: every way to prove it, its end, and what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from vixws_anyio import AuthRequest, Client, ClientEnded, Denied, Grant, Server, Session, User
from vixws_anyio.client import JoinError

from .rig import PATIENCE_S, Peer, connected, frame, http, limited, raw_peer, request, running

pytestmark = pytest.mark.anyio

KINDS = ["plain", "async", "thread"]
HELLO = {"type": "$hello", "ref": "h", "payload": {"v": [1]}}


def who_is(request: AuthRequest) -> User | None:
    """The token names the user; the cookie does so too; nobody is called mallory."""
    name = request.token or request.cookies.get("sid", "")
    if name == "mallory":
        raise Denied("nobody is called mallory")
    return User(name, {"in_message": request.in_message}) if name else None


def register(decorator: Callable[..., Any], hook: Callable[..., Any], kind: str) -> None:
    """Registers a hook as a plain function, one that waits, or one that blocks a thread."""

    async def waits(*args: Any) -> Any:
        await anyio.sleep(0)
        return hook(*args)

    def blocks(*args: Any) -> Any:
        time.sleep(0.001)
        return hook(*args)

    if kind == "plain":
        decorator(hook)
    elif kind == "async":
        decorator(waits)
    else:
        decorator(thread=True)(blocks)


def server_of(kind: str = "plain", **settings: Any) -> Server:
    """A server that asks `who_is`, with these settings."""
    server = Server(limited(**settings))
    register(server.authenticate, who_is, kind)
    return server


def as_user(url: str, name: str) -> AbstractAsyncContextManager[Peer]:
    """A connection that proves who it is by its header."""
    return connected(url, additional_headers={"Authorization": f"Bearer {name}"})


def join(room: str) -> dict[str, object]:
    return {"type": "$join", "ref": f"join {room}", "room": room, "payload": {}}


# ---- at the upgrade -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_header_proves_who_it_is_and_from_says_so_to_others(kind: str) -> None:
    server = server_of(kind)
    users: list[User | None] = []
    server.on_open(lambda session: users.append(session.user))

    async with running(server) as at, as_user(at.ws, "ada") as ada, as_user(at.ws, "bob") as bob:
        welcome = await ada.ask(HELLO)
        await bob.ask(join("africa"))
        await ada.send({"type": "say", "room": "africa", "from": "eve", "payload": {"text": "Hi"}})
        heard = await bob.receive_type("say")

    assert welcome["payload"]["user"] == "ada"
    assert heard["from"] == "ada"
    assert sorted(user.id for user in users if user is not None) == ["ada", "bob"]


@pytest.mark.parametrize("offered", [["vixws.v1", "vixws.bearer.ada"], ["vixws.bearer.ada", "vixws.v1"]])
async def test_a_subprotocol_that_carries_a_token_is_read_and_never_echoed(offered: list[str]) -> None:
    server = server_of()
    offers: list[tuple[str, ...]] = []
    server.on_open(lambda session: offers.append((str(session.subprotocol), str(session.user))))

    async with running(server) as at, connected(at.ws, subprotocols=offered) as peer:
        welcome = await peer.ask(HELLO)

    assert welcome["payload"]["user"] == "ada"
    assert peer.connection.subprotocol == "vixws.v1"  # type: ignore[union-attr]  # ws:, so it is no LoopConnection
    assert offers == [("vixws.v1", "<User 'ada'>")]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("Origin: https://chat.example", 101),
        ("Origin: http://localhost", 101),  # The server's own: the request's Host.
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("X-Other: 1", 401),  # No page: its cookie could be anybody's.
    ],
)
async def test_a_cookie_proves_something_from_an_allowed_page_only(origin: str, status: int) -> None:
    server = Server(limited(allowed_origins=("https://chat.example",)))
    asked: list[dict[str, str]] = []

    @server.authenticate
    def by_cookie(request: AuthRequest) -> User:
        asked.append(dict(request.cookies))
        if "sid" not in request.cookies:
            raise Denied("log in first")
        return User(request.cookies["sid"])

    async with running(server) as at, raw_peer(at.port, open=False) as peer:
        await peer.stream.send(request("/", origin, "Cookie: sid=ada"))
        head = await peer.stream.receive()

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert asked == {101: [{"sid": "ada"}], 401: [{}], 403: []}[status]


@pytest.mark.parametrize("path", ["/", "/ws", "/agents"])
@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_denied_is_answered_401_on_every_route(kind: str, path: str) -> None:
    server = server_of(kind)
    opened: list[Session] = []
    server.on_open(opened.append)
    server.route("/agents").on_open(opened.append)

    async with running(server) as at:
        status, headers, body = await http(at.port, request(path, "Authorization: Bearer mallory").decode())

    assert (status, headers["www-authenticate"], body) == (401, "Bearer", b"nobody is called mallory\n")
    assert opened == []


async def test_a_second_route_obeys_the_same_rules() -> None:
    server = server_of()
    server.authorize(lambda user, action, room: Grant() if room == user.id else None)
    agents = server.route("/agents")
    names: list[str] = []
    agents.on_open(lambda session: names.append(session.user.id))
    agents.on("whoami")(lambda session, payload: {"id": session.user.id})

    async with running(server) as at, as_user(f"{at.ws}agents", "ada") as ada:
        answers = [
            await ada.ask({"type": "whoami", "ref": "1"}),
            await ada.ask({"type": "note", "ref": "2", "room": "bob"}),
            await ada.ask({"type": "note", "ref": "3", "room": "ada"}),
        ]

    assert names == ["ada"]
    assert answers[0]["payload"] == {"id": "ada"}
    assert answers[1]["payload"]["code"] == "denied"
    assert answers[2]["type"] == "$ack"


# ---- with the first message ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_our_own_client_shows_its_token_in_the_first_message(kind: str) -> None:
    server = server_of(kind)
    users: list[User | None] = []
    server.on_open(lambda session: users.append(session.user))

    async with running(server) as at, Client(at.ws, token="ada") as client:
        stored = await client.publish("africa", "say", {"text": "Hi"})
        opened = client.welcome
        history = await client.history("africa")

    assert opened is not None and opened.user == "ada"
    assert [(user.id, dict(user.claims)) for user in users if user] == [("ada", {"in_message": True})]
    assert stored.off == 1 and [message.off for message in history.messages] == [1]


@pytest.mark.parametrize("token", ["mallory", "", None])
async def test_a_client_with_a_bad_token_or_none_stays_away(token: str | None) -> None:
    server = server_of()

    async with running(server) as at:
        with pytest.raises(ClientEnded) as caught:
            async with Client(at.ws, token=token) as client:
                await client.wait_open()
        assert server.sessions() == []

    assert caught.value.code == 4001


# ---- hooks that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_hook_that_hangs_has_a_deadline(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(limited(auth_deadline_s=0.05, drain_s=60))
    over = threading.Event()

    async def waits(request: AuthRequest) -> User:
        await anyio.sleep_forever()
        raise AssertionError

    def blocks(request: AuthRequest) -> User:
        over.wait(PATIENCE_S)
        return User("ada")

    if kind == "async":
        server.authenticate(waits)
    else:
        server.authenticate(thread=True)(blocks)
    try:
        with caplog.at_level(logging.ERROR, "vixws"):
            async with running(server) as at:
                status, headers, _ = await http(at.port, request().decode())
                sessions = server.sessions()
    finally:
        over.set()

    assert (status, headers["retry-after"], sessions) == (503, "5", [])
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TimeoutError]


async def test_a_hook_that_hangs_behind_a_hello_lets_nobody_in_and_the_client_may_come_back() -> None:
    server = Server(limited(auth_deadline_s=0.05))
    asked = 0

    @server.authenticate
    async def who(request: AuthRequest) -> User | None:
        nonlocal asked
        if not request.in_message:
            return None
        asked += 1
        if asked == 1:
            await anyio.sleep_forever()
        return User(request.token)

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send({"type": "$hello", "payload": {"v": [1], "token": "ada"}})
        ended = await peer.ended()
        async with Client(at.ws, token="ada") as client:
            await client.wait_open()

    assert ended == (4113, "who you are could not be told")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_hook_that_raises_is_a_500_and_no_pass(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(limited())

    def broken(request: AuthRequest) -> User:
        raise ValueError(f"no database for {request.path}")

    register(server.authenticate, broken, kind)
    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at:
            status, _, body = await http(at.port, request().decode())
            sessions = server.sessions()

    assert (status, body, sessions) == (500, b"internal error\n", [])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["raises", "hangs"])
async def test_a_hook_that_fails_to_say_what_is_granted_grants_nothing(kind: str) -> None:
    server = server_of(auth_deadline_s=0.05)

    @server.authorize
    async def may(user: User, action: str, room: str) -> Grant:
        if kind == "raises":
            raise ValueError("no database")
        await anyio.sleep_forever()
        raise AssertionError

    async with running(server) as at, as_user(at.ws, "ada") as ada:
        answers = [await ada.ask(join("africa")), await ada.ask({"type": "say", "room": "africa", "ref": "2"})]
        rooms = server.rooms()

    assert [answer["payload"]["code"] for answer in answers] == ["internal", "internal"]
    assert rooms == []


@pytest.mark.parametrize("hook", ["authenticate", "authorize"])
async def test_a_stop_waits_for_a_hook_no_longer_than_its_deadline(hook: str) -> None:
    server = server_of(auth_deadline_s=0.3, drain_s=60, close_timeout_s=0.5)
    asked = anyio.Event()

    async def hangs(*args: Any) -> None:
        asked.set()
        await anyio.sleep_forever()

    if hook == "authenticate":
        server.authenticator = None
    getattr(server, hook)(hangs)
    async with anyio.create_task_group() as tasks:
        at = await tasks.start(server.serve)
        async with raw_peer(at.port, open=False) as peer:
            await peer.stream.send(request("/", "Authorization: Bearer ada") + frame(join("africa")))
            await asked.wait()
            began = anyio.current_time()
            server.stop()
            await peer.rest()

    assert anyio.current_time() - began < 10


@pytest.mark.parametrize("outcome", ["pass", "denial", "failure"])
async def test_what_proves_something_stands_in_no_log(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(limited())
    failures = {"denial": Denied("no"), "failure": ValueError("no database")}

    @server.authenticate
    def who(request: AuthRequest) -> User | None:
        if outcome in failures and (request.token or request.in_message):
            raise failures[outcome]
        return User("ada") if request.token else None

    with caplog.at_level(logging.DEBUG):
        async with running(server) as at:
            for line in ("Authorization: Bearer hush", "Sec-WebSocket-Protocol: vixws.bearer.hush", "Cookie: sid=hush"):
                async with raw_peer(at.port, open=False) as peer:
                    await peer.stream.send(request("/", line))
                    await peer.stream.receive()
            async with connected(at.ws) as behind:
                await behind.send({"type": "$hello", "payload": {"v": [1], "token": "hush"}})
                await (behind.receive() if outcome == "pass" else behind.ended())

    assert "hush" not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("vixws"))
    assert "hush" not in "".join(str(record.exc_text or "") for record in caplog.records)


# ---- what may be done ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_granted_is_not_done(kind: str) -> None:
    server = server_of()
    asked: list[tuple[str, str, str]] = []

    def may(user: User, action: str, room: str) -> Grant | None:
        asked.append((user.id, action, room))
        return Grant() if user.id == "ada" else None

    register(server.authorize, may, kind)
    async with running(server) as at, Client(at.ws, token="ada") as ada, Client(at.ws, token="bob") as bob:
        await ada.join("secret")
        await ada.publish("secret", "note", {"n": 1})
        with pytest.raises(JoinError, match="denied"):
            await bob.join("secret")
        members = [session.user and session.user.id for session in server.members("secret")]

    assert members == ["ada"]
    assert asked == [("ada", "join", "secret"), ("ada", "publish", "secret"), ("bob", "join", "secret")]


@pytest.mark.parametrize("thread", [False, True])
async def test_a_revoke_puts_out_of_the_room_and_nothing_of_it_follows(thread: bool) -> None:
    server = server_of()
    banned: set[str] = set()
    server.authorize(lambda user, action, room: None if user.id in banned else Grant())

    def ban(session: Session, payload: dict[str, str]) -> None:
        banned.add(payload["user"])
        server.revoke(payload["user"], "africa")

    server.on("ban", thread=thread)(ban)
    async with running(server) as at, as_user(at.ws, "ada") as ada, as_user(at.ws, "bob") as bob:
        for peer in (ada, bob):
            await peer.ask(join("africa"))
            await peer.receive_type("$live")
        await ada.send({"type": "ban", "payload": {"user": "bob"}})
        kicked = await bob.receive()
        await ada.send({"type": "say", "room": "africa"})
        await ada.receive_type("say")
        again = await bob.ask(join("africa"))
        server.revoke("ada", now=True)
        ended = await ada.ended()

    assert (kicked["type"], kicked["room"], kicked["payload"]) == ("$kicked", "africa", {"code": "revoked"})
    assert again["payload"]["code"] == "denied"
    assert ended[0] in (4003, 1006)  # What waits to be sent is dropped, and the close frame may be too.


async def test_our_own_client_hears_that_it_was_put_out() -> None:
    server = server_of()

    async with running(server) as at, Client(at.ws, token="ada") as client:
        await client.join("africa")
        with anyio.fail_after(PATIENCE_S):
            server.revoke("ada")
            with pytest.raises(JoinError, match="revoked"):
                async for _ in client.room("africa"):
                    raise AssertionError("nothing comes")


async def test_everybody_has_a_room_of_their_own() -> None:
    server = server_of()
    server.authorize(lambda user, action, room: None)

    async with running(server) as at, as_user(at.ws, "ada") as ada, as_user(at.ws, "bob") as bob:
        await ada.ask(join("@user/ada"))
        await ada.receive_type("$live")
        denied = await bob.ask(join("@user/ada"))
        await server.publish("@user/ada", "note", {"n": 1})
        note = await ada.receive()
        history = await bob.ask({"type": "$history", "ref": "3", "room": "@user/ada"})

    assert denied["payload"]["code"] == history["payload"]["code"] == "denied"
    assert note["type"] == "note" and "from" not in note


# ---- its end ------------------------------------------------------------------------------------


async def test_at_its_end_a_proof_is_asked_for_again_and_without_one_it_is_closed() -> None:
    server = Server(limited(auth_due_s=60))
    server.authenticate(lambda request: User(request.token, expires=time.time() + (1 if request.in_message else 0.5)))

    async with running(server) as at, as_user(at.ws, "ada") as ada, as_user(at.ws, "bob") as bob:
        due = [(await peer.ask(HELLO), await peer.receive())[1] for peer in (ada, bob)]
        authed = await ada.ask({"type": "$auth", "ref": "a", "payload": {"token": "ada"}})
        closed = await bob.ended()
        pong = await ada.ask({"type": "$ping", "ref": "p"})
        last = await ada.ended()

    assert [message["type"] for message in due] == ["$auth.due", "$auth.due"]
    assert 0 < due[0]["payload"]["in_ms"] <= 500
    assert (authed["type"], authed["payload"]["lost"]) == ("$authed", [])
    assert closed == last == (4101, "token_expired")
    assert pong["type"] in ("$pong", "$auth.due")


async def test_our_own_client_may_prove_anew_who_it_is() -> None:
    server = Server(limited(auth_due_s=0))
    server.authenticate(lambda request: User(request.token, expires=time.time() + 1) if request.in_message else None)

    async with running(server) as at, Client(at.ws, token="ada") as client:
        for _ in range(3):
            await anyio.sleep(0.6)
            assert json.loads(await client.request("$auth", {"token": "ada"}))["lost"] == []
        stored = await client.publish("africa", "say", {})

    assert stored.off == 1 and client.welcome is not None and not client.welcome.reconnect


# ---- what a hook or handler may raise or return, and nobody else notices ------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [30, None, b"30"])
async def test_a_denial_with_a_header_that_is_no_text_is_a_500_and_ends_nobody(kind: str, value: Any) -> None:
    server = Server(limited())

    def who(request: AuthRequest) -> User:
        if request.token == "ada":
            return User("ada")
        raise Denied("too many tries", headers={"retry-after": value})

    register(server.authenticate, who, kind)
    async with running(server) as at, connected(at.ws, additional_headers={"Authorization": "Bearer ada"}) as peer:
        status, _, _ = await http(at.port, request().decode())

        assert status == 500
        assert (await peer.ask(HELLO))["type"] == "$welcome"


class _Mute(Denied):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def _misspelt() -> SyntaxError:
    error = SyntaxError("x")
    error.filename, error.lineno, error.text = "f", 1, 5  # type: ignore[assignment]  # What a traceback cannot show.
    return error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("failure", "status"), [(_Mute("x"), 401), (_misspelt(), 500)])
async def test_a_hook_may_raise_what_cannot_be_told(kind: str, failure: Exception, status: int) -> None:
    server = Server(limited())

    def who(request: AuthRequest) -> User | None:
        if request.in_message or request.token:
            raise failure
        return None

    register(server.authenticate, who, kind)
    async with running(server) as at:
        found, _, _ = await http(at.port, request("/", "Authorization: Bearer x").decode())
        async with connected(at.ws) as peer:
            await peer.send({**HELLO, "payload": {"v": [1], "token": "x"}})
            code, _ = await peer.ended()
        again, _, _ = await http(at.port, request("/", "Authorization: Bearer x").decode())

    assert (found, again) == (status, status)
    assert code == (4001 if status == 401 else 4113)


@pytest.mark.parametrize("where", ["on", "guard", "raw", "open", "authenticate", "authorize"])
async def test_a_cancellation_of_somebody_elses_is_a_failure_like_any_other(where: str) -> None:
    """A plain function that reads the result of a task that was cancelled."""
    server = Server(limited())
    ended: list[int] = []

    def look(first: Any, second: Any = None, third: Any = None) -> Any:
        raise asyncio.CancelledError

    decorators: dict[str, Callable[[Any], Any]] = {
        "on": server.on("look"),
        "guard": server.on_publish("look"),
        "raw": server.on_message,
        "open": server.on_open,
        "authenticate": server.authenticate,
        "authorize": server.authorize,
    }
    decorators[where](look)
    server.on_close(lambda session: ended.append(session.close_code))
    async with running(server) as at:
        if where == "authenticate":
            status, _, _ = await http(at.port, request().decode())
            assert status == 500
        else:
            async with connected(at.ws) as peer:
                if where != "open":
                    await peer.send({"type": "look", "ref": "1", **({"room": "africa"} if where != "on" else {})})
                if where == "authorize":
                    assert (await peer.receive_type("$err"))["payload"]["code"] == "internal"
                else:
                    assert await peer.ended() == (1011, "a handler failed")
        with anyio.fail_after(5):
            while server.sessions():
                await anyio.sleep(0.005)
        began = anyio.current_time()
    assert anyio.current_time() - began < 3
    assert len(ended) == (where != "authenticate")
