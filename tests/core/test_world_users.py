"""An application in a simulated world: who its clients are, what its handlers may call, and what fails it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vixws_core import LocalError, Refused, StoreError
from vixws_core.app import Router, Session
from vixws_core.app.access import AuthRequest, Denied, Grant, User
from vixws_core.client import ClientState
from vixws_core.testing import NO_FAULTS, Faults, OracleFailed, Profile, SimServer, World


def calm(build: Any, *profiles: Profile, **how: Any) -> World:
    """A world without faults, whose clients come as these profiles; settled."""
    world = World("users", build=build, clients=profiles, faults=NO_FAULTS, **how)
    world.settle()
    return world


# ---- who clients are ------------------------------------------------------------------------------


def whoami(server: SimServer) -> None:
    """Tells each session what it showed."""

    @server.on_open
    def opened(session: Session) -> None:
        team = next((value for name, value in session.headers if name == "x-team"), "")
        user = None if session.user is None else session.user.id
        session.send_json("you", {"team": team, "query": session.query, "path": session.path, "user": user})


def test_headers_query_and_path_reach_the_application() -> None:
    shown = Profile(headers={"X-Team": "red"}, query={"v": "2", "q": "a b"}, path="/ws")
    world = calm(whoami, shown, Profile())

    assert world.client(0).of_type("you") == [{"team": "red", "query": "v=2&q=a+b", "path": "/ws", "user": None}]
    assert world.client(1).of_type("you") == [{"team": "", "query": "", "path": "/", "user": None}]


def by_cookie(server: SimServer) -> None:
    """Knows users by a cookie, or by a token in `$hello`; may refuse."""
    whoami(server)

    @server.authenticate
    async def who(request: AuthRequest) -> User | None:
        await asyncio.sleep(0)
        name = request.cookies.get("session") or (request.token if request.in_message else "")
        if name == "eve":
            raise Denied("not you")
        return User(name) if name else None


def test_cookies_are_judged_by_the_applications_own_hook() -> None:
    world = calm(by_cookie, Profile(cookies={"session": "ada"}), Profile(cookies={"session": "eve"}))

    assert world.client(0).of_type("you")[0]["user"] == "ada"
    assert world.client(1).of_type("you") == []
    assert {told.status for told in world.client(1).closes} == {401}


def test_cookies_of_another_page_do_not_count_unless_it_may_connect() -> None:
    stranger = Profile(cookies={"session": "ada"}, origin="https://else.example")
    refused = calm(by_cookie, stranger)
    allowed = calm(by_cookie, stranger, origins=("https://else.example",))

    assert {told.status for told in refused.client(0).closes} == {403}
    assert allowed.client(0).of_type("you")[0]["user"] == "ada"


def test_a_token_in_the_first_message_is_judged_by_the_applications_own_hook() -> None:
    world = calm(by_cookie, Profile(token="bob", in_hello=True), Profile(token="eve", in_hello=True))

    assert world.client(0).of_type("you")[0]["user"] == "bob"
    assert world.client(1).state is ClientState.STOPPED
    assert [told.code for told in world.client(1).closes] == [4001]


def ranks(server: SimServer) -> None:
    """Only admins publish into the hall."""
    whoami(server)

    @server.authorize
    def may(user: User, action: str, room: str) -> Grant | None:
        return Grant() if action != "publish" or user.claims.get("rank") == "admin" else None


@pytest.mark.parametrize("in_hello", [False, True])
def test_users_are_who_the_world_says_and_may_what_the_application_grants(in_hello: bool) -> None:
    admin = Profile(user="ada", claims={"rank": "admin"}, in_hello=in_hello)
    world = calm(ranks, admin, Profile(user="bob", in_hello=in_hello))
    ada, bob = world.clients
    bob.join("hall")
    world.settle()
    good, bad = ada.publish("hall", "note", {"n": 1}), bob.publish("hall", "note", {"n": 2})
    world.settle()

    assert [client.of_type("you")[0]["user"] for client in world.clients] == ["ada", "bob"]
    assert (ada.settled[good].ok, bob.settled[bad].code) == (True, "denied")
    assert world.truth.rows["hall"][0].sender == "ada"


def test_a_user_of_the_world_comes_beside_the_applications_own_hook() -> None:
    world = calm(by_cookie, Profile(user="zoe"), Profile(cookies={"session": "ada"}))

    assert [client.of_type("you")[0]["user"] for client in world.clients] == ["zoe", "ada"]


def test_an_on_open_handler_may_refuse_by_what_was_shown() -> None:
    def build(router: Router) -> None:
        @router.on_open
        def opened(session: Session) -> None:
            if session.query != "key=right":
                raise Refused("wrong key")

    world = calm(build, Profile(query={"key": "right"}), Profile(query={"key": "wrong"}))

    assert world.client(0).state is ClientState.OPEN
    assert [told.code for told in world.client(1).closes] == [4003]


# ---- what handlers call ---------------------------------------------------------------------------


def desk(server: SimServer) -> None:
    """Closes over the server: rooms, members, sessions, publishing and history."""
    extra = server.route("/extra", subprotocols=("desk.v1",))

    @extra.on_open
    def extra_opened(session: Session) -> None:
        session.send_json("extra", {"subprotocol": session.subprotocol})

    @server.on("enter")
    def enter(session: Session, payload: dict[str, Any]) -> None:
        server.join_room(session, payload["room"], last=5)
        server.broadcast_room_json(payload["room"], "entered", {"n": len(server.members(payload["room"]))}, store=False)
        server.broadcast_json("rooms", {"rooms": server.rooms(), "sessions": len(server.sessions())}, but=session)

    @server.on("say")
    async def say(session: Session, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            stored = await server.publish(payload["room"], "said", payload, session=session)
        except StoreError as exc:
            raise Refused("try again", exc.code) from None
        rows = await server.history(payload["room"], 10)
        session.send_json("stored", {"off": stored.off, "rows": len(rows)})
        return {}

    @server.on("exit")
    def leave(session: Session, payload: dict[str, Any]) -> None:
        server.leave_room(session, payload["room"])
        server.leave_all_rooms(session)


def test_handlers_close_over_the_server() -> None:
    world = calm(desk, Profile(), Profile(), Profile(path="/extra", subprotocols=("desk.v1",)))
    ada, bob, other = world.clients
    ada.send("enter", {"room": "hall"})
    world.settle()
    bob.send("enter", {"room": "hall"})
    world.settle()
    bob.send("say", {"room": "hall", "text": "Hi"})
    world.settle()
    bob.send("exit", {"room": "hall"})
    world.settle()

    assert ada.of_type("entered") == [{"n": 1}, {"n": 2}]
    assert ada.of_type("rooms") == [{"rooms": ["hall"], "sessions": 3}]
    assert bob.of_type("stored") == [{"off": 1, "rows": 1}]
    assert ada.of_type("said") == bob.of_type("said") == [{"room": "hall", "text": "Hi"}]
    assert ada.offsets("hall") == [1]
    assert other.of_type("extra") == [{"subprotocol": "desk.v1"}]
    assert world.server is not None and [one.id for one in world.server.app.members("hall")] == [1]


@pytest.mark.parametrize("seed", range(12))
def test_such_an_application_keeps_its_promises_whatever_breaks(seed: int) -> None:
    world = World(seed, build=desk, clients=3, wild=1, faults=Faults(crash=0.005, drain=0.005))
    for number in range(15):
        client = world.client(number % 3)
        client.send("enter", {"room": "hall"})
        client.send("say", {"room": "hall", "n": number})
        client.publish("hall", "note", {"n": number})
        world.run(15)
    world.settle()

    assert all(not client.asked for client in world.clients)


def test_nothing_is_served_while_an_application_is_built() -> None:
    def build(server: SimServer) -> None:
        server.members("hall")

    with pytest.raises(LocalError, match="does not serve yet"):
        World(1, build=build)


# ---- what fails an application --------------------------------------------------------------------


def careless(server: SimServer) -> None:
    """Handlers with the three faults that a world finds."""

    @server.on("count")
    def count(session: Session, payload: dict[str, Any]) -> None:
        session.send_json("is", {"n": payload["n"] + 1})

    @server.on_publish("order")
    def receipt(session: Session, payload: dict[str, Any]) -> None:
        server.broadcast_room_json("receipts", "receipt", payload)

    runs: list[int] = []

    @server.on("stamp")
    def stamp(session: Session, payload: dict[str, Any]) -> None:
        runs.append(1)
        server.broadcast_room_json("stamps", "stamp", {"at": len(runs)}, session=session, mid="the one")


def test_a_handler_that_raises_fails_the_world_with_its_name_and_its_client() -> None:
    world = calm(careless, Profile(), Profile())
    world.client(1).send("count", {})
    world.run(20)

    with pytest.raises(
        OracleFailed, match=r"handler 'careless.<locals>.count' raised KeyError\('n'\) for client 1"
    ) as told:
        world.settle()
    assert isinstance(told.value.__cause__, KeyError)
    assert "client 1 sends 'count' {}\n  handler careless.<locals>.count runs for client 1" in told.value.__notes__[0]


def test_a_handler_that_raises_may_be_allowed() -> None:
    world = calm(careless, Profile(), allow=("handler_raises",))
    world.client(0).send("count", {})
    world.run(20)
    world.settle()

    assert world.server is not None and [type(error) for error in world.server.errors] == [KeyError]


def lost_answer(**how: Any) -> World:
    """A guard ran, and what it said is lost with the connection: the publish comes again."""
    world = calm(careless, Profile(), **how)
    world.client(0).publish("orders", "order", {"n": 1})
    while not world.truth.head("orders"):
        world.run(1)
    world.cut(0)
    return world


def test_what_a_guard_stores_again_for_the_same_message_fails_the_world() -> None:
    with pytest.raises(
        OracleFailed, match=r"'careless.<locals>.receipt' stored 'receipt' .* in 'receipts' twice .* client 0"
    ):
        lost_answer().settle()


def test_storing_twice_may_be_allowed() -> None:
    world = lost_answer(allow=("stored_twice",))
    world.settle()

    assert (world.truth.head("orders"), world.truth.head("receipts")) == (1, 2)


def test_equal_messages_may_be_stored_for_equal_messages() -> None:
    def build(server: SimServer) -> None:
        @server.on("vote")
        def vote(session: Session, payload: dict[str, Any]) -> None:
            server.broadcast_room_json("votes", "vote", payload)

    world = calm(build, Profile(), Profile())
    for client in (*world.clients, *world.clients):
        client.send("vote", {"for": "tea"})
    world.settle()

    assert world.truth.head("votes") == 4


def test_a_mid_that_a_handler_uses_for_two_contents_fails_the_world() -> None:
    world = calm(careless, Profile())
    world.client(0).send("stamp")
    world.client(0).send("stamp")

    with pytest.raises(
        OracleFailed, match=r"'careless.<locals>.stamp' published into 'stamps' under the mid 'the one'"
    ):
        world.settle()


def test_a_mid_conflict_may_be_allowed_and_one_of_the_clients_own_is_nobodys_fault() -> None:
    world = calm(careless, Profile(), allow=("mid_reused",))
    world.client(0).send("stamp")
    world.client(0).send("stamp")
    world.settle()

    own = calm(lambda router: router.on_publish("note")(lambda session, payload: None), Profile())
    own.client(0).publish("hall", "note", {"n": 1}, mid="k")
    second = own.client(0).publish("hall", "note", {"n": 2}, mid="k")
    own.settle()
    assert own.client(0).settled[second].code == "mid_conflict"


def test_a_word_that_allows_nothing_is_refused() -> None:
    with pytest.raises(LocalError, match="allow must be among handler_raises stored_twice mid_reused, got 'raises'"):
        World(1, allow=("raises",))  # type: ignore[arg-type]  # What a misspelt word does is the test.
