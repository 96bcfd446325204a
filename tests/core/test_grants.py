"""What users may do: asked before anything of a room is told, kept, ended, asked again, taken back."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig, LocalError, Refused
from vixws_core.app.access import AuthRequest, Grant, RootRouter, User
from vixws_core.app.session import Session
from vixws_core.effects import Authorize, StoreAppend
from vixws_core.inputs import PositionKnown
from vixws_core.log import run_asks

from .app_rig import AppPeer, AppRig, typed
from .harness import TS

CONFIG = HubConfig(ping_interval_s=0, idle_timeout_s=0)


class Policy:
    """Rules by (user, action, room); asks are counted, and may be held back."""

    def __init__(self, *, held: bool = False, users: bool = True) -> None:
        self.router = RootRouter()
        self.rules: dict[tuple[str, str, str], Grant | Exception | None] = {}
        self.asked: list[tuple[str, str, str]] = []
        if users:

            @self.router.authenticate
            def who(request: AuthRequest) -> User | None:
                return User(request.token or "ada")

        if held:

            @self.router.authorize
            async def may_later(user: User, action: str, room: str) -> Any:
                return self.answer(user, action, room)

        else:

            @self.router.authorize
            def may(user: User, action: str, room: str) -> Any:
                return self.answer(user, action, room)

    def answer(self, user: User | None, action: str, room: str) -> Any:
        asked = ("" if user is None else user.id, action, room)
        self.asked.append(asked)
        found = self.rules.get(asked)
        if isinstance(found, Exception):
            raise found
        return found

    def allow(self, user: str, room: str, *actions: str, until: float | None = None) -> None:
        for action in actions or ("join", "read", "publish"):
            self.rules[user, action, room] = Grant(until=until)

    def deny(self, user: str, room: str) -> None:
        for action in ("join", "read", "publish"):
            self.rules.pop((user, action, room), None)


def rig_of(policy: Policy, config: HubConfig = CONFIG, **more: Any) -> AppRig:
    return AppRig(policy.router, config=config, **more)


def client(rig: AppRig, user: str = "ada", *rooms: str) -> AppPeer:
    """A connection of a user that said hello and joined."""
    peer = rig.connect("/", f"Authorization: Bearer {user}")
    peer.ask(typed("$hello", {"v": [1]}), *(typed("$join", room=room) for room in rooms))
    return peer


def types_of(messages: list[Any]) -> list[str]:
    return [message["type"] for message in messages]


def code_of(messages: list[Any]) -> str:
    (found,) = messages
    code: str = found["payload"]["code"]
    return code


EVERY: list[dict[str, Any]] = [
    typed("$join", room="secret", ref="1"),
    typed("$join", {"last": 5}, room="secret", ref="1"),
    typed("$join", {"since": {"ep": "ep1", "off": 0}}, room="secret", ref="1"),
    typed("$history", room="secret", ref="1"),
    typed("$position", room="secret", ref="1"),
    typed("x", room="secret", ref="1"),
    typed("guarded", room="secret", ref="1"),
]


# ---- nothing without a grant --------------------------------------------------------------------------


@pytest.mark.parametrize("message", EVERY)
def test_without_a_grant_nothing_is_done_and_nothing_depends_on_the_room(message: dict[str, Any]) -> None:
    answers: list[Any] = []
    reached: list[object] = []
    for filled in (False, True):
        policy = Policy()
        policy.router.on_publish("guarded")(lambda session, payload: reached.append(payload))
        rig = rig_of(policy)
        if filled:
            rig.app.broadcast_room_json("secret", "x", {"n": 1})
        peer = client(rig)
        before = len(rig.steps)

        answers.append(peer.ask(message))

        stored = [e for _, effects in rig.steps[before:] for e in effects if isinstance(e, StoreAppend)]
        assert stored == [] and reached == [] and rig.hub.rooms() == []

    assert code_of(answers[0]) == "denied"
    assert answers[0] == answers[1], "the answer tells nothing of what is there"


@pytest.mark.parametrize("message", EVERY)
@pytest.mark.threat(2)
def test_a_hook_that_fails_grants_nothing(message: dict[str, Any]) -> None:
    policy = Policy()
    for action in ("join", "read", "publish"):
        policy.rules["ada", action, "secret"] = ValueError("broken")
    policy.router.on_publish("guarded")(lambda session, payload: None)
    rig = rig_of(policy)
    peer = client(rig)

    assert code_of(peer.ask(message)) == "internal"
    assert rig.hub.rooms() == [] and len(rig.reports) == 1


@pytest.mark.parametrize("answer", [True, "join", 1, ("join",)])
def test_what_is_no_grant_is_none(answer: Any) -> None:
    policy = Policy()
    policy.rules["ada", "join", "a"] = answer
    rig = rig_of(policy)

    assert code_of(client(rig).ask(typed("$join", room="a", ref="1"))) == "internal"


@pytest.mark.parametrize("granted", ["join", "read", "publish"])
def test_one_action_is_no_other(granted: str) -> None:
    policy = Policy()
    policy.allow("ada", "a", granted)
    peer = client(rig_of(policy))

    may = {
        "join": types_of(peer.ask(typed("$join", room="a", ref="1")))[0] == "$joined",
        "read": types_of(peer.ask(typed("$history", room="a", ref="2")))[0] == "$page",
        "publish": "$ack" in types_of(peer.ask(typed("x", room="a", ref="3"))),
    }

    assert may == {action: action == granted for action in may}


def test_a_grant_names_the_actions_it_grants_besides() -> None:
    policy = Policy()
    policy.rules["ada", "join", "a"] = Grant("join", "publish")
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")

    assert "$ack" in types_of(peer.ask(typed("x", room="a", ref="1")))
    assert policy.asked == [("ada", "join", "a")]
    policy.rules["ada", "read", "a"] = Grant("publish")
    assert code_of(peer.ask(typed("$history", room="a", ref="2"))) == "denied", "it was granted something else"


@pytest.mark.parametrize("action", ["write", "", "JOIN"])
def test_an_action_that_there_is_not_is_refused(action: str) -> None:
    with pytest.raises(LocalError):
        Grant(action)


def test_who_may_join_but_not_read_starts_at_the_head() -> None:
    policy = Policy()
    policy.allow("ada", "a", "join")
    rig = rig_of(policy)
    for n in range(3):
        rig.app.broadcast_room_json("a", "x", {"n": n})
    peer = client(rig)

    found = peer.ask(typed("$join", {"since": {"ep": "ep1", "off": 1}}, room="a", ref="1"))
    again = peer.ask(typed("$join", {"last": 2}, room="a", ref="2"))

    assert types_of(found) == types_of(again) == ["$joined", "$live"]
    assert found[0]["payload"]["from"] == again[0]["payload"]["from"] == 3
    assert not found[0]["payload"]["recovered"]


# ---- asked once, in order ---------------------------------------------------------------------------


def test_a_grant_is_kept_for_its_time() -> None:
    policy = Policy()
    policy.allow("ada", "a", "publish", until=1_800_000_110.0)
    rig = rig_of(policy)
    peer = client(rig)

    for _ in range(5):
        peer.ask(typed("x", room="a", ref="1"))
    assert policy.asked == [("ada", "publish", "a")]
    rig.pass_time(11)
    policy.deny("ada", "a")

    assert code_of(peer.ask(typed("x", room="a", ref="1"))) == "denied"


def test_messages_wait_for_the_word_in_order_and_pings_do_not() -> None:
    policy = Policy(held=True)
    seen: list[object] = []
    policy.router.on("say")(lambda session, payload: seen.append(payload))
    policy.router.on_publish("guarded")(lambda session, payload: seen.append("guarded"))
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(
        typed("say", {"n": 1}),
        typed("guarded", room="a"),
        typed("say", {"n": 2}),
        typed("$join", room="a", ref="j"),
    )
    peer.send(typed("$ping", ref="p"), typed("say", {"n": 3}))
    assert seen == [{"n": 1}]
    assert types_of(peer.messages()) == ["$pong"]

    rig.run()
    assert seen == [{"n": 1}, "guarded", {"n": 2}]
    rig.run()

    assert seen[-1] == {"n": 3}
    assert types_of(peer.messages()) == ["$joined", "$live"]
    assert rig.waiting == []


def test_what_is_known_is_kept_for_a_bounded_number_of_rooms() -> None:
    policy = Policy()
    rig = rig_of(policy, HubConfig(rooms_max=4, ping_interval_s=0))
    policy.allow("ada", "home")
    peer = client(rig, "ada", "home")
    for n in range(50):
        policy.allow("ada", f"r{n}")
        assert "$ack" in types_of(peer.ask(typed("x", room=f"r{n}", ref="1")))
    policy.asked.clear()

    peer.ask(typed("x", room="r49", ref="1"), typed("x", room="r0", ref="2"), typed("$join", room="home", ref="3"))

    assert policy.asked == [("ada", "publish", "r0")]


def test_an_answer_for_one_who_is_gone_changes_nothing() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("$join", room="a", ref="j"), typed("x", room="a", mid="m"))
    peer.vanish()

    rig.run()
    assert rig.hub.rooms() == []
    while rig.waiting:
        rig.run()

    stored = [e for _, effects in rig.steps for e in effects if isinstance(e, StoreAppend)]
    assert [e.mid for e in stored] == ["m"], "what it had sent before its end is still handled"
    assert rig.hub.connections == 0


def test_a_stop_waits_for_the_word_and_then_ends_the_connection() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("x", room="a", ref="1"))

    from vixws_core.inputs import Shutdown

    rig.pump.put(Shutdown(8.0))
    assert peer.closed() is None
    rig.run()

    assert peer.closed() == (4200, "the server shuts down")


# ---- rooms of users -----------------------------------------------------------------------------------


def test_everybody_has_a_room_and_only_the_server_writes_into_it() -> None:
    policy = Policy()
    rig = rig_of(policy)
    ada, bob = client(rig, "ada", "@user/ada"), client(rig, "bob", "@user/bob", "@user/ada")

    assert rig.hub.rooms() == ["@user/ada", "@user/bob"] and len(rig.hub.members("@user/ada")) == 1
    for message in EVERY:
        assert code_of(bob.ask({**message, "room": "@user/ada"})) == "denied"
    rig.app.broadcast_room_json("@user/ada", "note", {"n": 1})
    assert types_of(ada.messages()) == ["note"] and bob.messages() == []
    assert types_of(ada.ask(typed("$history", room="@user/ada", ref="1"))) == ["$page"]
    assert all(room[0] != "@" or action == "publish" for _, action, room in policy.asked)


def test_the_application_may_let_others_write_into_a_users_room() -> None:
    policy = Policy()
    policy.allow("bob", "@user/ada", "publish", "join", "read")
    rig = rig_of(policy)
    ada, bob = client(rig, "ada", "@user/ada"), client(rig, "bob")

    assert types_of(bob.ask(typed("dm", room="@user/ada", ref="1"))) == ["$ack"]
    assert ada.messages()[0]["from"] == "bob"
    assert code_of(bob.ask(typed("$join", room="@user/ada", ref="2"))) == "denied", "it is for that user only"


@pytest.mark.parametrize("message", EVERY)
def test_where_there_are_no_users_their_rooms_are_nobodys(message: dict[str, Any]) -> None:
    rig = AppRig(RootRouter())
    peer = rig.connect()

    assert code_of(peer.ask({**message, "room": "@user/ada"})) in ("bad_room", "unknown_type")


@pytest.mark.parametrize("name", ["@user/", "@user", "@users/a", "@", "@user/\u200b", "@user/" + "a" * 123])
def test_other_names_of_the_protocol_are_no_rooms(name: str) -> None:
    peer = client(rig_of(Policy()))

    assert code_of(peer.ask(typed("$join", room=name, ref="1"))) == "bad_room"


@pytest.mark.parametrize("access", ["open", "closed"])
def test_without_authorize_access_says_what_holds(access: str) -> None:
    router = RootRouter()
    router.authenticate(lambda request: User("ada"))
    rig = AppRig(router, access=access)
    peer = client(rig)

    answers = [types_of(peer.ask({**m, "ref": str(n)}))[0] for n, m in enumerate(EVERY) if m["type"] != "guarded"]

    assert ("$err" in answers) is (access == "closed") and (set(answers) == {"$err"}) is (access == "closed")
    assert types_of(peer.ask(typed("$join", room="@user/ada", ref="z")))[0] == "$joined"


def test_closed_without_any_hook_lets_nobody_do_anything() -> None:
    peer = AppRig(RootRouter(), access="closed").connect()

    assert {code_of(peer.ask({**m, "ref": str(n)})) for n, m in enumerate(EVERY)} == {"denied"}


# ---- the end of a grant ---------------------------------------------------------------------------------


def test_at_its_end_a_grant_is_asked_for_again_and_who_may_not_stay_is_put_out() -> None:
    policy = Policy()
    policy.allow("ada", "a", "join", until=1_800_000_110.0)
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")
    policy.deny("ada", "a")

    rig.pass_time(9.9)
    rig.app.broadcast_room_json("a", "before")
    assert types_of(peer.messages()) == ["before"]
    rig.pass_time(0.2)
    rig.app.broadcast_room_json("a", "after")

    (kicked,) = peer.messages()
    assert (kicked["type"], kicked["room"], kicked["payload"]) == ("$kicked", "a", {"code": "expired"})
    assert rig.hub.rooms() == []


def asked_again() -> tuple[Policy, AppRig, AppPeer]:
    """A member whose grant is over: the application is asked whether it may stay, and has not answered."""
    policy = Policy(held=True)
    policy.allow("ada", "a", "join", until=1_800_000_110.0)
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("$join", room="a"))
    rig.run()
    peer.messages()
    rig.pass_time(10.1)
    return policy, rig, peer


def test_a_grant_that_is_given_again_loses_no_message_and_none_comes_before_the_word() -> None:
    policy, rig, peer = asked_again()
    for n in range(3):
        rig.app.broadcast_room_json("a", "x", {"n": n})
    assert peer.messages() == []

    policy.allow("ada", "a", "join", until=1_800_000_500.0)
    rig.run()
    rig.app.broadcast_room_json("a", "x", {"n": 3})

    assert [message["payload"]["n"] for message in peer.messages()] == [0, 1, 2, 3]


def test_the_word_on_one_who_left_meanwhile_holds_for_what_else_it_wants() -> None:
    policy, rig, peer = asked_again()
    policy.rules["ada", "join", "a"] = Grant("publish", until=1_800_000_150.0)
    peer.send(typed("$leave", room="a"))
    rig.run()
    before = len(policy.asked)

    peer.send(typed("x", room="a", ref="1"))
    assert types_of(peer.messages()) == ["$left", "$ack"] and len(policy.asked) == before
    rig.pass_time(50)
    peer.send(typed("x", room="a", ref="2"))

    rig.run()

    assert code_of(peer.messages()) == "denied" and policy.asked[before:] == [("ada", "publish", "a")]


def test_a_grant_that_ends_at_once_is_no_membership() -> None:
    policy = Policy()
    policy.allow("ada", "a", "join", until=1.0)
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")

    rig.pass_time(1)
    rig.app.broadcast_room_json("a", "x")

    assert "x" not in types_of(peer.messages())


@pytest.mark.parametrize("why", ["time", "revoke", "proof"])
def test_a_grant_until_a_time_that_is_over_lets_nobody_stay(why: str) -> None:
    policy = Policy()
    end = 1_800_000_110.0
    policy.allow("ada", "a", "join", until=end)
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")
    if why == "time":
        rig.pass_time(10.1)
    else:
        policy.allow("ada", "a", "join", until=1_800_000_000.0)
        if why == "revoke":
            rig.app.revoke("ada", "a")
        else:
            peer.send(typed("$auth", {"token": "ada"}, ref="p"))

    rig.app.broadcast_room_json("a", "x")

    assert "$kicked" in (told := types_of(peer.messages())) and "x" not in told
    assert rig.hub.rooms() == []


# ---- taken back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["a", None])
def test_a_revoke_asks_again_and_not_a_byte_follows_kicked(room: str | None) -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    policy.allow("ada", "b")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("$join", room="a"), typed("$join", room="b"))
    rig.run(), rig.run()
    peer.messages()
    policy.deny("ada", "a")

    rig.app.revoke("ada", room)
    rig.app.broadcast_room_json("a", "x")
    rig.app.broadcast_room_json("b", "y")
    assert types_of(peer.messages()) == (["y"] if room else [])
    while rig.waiting:
        rig.run()
    rig.app.broadcast_room_json("a", "x")

    found = peer.messages()
    assert types_of(found) == (["$kicked"] if room else ["$kicked", "y"])
    assert rig.hub.rooms() == ["b"]
    assert all(message.get("room") != "a" for message in found[1:])


def test_all_connections_of_the_user_are_asked_about_and_nobody_elses() -> None:
    policy = Policy()
    for user in ("ada", "bob"):
        policy.allow(user, "a")
    rig = rig_of(policy)
    peers = [client(rig, "ada", "a"), client(rig, "bob", "a"), client(rig, "ada", "a")]
    policy.deny("ada", "a")
    policy.deny("bob", "a")

    rig.app.revoke("ada")

    assert [types_of(peer.messages()) for peer in peers] == [["$kicked"], [], ["$kicked"]]
    rig.app.revoke("nobody")


def test_a_revoke_now_ends_the_connection_and_drops_what_waits() -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    inside, outside = client(rig, "ada", "a"), client(rig, "ada")
    inside.takes = False
    rig.app.broadcast_room_json("a", "x")

    rig.app.revoke("ada", "a", now=True)

    assert rig.hub.state_of(inside.conn) is None and rig.hub.is_open(outside.conn)
    rig.app.revoke("ada", now=True)
    assert rig.hub.connections == 0


def test_a_revoke_now_is_told_where_nothing_waits() -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")

    rig.app.revoke("ada", now=True)

    assert peer.closed() == (4003, "denied")


def test_refused_in_authorize_is_a_denial() -> None:
    policy = Policy()
    policy.rules["ada", "join", "a"] = Refused("no")
    rig = rig_of(policy)

    assert code_of(client(rig).ask(typed("$join", room="a", ref="1"))) == "denied"
    assert rig.reports == []


def test_an_answer_from_before_the_revoke_counts_no_more() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("$join", room="a", ref="j"))
    steps, waiting = rig.waiting[0]
    answer = waiting.handler.function(*waiting.args)
    policy.deny("ada", "a")
    rig.app.revoke("ada", "a")

    from .app_rig import _result_of

    rig.waiting.pop(0)
    rig._go_on(lambda: steps.send(_result_of_kept(answer, Grant())), steps)
    while rig.waiting:
        rig.run()

    assert code_of(peer.messages()) == "denied"
    assert rig.hub.rooms() == []
    assert _result_of is not None


def _result_of_kept(coroutine: Any, result: object) -> object:
    """An answer that was found before the rules changed."""
    coroutine.close()
    return result


@pytest.mark.threat(2)
def test_who_was_put_out_may_come_back_only_with_a_grant() -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")
    policy.deny("ada", "a")
    rig.app.revoke("ada")
    peer.messages()

    assert code_of(peer.ask(typed("$join", room="a", ref="1"))) == "denied"
    policy.allow("ada", "a")
    assert types_of(peer.ask(typed("$join", room="a", ref="2"))) == ["$joined", "$live"]


@pytest.mark.parametrize("message", [typed("$history", room="a", ref="1"), typed("$position", room="a", ref="1")])
def test_what_was_asked_before_the_revoke_is_not_answered_after_it(message: dict[str, Any]) -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    rig.app.broadcast_room_json("a", "x", {"n": 1})
    peer = client(rig, "ada", "a")
    rig.store_held = True
    peer.send(message)
    policy.deny("ada", "a")
    rig.app.revoke("ada", "a")
    rig.answer_store()

    found = peer.messages()
    assert types_of(found) == ["$kicked", "$err"]
    assert found[1]["payload"]["code"] == "denied" and "room" not in found[1]


def test_an_ack_behind_the_kick_tells_nothing_of_the_room() -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig, "ada", "a")
    rig.store_held = True
    peer.send(typed("x", room="a", ref="1", mid="m"))
    policy.deny("ada", "a")
    rig.app.revoke("ada", "a")
    rig.answer_store()

    kicked, ack = peer.messages()
    assert kicked["type"] == "$kicked"
    assert ack == {"type": "$ack", "ref": "1", "payload": {"mid": "m"}}


def test_an_ack_of_what_a_guard_held_over_the_kick_tells_nothing_of_the_room() -> None:
    policy = Policy()
    policy.allow("ada", "a")

    @policy.router.on_publish("x")
    async def look(session: Session, payload: dict[str, Any]) -> None: ...

    rig = rig_of(policy)
    peer = client(rig, "ada", "a")
    peer.send(typed("x", room="a", ref="1", mid="m"))
    policy.deny("ada", "a")
    rig.app.revoke("ada", "a")
    rig.run()

    kicked, *answers = peer.messages()
    assert kicked["type"] == "$kicked"
    assert answers and all(answer.get("room") is None and "off" not in answer["payload"] for answer in answers)


@pytest.mark.threat(2)
def test_a_join_whose_position_is_asked_is_answered_when_it_is_taken_back() -> None:
    policy = Policy()
    policy.allow("ada", "a")
    rig = rig_of(policy)
    rig.app.broadcast_room_json("a", "x", {"n": 1})
    peer = client(rig)
    rig.store_held = True
    peer.send(typed("$join", room="a", ref="j"))
    policy.deny("ada", "a")
    rig.app.revoke("ada", "a")
    rig.answer_store()

    found = peer.messages()
    assert types_of(found) == ["$err", "$kicked"]
    assert found[0]["ref"] == "j" and found[0]["payload"]["code"] == "denied"


def test_a_join_whose_position_comes_while_it_is_held_is_placed_when_it_may_stay() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    rig = rig_of(policy)
    rig.app.broadcast_room_json("a", "x", {"n": 1})
    peer = client(rig)
    rig.store_held = True
    peer.send(typed("$join", room="a", ref="j"))
    rig.run()
    rig.app.revoke("ada", "a")
    asks, rig.asks = rig.asks, []
    answers = run_asks(rig.log, asks, TS)
    assert any(isinstance(answer, PositionKnown) for answer in answers)
    rig.pump.put(*answers)
    assert peer.messages() == []
    rig.run()
    rig.answer_store()

    assert types_of(peer.messages()) == ["$joined", "$live"]


def test_a_page_that_comes_while_it_is_held_is_sent_only_if_it_may_stay() -> None:
    for stays in (True, False):
        policy = Policy(held=True)
        policy.allow("ada", "a")
        rig = rig_of(policy, HubConfig(tail_bytes_room=0, ping_interval_s=0))
        for n in range(5):
            rig.app.broadcast_room_json("a", "x", {"n": n})
        peer = client(rig)
        peer.send(typed("$join", {"last": 5}, room="a", ref="j"))
        rig.run()
        rig.store_held = True
        rig.run()
        rig.answer_store()
        first = peer.messages()
        rig.app.revoke("ada", "a")
        rig.answer_store()
        assert types_of(peer.messages()) == []
        if not stays:
            policy.deny("ada", "a")
        rig.run()
        while rig.asks:
            rig.answer_store()

        assert types_of(first) == ["$joined"]
        assert types_of(peer.messages()) == (["x"] * 5 + ["$live"] if stays else ["$kicked"])


def test_messages_that_are_not_stored_do_not_come_while_it_is_held() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "loose")
    rig = rig_of(policy, HubConfig(unstored_rooms=("loose",), ping_interval_s=0))
    peer = client(rig)
    peer.send(typed("$join", room="loose"))
    rig.run()
    peer.messages()
    rig.app.revoke("ada")
    rig.app.broadcast_room_json("loose", "x")
    assert peer.messages() == []
    rig.run()
    rig.app.broadcast_room_json("loose", "y")

    assert types_of(peer.messages()) == ["y"]


def test_without_authorize_a_revoke_puts_out_at_once() -> None:
    router = RootRouter()
    router.authenticate(lambda request: User("ada"))
    rig = AppRig(router, config=CONFIG)
    peer = client(rig, "ada", "a", "@user/ada")

    rig.app.revoke("ada")

    assert [(m["type"], m["room"]) for m in peer.messages()] == [("$kicked", "a")]
    assert rig.hub.rooms() == ["@user/ada"]


def test_another_proof_asks_for_all_rooms_again_and_tells_which_are_lost() -> None:
    policy = Policy()
    for room in ("a", "b", "c"):
        policy.allow("ada", room)
    rig = rig_of(policy)
    peer = client(rig, "ada", "a", "b", "c")
    policy.deny("ada", "b")
    policy.asked.clear()

    found = peer.ask(typed("$auth", {"token": "ada"}, ref="r"))

    assert types_of(found) == ["$kicked", "$authed"]
    assert found[1]["payload"] == {"exp": None, "lost": ["b"]}
    assert policy.asked == [("ada", "join", room) for room in ("a", "b", "c")]
    assert rig.hub.rooms() == ["a", "c"]


def test_a_second_proof_is_refused_while_the_first_is_looked_into() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    rig = rig_of(policy)
    peer = client(rig)
    peer.send(typed("$join", room="a"))
    rig.run()
    peer.messages()

    peer.send(typed("$auth", {"token": "ada"}, ref="1"), typed("$auth", {"token": "ada"}, ref="2"))

    assert code_of(peer.messages()) == "rate_limited"
    rig.run()
    assert [message["ref"] for message in peer.messages()] == ["1"]


def test_each_flood_of_asks_is_bounded_by_one_open_question_a_connection() -> None:
    policy = Policy(held=True)
    rig = rig_of(policy)
    peer = client(rig)

    peer.send(*(typed("$join", room=f"r{n}") for n in range(60)))

    assert sum(isinstance(e, Authorize) for _, effects in rig.steps for e in effects) == 1


def test_a_join_of_the_applications_own_is_its_own_grant_until_it_is_revoked() -> None:
    policy = Policy()
    policy.router.on("in")(lambda session, payload: session.join("a"))
    rig = rig_of(policy)
    peer = client(rig)
    peer.ask(typed("in"))
    rig.app.broadcast_room_json("a", "x")
    assert "x" in types_of(peer.messages())

    rig.app.revoke("ada", "a")

    assert types_of(peer.messages()) == ["$kicked"]


def test_a_ping_in_the_same_read_does_not_wait_for_the_word() -> None:
    policy = Policy(held=True)
    policy.allow("ada", "a")
    peer = client(rig_of(policy))

    found = peer.ask(typed("$join", room="a", ref="j"), typed("$ping", ref="p"), typed("x", room="a", ref="x"))

    assert [message["ref"] for message in found] == ["p"]
