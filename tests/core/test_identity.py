"""Who somebody is: proved at the upgrade or with `$hello`, proved anew, ended; and everything that is no proof."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig, LocalError
from vixws_core.app.access import AuthRequest, Denied, RootRouter, User
from vixws_core.app.session import Session
from vixws_core.effects import Authenticate, PeerMisbehaved, StoreAppend

from .app_rig import AppPeer, AppRig, typed

CONFIG = HubConfig(auth_timeout_s=10.0, auth_due_s=30.0)


def by_token(router: RootRouter, **users: User) -> list[AuthRequest]:
    """Knows users by their tokens; returns what it was asked."""
    asked: list[AuthRequest] = []

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        asked.append(request)
        if not request.token and not request.in_message:
            return None
        if request.token not in users:
            raise Denied("no such token")
        return users[request.token]

    return asked


def hello(token: str | None = None) -> dict[str, Any]:
    payload: dict[str, object] = {"v": [1]}
    if token is not None:
        payload["token"] = token
    return typed("$hello", payload, ref="h")


def status_of(peer: AppPeer) -> int:
    return int(bytes(peer.out).split(b" ", 2)[1])


def types_of(messages: list[Any]) -> list[str]:
    return [message["type"] for message in messages]


# ---- at the upgrade -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer secret",
        "authorization: bearer secret",
        "Sec-WebSocket-Protocol: vixws.v1, vixws.bearer.secret",
        "Sec-WebSocket-Protocol: vixws.bearer.secret, vixws.v1",
    ],
)
def test_a_token_of_the_upgrade_proves_who_it_is(header: str) -> None:
    router = RootRouter()
    asked = by_token(router, secret=User("ada", {"role": "agent"}))
    opened: list[Session] = []
    router.on_open(opened.append)
    rig = AppRig(router, config=CONFIG)

    peer = rig.connect("/", header)

    (welcome,) = peer.ask(hello())
    assert welcome["payload"]["user"] == "ada"
    assert opened[0].user is not None and opened[0].user.claims == {"role": "agent"}
    assert asked[0].token == "secret" and not asked[0].in_message
    assert b"secret" not in peer.head
    assert (b"vixws.v1" in peer.head) is ("vixws.v1" in header)


def test_a_bearer_alone_is_not_echoed() -> None:
    router = RootRouter()
    by_token(router, secret=User("ada"))
    peer = AppRig(router).connect("/", "Sec-WebSocket-Protocol: vixws.bearer.secret")

    assert peer.messages() == [] and b"101" in peer.head
    assert b"sec-websocket-protocol" not in peer.head.lower()


@pytest.mark.parametrize("second", ["Bearer other", "Bearer secret", "Basic YTpi"])
def test_two_authorizations_are_none(second: str) -> None:
    router = RootRouter()
    asked = by_token(router, secret=User("ada"), other=User("eve"))

    AppRig(router).connect("/", f"Authorization: Bearer secret\r\nAuthorization: {second}")

    assert [request.token for request in asked] == [""]


@pytest.mark.parametrize(("status", "challenge"), [(401, True), (403, False)])
def test_who_is_denied_gets_the_status_and_headers_that_the_application_says(status: int, challenge: bool) -> None:
    router = RootRouter()

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        raise Denied("go away", status, {"set-cookie": "sid=; max-age=0"})

    peer = AppRig(router).connect()

    assert status_of(peer) == status
    assert b"set-cookie: sid=; max-age=0" in peer.out and peer.out.endswith(b"go away\n")
    assert (b"www-authenticate: Bearer" in peer.out) is challenge


def test_a_user_may_bring_headers_for_the_101() -> None:
    router = RootRouter()

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        return User("ada", headers={"set-cookie": "sid=1; HttpOnly"})

    peer = AppRig(router).connect()

    peer.messages()
    assert b"\r\nset-cookie: sid=1; HttpOnly" in peer.head


@pytest.mark.parametrize("answer", [True, "ada", {"id": "ada"}, LocalError("broken"), ValueError("x"), KeyError("x")])
@pytest.mark.threat(2)
def test_what_is_no_user_is_a_500_and_never_a_pass(answer: object) -> None:
    router = RootRouter()

    @router.authenticate
    def who(request: AuthRequest) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    rig = AppRig(router)
    peer = rig.connect()

    assert status_of(peer) == 500
    assert len(rig.reports) == 1
    assert rig.hub.sessions == 0 and rig.app.sessions() == []


@pytest.mark.parametrize("where", ["pass", "denial"])
@pytest.mark.threat(19)
def test_a_header_that_cannot_be_sent_is_a_500(where: str) -> None:
    router = RootRouter()

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        if where == "pass":
            return User("ada", headers={"x-a": "1\r\nx-b: 2"})
        raise Denied("no", headers={"x-a": "1\r\nx-b: 2"})

    rig = AppRig(router)
    peer = rig.connect()

    assert status_of(peer) == 500 and b"x-b" not in peer.out
    assert len(rig.reports) == 1 and rig.app.sessions() == []


@pytest.mark.threat(2)
def test_a_hook_that_waits_has_a_deadline_and_then_the_answer_is_503() -> None:
    router = RootRouter()

    @router.authenticate
    async def who(request: AuthRequest) -> User | None:
        return User("ada")

    rig = AppRig(router, auth_deadline_s=5.0)
    slow, quick = rig.connect(), rig.connect()
    assert [waiting.deadline_s for _, waiting in rig.waiting] == [5.0, 5.0]

    rig.fail(TimeoutError())
    rig.run()

    assert status_of(slow) == 503 and b"retry-after" in slow.out
    assert quick.ask(hello())[0]["payload"]["user"] == "ada"


@pytest.mark.threat(2)
def test_an_answer_for_one_who_is_gone_is_for_nobody() -> None:
    router = RootRouter()
    opened: list[Session] = []
    router.on_open(opened.append)

    @router.authenticate
    async def who(request: AuthRequest) -> User | None:
        return User("ada")

    rig = AppRig(router)
    rig.connect().vanish()
    rig.run()

    assert opened == [] and rig.app.sessions() == [] and rig.hub.connections == 0


def test_a_request_shows_path_query_headers_and_peer() -> None:
    router = RootRouter()
    asked = by_token(router)
    AppRig(router).connect("/?room=a%20b&room=c", "X-Thing: 1")

    (request,) = asked
    assert (request.path, request.query) == ("/", {"room": ["a b", "c"]})
    assert request.header("X-THING") == "1" and request.header("y") == ""
    assert request.peer == "1"


# ---- with the first message -------------------------------------------------------------------------


def test_a_token_in_hello_proves_who_it_is_and_only_then_the_application_hears_of_it() -> None:
    router = RootRouter()
    asked = by_token(router, secret=User("ada"))
    opened: list[Session] = []
    router.on_open(opened.append)
    rig = AppRig(router, config=CONFIG)
    peer = rig.connect()
    assert opened == [] and rig.app.sessions() == []

    (welcome,) = peer.ask(hello("secret"))

    assert welcome["type"] == "$welcome" and welcome["payload"]["user"] == "ada"
    assert [session.user and session.user.id for session in opened] == ["ada"]
    assert [request.in_message for request in asked] == [False, True]
    assert rig.app.sessions() == opened


def test_what_comes_behind_the_hello_waits_for_the_proof() -> None:
    router = RootRouter()
    seen: list[object] = []
    router.on("say")(lambda session, payload: seen.append((session.user.id, payload)))

    @router.authenticate
    async def who(request: AuthRequest) -> User | None:
        return User("ada") if request.in_message else None

    rig = AppRig(router)
    peer = rig.connect()
    rig.run()
    peer.send(hello("secret"), typed("say", {"n": 1}), typed("$join", room="africa", ref="j"))
    assert seen == [] and peer.messages() == []

    rig.run()

    assert seen == [("ada", {"n": 1})]
    assert types_of(peer.messages()) == ["$welcome", "$joined", "$live"]


@pytest.mark.parametrize(
    "first", [typed("$join", room="a", ref="1"), typed("say", ref="1"), typed("x", room="a", ref="1")]
)
def test_nothing_but_hello_is_taken_before_the_proof(first: dict[str, Any]) -> None:
    router = RootRouter()
    by_token(router, secret=User("ada"))
    seen: list[object] = []
    router.on("say")(lambda session, payload: seen.append(payload))
    router.on_publish("x")(lambda session, payload: seen.append(payload))
    rig = AppRig(router)
    peer = rig.connect()

    (answer,) = peer.ask(first)

    assert answer["payload"]["code"] == "denied" and answer["ref"] == "1"
    assert seen == [] and rig.hub.rooms() == []
    assert peer.ask(hello("secret"))[0]["type"] == "$welcome"


def test_a_raw_message_before_the_proof_ends_the_connection() -> None:
    router = RootRouter()
    by_token(router)
    seen: list[object] = []
    router.on_message(lambda session, message: seen.append(message))
    peer = AppRig(router).connect()

    peer.send("hi")

    closed = peer.closed()
    assert closed is not None and closed[0] == 4001
    assert seen == []


@pytest.mark.parametrize("message", [hello("wrong"), hello()])
def test_a_bad_token_or_none_ends_the_connection_for_good(message: dict[str, Any]) -> None:
    router = RootRouter()
    by_token(router, secret=User("ada"))
    closed: list[Session] = []
    router.on_close(closed.append)
    rig = AppRig(router)
    peer = rig.connect()

    peer.send(message)

    found = peer.closed()
    assert found is not None and found[0] == 4001
    assert closed == [], "on_close is told only of what on_open was told of"
    assert any(isinstance(e, PeerMisbehaved) and e.kind == "denied" for _, effects in rig.steps for e in effects)


@pytest.mark.parametrize("failure", [ValueError("broken"), TimeoutError()])
@pytest.mark.threat(2)
def test_a_hook_that_fails_lets_nobody_in_and_the_client_may_come_back(failure: Exception) -> None:
    router = RootRouter()

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        if request.in_message:
            raise failure
        return None

    rig = AppRig(router)
    peer = rig.connect()
    peer.send(hello("secret"))

    closed = peer.closed()
    assert closed is not None and closed[0] == 4113
    assert len(rig.reports) == 1


@pytest.mark.threat(2)
def test_who_proves_nothing_in_time_is_closed() -> None:
    router = RootRouter()
    by_token(router)
    rig = AppRig(router, config=CONFIG)
    peer = rig.connect()

    rig.pass_time(9.9)
    assert peer.closed() is None
    rig.pass_time(0.2)

    closed = peer.closed()
    assert closed is not None and closed[0] == 4001


def test_a_message_to_all_does_not_reach_who_has_not_proved_anything() -> None:
    router = RootRouter()
    by_token(router, secret=User("ada"))
    rig = AppRig(router)
    waits, known = rig.connect(), rig.connect()
    known.ask(hello("secret"))

    rig.app.broadcast_json("news")

    assert types_of(known.messages()) == ["news"]
    assert waits.messages() == []
    assert waits.ask(hello("secret"))[0]["type"] == "$welcome"
    rig.app.broadcast_json("more")
    assert types_of(waits.messages()) == ["more"]


# ---- what it is good for ------------------------------------------------------------------------------


def test_from_names_the_sender_on_everything_it_publishes() -> None:
    router = RootRouter()
    by_token(router, secret=User("ada"))
    router.on_publish("guarded")(lambda session, payload: None)
    router.on("say")(lambda session, payload: session.publish("africa", "said", payload))
    rig = AppRig(router, config=HubConfig(unstored_rooms=("loose",)))
    peer = rig.connect("/", "Authorization: Bearer secret")
    peer.ask(hello(), typed("$join", room="africa"), typed("$join", room="loose"))

    found = peer.ask(
        typed("plain", {"from": "eve"}, room="africa", **{"from": "eve"}),
        typed("guarded", room="africa"),
        typed("say"),
        typed("loose", room="loose"),
    )

    assert {message["type"]: message.get("from") for message in found if message["type"][0] != "$"} == {
        "plain": "ada",
        "guarded": "ada",
        "said": "ada",
        "loose": "ada",
    }


def test_the_server_and_who_is_nobody_publish_without_from() -> None:
    rig = AppRig(RootRouter())
    peer = rig.connect()
    peer.ask(hello(), typed("$join", room="africa"))
    rig.app.broadcast_room_json("africa", "news")

    found = peer.ask(typed("plain", room="africa"))

    assert all("from" not in message for message in found)


def test_a_mid_is_known_of_the_same_user_only_whatever_its_pub() -> None:
    router = RootRouter()
    by_token(router, a1=User("ada"), a2=User("ada"), b=User("bob"))
    rig = AppRig(router)
    dups = []
    for token in ("a1", "a2", "b"):
        peer = rig.connect("/", f"Authorization: Bearer {token}")
        peer.ask(typed("$hello", {"v": [1], "pub": token}))
        (ack,) = peer.ask(typed("x", {"n": 1}, room="africa", ref="1", mid="m"))
        dups.append(ack["payload"]["dup"])

    assert dups == [False, True, False]
    assert {e.sender for _, effects in rig.steps for e in effects if isinstance(e, StoreAppend)} == {"ada", "bob"}


@pytest.mark.parametrize("id", ["", "a" * 123, "a\x00b", "\u200b", "é\u0301".replace("é", "e"), 7, None])
def test_an_id_that_can_be_no_name_is_no_id(id: Any) -> None:
    with pytest.raises(LocalError):
        User(id)


# ---- its end ------------------------------------------------------------------------------------------


def expiring(router: RootRouter, rig_wall: float, *lives: float) -> list[AuthRequest]:
    """Each proof of ada holds so many seconds longer than the one before; `eve` is somebody else."""
    asked: list[AuthRequest] = []

    @router.authenticate
    def who(request: AuthRequest) -> User | None:
        asked.append(request)
        if request.token == "eve":
            return User("eve", expires=rig_wall + 10_000)
        if request.token == "bad":
            raise Denied
        return User("ada", expires=rig_wall + lives[min(len(asked), len(lives)) - 1])

    return asked


@pytest.mark.threat(2)
def test_a_client_is_asked_for_another_proof_in_time_and_closed_without_one() -> None:
    router = RootRouter()
    expiring(router, 1_800_000_000.0 + 100.0, 60.0)
    rig = AppRig(router, config=HubConfig(auth_due_s=30.0, ping_interval_s=0))
    peer = rig.connect()
    peer.ask(hello())

    rig.pass_time(29.9)
    assert peer.messages() == []
    rig.pass_time(0.2)
    (due,) = peer.messages()
    rig.pass_time(29.8)
    assert peer.closed() is None
    rig.pass_time(0.2)

    assert due["type"] == "$auth.due" and due["payload"] == {"in_ms": 30_000, "deadline_ms": 30_000}
    closed = peer.closed()
    assert closed is not None and closed[0] == 4101


def test_another_proof_of_the_same_user_goes_on_and_is_told() -> None:
    router = RootRouter()
    expiring(router, 1_800_000_100.0, 60.0, 120.0)
    rig = AppRig(router, config=HubConfig(auth_due_s=30.0, ping_interval_s=0))
    peer = rig.connect()
    peer.ask(hello(), typed("$join", room="africa"))
    rig.pass_time(31)

    found = peer.ask(typed("$auth", {"token": "new"}, ref="a"))
    rig.pass_time(40)

    assert types_of(found) == ["$auth.due", "$authed"] or types_of(found) == ["$authed"]
    assert found[-1]["ref"] == "a" and found[-1]["payload"] == {"exp": 1_800_000_220.0, "lost": []}
    assert peer.closed() is None
    assert rig.hub.members("africa") == (1,)
    rig.pass_time(60)
    closed = peer.closed()
    assert closed is not None and closed[0] == 4101


@pytest.mark.parametrize("token", ["eve", "bad"])
def test_a_proof_of_another_or_of_nothing_is_refused_and_the_old_one_stays(token: str) -> None:
    router = RootRouter()
    expiring(router, 1_800_000_100.0, 60.0)
    rig = AppRig(router, config=HubConfig(ping_interval_s=0))
    peer = rig.connect()
    peer.ask(hello())

    (answer,) = peer.ask(typed("$auth", {"token": token}, ref="a"))

    assert answer["payload"]["code"] == "denied"
    assert [session.user and session.user.id for session in rig.app.sessions()] == ["ada"]
    rig.pass_time(61)
    closed = peer.closed()
    assert closed is not None and closed[0] == 4101


def test_auth_where_nobody_has_to_prove_anything_is_refused() -> None:
    peer = AppRig(RootRouter()).connect()

    (answer,) = peer.ask(typed("$auth", {"token": "t"}, ref="a"))

    assert answer["payload"]["code"] == "denied"


def test_a_plain_client_is_not_asked_and_is_closed_at_the_end() -> None:
    router = RootRouter()
    expiring(router, 1_800_000_100.0, 5.0)
    rig = AppRig(router, config=HubConfig(ping_interval_s=0))
    peer = rig.connect()
    rig.pass_time(4.9)
    assert peer.messages() == [] and peer.closed() is None

    rig.pass_time(0.2)

    closed = peer.closed()
    assert closed is not None and closed[0] == 4101


@pytest.mark.threat(2)
def test_the_end_comes_for_a_parked_reader_too() -> None:
    router = RootRouter()
    expiring(router, 1_800_000_100.0, 5.0)
    rig = AppRig(router, config=HubConfig(unsent_bytes_low=1_024, unsent_bytes_high=2_048, ping_interval_s=0))
    peer = rig.connect()
    peer.ask(hello(), typed("$join", room="africa"))
    peer.takes = False
    for _ in range(4):
        rig.app.broadcast_room_json("africa", "x", {"text": "x" * 900})

    rig.pass_time(5.1)

    assert rig.hub.rooms_of(1) == ()


def test_auth_asks_the_hook_once_for_each_message_in_turn() -> None:
    router = RootRouter()

    @router.authenticate
    async def who(request: AuthRequest) -> User | None:
        return User("ada")

    rig = AppRig(router)
    peer = rig.connect()
    rig.run()
    peer.send(hello(), *(typed("$auth", {"token": "t"}, ref=str(n)) for n in range(20)))

    asked = sum(isinstance(e, Authenticate) for _, effects in rig.steps for e in effects)

    assert asked == 1, "the others wait for their turn"
    for _ in range(20):
        rig.run()
    assert [m.get("ref") for m in peer.messages()] == ["h", *(str(n) for n in range(20))]


# ---- a proof that is over already -------------------------------------------------------------------


def test_a_user_whose_time_is_over_is_nobody() -> None:
    router = RootRouter()
    by_token(router, old=User("ada", expires=1_799_999_999.0), good=User("ada", expires=1_800_000_500.0))
    told: list[Session] = []
    router.on_open(told.append)
    rig = AppRig(router, config=CONFIG)

    upgrade = rig.connect("/", "Authorization: Bearer old")
    greeting = rig.connect("/")
    greeting.send(hello("old"), typed("x", room="africa"))
    before, ended = len(told), greeting.closed()
    kept = rig.connect("/", "Authorization: Bearer good")
    kept.ask(hello())
    (refused,) = kept.ask(typed("$auth", {"token": "old"}, ref="a"))

    assert status_of(upgrade) == 401
    stored = [e for _, effects in rig.steps for e in effects if isinstance(e, StoreAppend)]
    assert (before, ended and ended[0], stored) == (0, 4001, [])
    assert refused["payload"]["code"] == "denied"
    assert types_of(kept.ask(typed("$ping", ref="p"))) == ["$pong"]
