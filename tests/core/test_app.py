"""An application on a hub, offline: dispatch, order, answers, failures, and what calls outside of their place do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from pydantic import BaseModel

from vixws_core import HubConfig
from vixws_core.app.access import RootRouter
from vixws_core.app.router import Router
from vixws_core.app.session import Session
from vixws_core.effects import AppMessage, HistoryListed, Published, PublishFailed, StoreAppend
from vixws_core.errors import BadRoom, LocalError, Refused
from vixws_core.hub.model import ANYBODY
from vixws_core.inputs import Publish, Shutdown, TimePassed

from .app_rig import AppPeer, AppRig, typed


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclass
class DataPoint:
    x: int


class DictPoint(TypedDict):
    x: int


class ModelPoint(BaseModel):
    x: int


@pytest.fixture
def router() -> Router:
    return Router()


def opened(rig: AppRig) -> tuple[AppPeer, Session]:
    peer = rig.connect()
    return peer, rig.app.sessions()[-1]


def appends(rig: AppRig) -> list[StoreAppend]:
    return [effect for _, effects in rig.steps for effect in effects if isinstance(effect, StoreAppend)]


# ---- dispatch -----------------------------------------------------------------------------------


def test_messages_go_to_the_handler_of_their_type_in_order(router: Router) -> None:
    seen: list[object] = []
    router.on("a")(lambda session, payload: seen.append(("a", payload)))
    router.on("b")(lambda session, payload: seen.append(("b", payload)))
    peer, _ = opened(AppRig(router))
    peer.send(typed("a", {"n": 1}), typed("b", {"n": 2}), typed("a"))

    assert seen == [("a", {"n": 1}), ("b", {"n": 2}), ("a", {})]


def test_what_no_type_takes_goes_to_on_typed_message(router: Router) -> None:
    seen: list[object] = []
    router.on("a")(lambda session, payload: seen.append(payload))
    router.on_typed_message(lambda session, type, payload: seen.append((type, payload)))
    peer, _ = opened(AppRig(router))
    peer.send(typed("b", {"n": 1}), typed("a"))

    assert seen == [("b", {"n": 1}), {}]


def test_on_message_sees_every_message_raw_before_its_typed_handler(router: Router) -> None:
    seen: list[object] = []
    router.on("a")(lambda session, payload: seen.append(payload))
    router.on_message(lambda session, message: seen.append(message))
    peer, _ = opened(AppRig(router))
    peer.send('{"type":"a","payload":{"n":1}}')

    assert seen == ['{"type":"a","payload":{"n":1}}', {"n": 1}]


def test_without_anything_typed_text_need_not_be_json(router: Router) -> None:
    seen: list[object] = []
    router.on_message(lambda session, message: seen.append(message))
    peer, _ = opened(AppRig(router))
    peer.send("hello", '{"type":"a"}', "{")

    assert seen == ["hello", '{"type":"a"}', "{"]


@pytest.mark.parametrize("kind", [Point, DataPoint, DictPoint, ModelPoint], ids=lambda kind: kind.__name__)
def test_payloads_are_what_the_annotation_says(router: Router, kind: Any) -> None:
    seen: list[Any] = []

    def move(session: Session, payload: object) -> None:
        seen.append(payload)

    move.__annotations__["payload"] = kind
    router.on("move")(move)
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("move", {"x": 3}), typed("move", {"x": "three"}, ref="r"), typed("move", {"x": 4}))

    assert [point["x"] if isinstance(point, dict) else point.x for point in seen] == [3, 4]
    assert kind is DictPoint or all(isinstance(point, kind) for point in seen)
    assert [(message["type"], message["ref"], message["payload"]["code"]) for message in told] == [
        ("$err", "r", "bad_message")
    ]
    assert "x" in told[0]["payload"]["msg"]


def test_a_handler_may_take_the_whole_message_too(router: Router) -> None:
    seen: list[AppMessage] = []

    def note(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        seen.append(message)

    router.on("note")(note)
    peer, _ = opened(AppRig(router))
    peer.send(typed("note", {"n": 1}, kind="draft", mid="m"))

    assert [(message.kind, message.mid, message.payload) for message in seen] == [("draft", "m", b'{"n": 1}')]


def test_a_bad_payload_goes_to_on_bad_payload_and_its_ref_is_answered_once(router: Router) -> None:
    seen: list[object] = []

    def move(session: Session, payload: Point) -> None:
        seen.append(payload)

    router.on("move")(move)
    router.on_bad_payload(lambda session, type, detail: seen.append((type, detail)))
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("move", {"x": "three"}, ref="1"), typed("move", {}))

    assert [message["ref"] for message in told] == ["1"]
    assert [entry[0] for entry in seen if isinstance(entry, tuple)] == ["move", "move"]


class Wordy:
    """A type of payloads that none fits, with much to say about it."""

    @classmethod
    def model_validate_json(cls, data: bytes) -> object:
        raise ValueError("much\n ado " * 100)


def test_what_is_told_of_a_bad_payload_is_one_line_of_300_characters(router: Router) -> None:
    details: list[str] = []

    def note(session: Session, payload: Wordy) -> None:
        raise AssertionError("a bad payload was handed in")

    router.on("note")(note)
    router.on_bad_payload(lambda session, type, detail: details.append(detail))
    peer, _ = opened(AppRig(router))
    peer.send(typed("note", {}))

    assert details == [("much ado " * 100)[:300]]


@pytest.mark.parametrize(
    ("known", "offered", "agreed"),
    [
        ((), "vixws.v1", "vixws.v1"),
        (("chat",), "vixws.v1", "vixws.v1"),
        (("chat",), "chat, vixws.v1", "chat"),
        (("chat",), "vixws.v1, chat", "vixws.v1"),
        ((), "vixws.v2, mqtt", None),
    ],
)
def test_vixws_v1_is_known_on_every_route(known: tuple[str, ...], offered: str, agreed: str | None) -> None:
    router = Router()
    seen: list[str | None] = []
    router.on_open(lambda session: seen.append(session.subprotocol))
    AppRig(routes={"/": (router, known)}).connect("/", f"Sec-WebSocket-Protocol: {offered}")

    assert seen == [agreed]


def test_each_route_has_handlers_and_subprotocols_of_its_own() -> None:
    first, second = Router(), Router()
    seen: list[object] = []
    first.on_open(lambda session: seen.append(("first", session.subprotocol)))
    second.on_open(lambda session: seen.append(("second", session.subprotocol, session.query)))
    rig = AppRig(routes={"/": (first, ()), "/two": (second, ("b", "a"))})
    rig.connect("/", "Sec-WebSocket-Protocol: a")
    rig.connect("/two?k=v", "Sec-WebSocket-Protocol: x, a, b")
    stranger = rig.connect("/three")

    assert seen == [("first", None), ("second", "a", "k=v")]
    assert bytes(stranger.out).startswith(b"HTTP/1.1 404 ")
    assert len(rig.app.sessions()) == 2


def test_a_plain_request_is_answered_by_the_pages(router: Router) -> None:
    rig = AppRig(router, pages=lambda method, target, headers: (200, (("x-target", target),), method.encode()))
    peer = rig.request(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n")

    assert bytes(peer.out).startswith(b"HTTP/1.1 200 ")
    assert b"\r\nx-target: /a?b\r\n" in bytes(peer.out)


def test_pages_that_fail_are_reported_and_answered_500(router: Router) -> None:
    def broken(method: str, path: str, headers: tuple[tuple[str, str], ...]) -> Any:
        raise ValueError("no page")

    rig = AppRig(router, pages=broken)
    peer = rig.request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert bytes(peer.out).startswith(b"HTTP/1.1 500 ")
    assert [(str(whose), name) for whose, _, name in rig.reports] == [("<AuthRequest '/' from '1'>", "pages")]


# ---- every ref has one final answer -------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "payload"),
    [
        (None, {}),
        ({"n": 1}, {"n": 1}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (DataPoint(3), {"x": 3}),
        (ModelPoint(x=4), {"x": 4}),
        (True, {}),
        ("text", {}),
        ([1, 2], {}),
        (Point, {}),
    ],
    ids=repr,
)
def test_a_ref_without_an_answer_gets_ack_with_what_the_handler_returned(
    router: Router, returned: object, payload: object
) -> None:
    router.on("ask")(lambda session, asked: returned)
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"), typed("ask"))

    assert told == [{"type": "$ack", "ref": "7", "payload": payload}]


def test_an_answer_of_the_handlers_own_is_the_only_one(router: Router) -> None:
    @router.on("ask")
    def ask(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        session.send_json("told", {"n": 1}, ref=message.ref)

    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"))

    assert told == [{"type": "told", "ref": "7", "payload": {"n": 1}}]


def test_sending_something_else_is_no_answer(router: Router) -> None:
    router.on("ask")(lambda session, payload: session.send_json("by the way") and None)
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"))

    assert [message["type"] for message in told] == ["by the way", "$ack"]


def test_a_publish_with_the_ref_is_the_answer(router: Router) -> None:
    @router.on("ask")
    def ask(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        session.publish("room", "note", payload, ref=message.ref)

    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"))

    assert [(message["type"], message["ref"], message["payload"]["off"]) for message in told] == [("$ack", "7", 1)]


def test_refused_is_the_answer(router: Router) -> None:
    @router.on("ask")
    def ask(session: Session, payload: dict[str, Any]) -> None:
        raise Refused("not on Sundays", "denied")

    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"))

    assert told == [
        {"type": "$err", "ref": "7", "payload": {"code": "denied", "retry": False, "msg": "not on Sundays"}}
    ]


def test_refused_after_an_answer_names_no_ref_again(router: Router) -> None:
    @router.on("ask")
    def ask(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        session.send_json("told", ref=message.ref)
        raise Refused("and yet")

    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("ask", ref="7"))

    assert [(message["type"], message.get("ref")) for message in told] == [("told", "7"), ("$err", None)]


def test_a_type_without_a_handler_is_unknown_to_who_gave_a_ref(router: Router) -> None:
    router.on("a")(lambda session, payload: None)
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("b", ref="1"), typed("b"), typed("a", ref="2"))

    assert [(message["type"], message["ref"]) for message in told] == [("$err", "1"), ("$ack", "2")]
    assert told[0]["payload"]["code"] == "unknown_type"


def test_a_handler_that_waits_answers_with_what_it_returns(router: Router) -> None:
    @router.on("ask")
    async def ask(session: Session, payload: dict[str, Any]) -> dict[str, int]:
        return {"n": payload["n"] + 1}

    rig = AppRig(router)
    peer, _ = opened(rig)
    before = peer.ask(typed("ask", {"n": 1}, ref="1"), typed("ask", {"n": 5}, ref="2"))
    rig.run()
    first = peer.messages()
    rig.run()
    second = peer.messages()

    assert before == []
    assert [message["payload"] for message in first] == [{"n": 2}]
    assert [message["payload"] for message in second] == [{"n": 6}]


def test_an_answer_may_come_later(router: Router) -> None:
    @router.on("ask")
    def ask(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        session.data["ref"] = message.ref
        session.answer_later(message.ref)

    peer, session = opened(AppRig(router))
    at_once = peer.ask(typed("ask", ref="7"))
    session.send_json("told", ref=session.data["ref"])

    assert at_once == []
    assert peer.messages() == [{"type": "told", "ref": "7", "payload": {}}]


def test_a_later_answer_may_be_a_refusal(router: Router) -> None:
    peer, session = opened(AppRig(router))
    session.refuse("7", "store_unavailable", "not now")

    assert [message["payload"] for message in peer.messages()] == [
        {"code": "store_unavailable", "retry": True, "msg": "not now"}
    ]


def test_an_answer_reaches_a_connection_that_takes_no_more_of_others(router: Router) -> None:
    router.on("ask")(lambda session, payload: session.send_text("x" * 9000))
    rig = AppRig(router, config=HubConfig(unsent_bytes_low=1000, unsent_bytes_high=2000))
    peer, session = opened(rig)
    peer.takes = False
    peer.send(typed("ask", ref="1"))
    refused = session.send_text("one more")
    answered = session.send_json("told", ref="2")

    assert (refused, answered) == (False, True)
    assert [text[:30] for text in peer.texts()[1:]] == [
        '{"type":"$ack","ref":"1","payl',
        '{"type":"told","ref":"2","payl',
    ]


def test_what_a_handler_returns_for_a_ref_must_be_json(router: Router) -> None:
    router.on("ask")(lambda session, payload: {"n": float("nan")})
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("ask", ref="1"))

    assert peer.closed() == (1011, "a handler failed")
    assert [type(exc) for _, exc, _ in rig.reports] == [LocalError]


# ---- order, waiting and failures ----------------------------------------------------------------


def test_messages_wait_for_a_handler_that_waits(router: Router) -> None:
    seen: list[int] = []

    @router.on("slow")
    async def slow(session: Session, payload: dict[str, int]) -> None:
        seen.append(payload["n"])

    router.on("quick")(lambda session, payload: seen.append(payload["n"]))
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("slow", {"n": 1}), typed("quick", {"n": 2}))
    peer.send(typed("slow", {"n": 3}))
    before = list(seen)
    rig.run()
    between = list(seen)
    rig.run()

    assert (before, between, seen) == ([], [1, 2], [1, 2, 3])


def test_messages_wait_for_on_open(router: Router) -> None:
    seen: list[object] = []

    @router.on_open
    async def hello(session: Session) -> None:
        seen.append("open")

    router.on("a")(lambda session, payload: seen.append("a"))
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("a"))
    rig.run()

    assert seen == ["open", "a"]


def test_a_thread_handler_is_given_to_the_shell(router: Router) -> None:
    @router.on("block", thread=True)
    def block(session: Session, payload: dict[str, Any]) -> dict[str, int]:
        return {"n": 1}

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.ask(typed("block", ref="1"))
    thread = rig.waiting[0][1].handler.thread
    rig.run()

    assert thread
    assert [message["payload"] for message in peer.messages()] == [{"n": 1}]


def test_a_handler_that_raises_closes_only_its_connection(router: Router) -> None:
    told: list[object] = []

    @router.on("bad")
    def bad(session: Session, payload: dict[str, Any]) -> None:
        raise ValueError("boom")

    router.on("good")(lambda session, payload: told.append(session.id))
    router.on_error(lambda session, exc: told.append(str(exc)))
    router.on_close(lambda session: told.append((session.id, session.close_code)))
    rig = AppRig(router)
    first, _ = opened(rig)
    second, _ = opened(rig)
    first.send(typed("bad"), typed("good"))
    first.close(1011)
    second.send(typed("good"))

    assert first.closed() == (1011, "a handler failed")
    assert [name.rpartition(".")[2] for _, _, name in rig.reports] == ["bad"]
    assert told == ["boom", (1, 1011), 2]
    assert [finished.failed for finished in rig.finished(1)] == [False, True]


def test_a_handler_that_waited_and_raised_is_no_different(router: Router) -> None:
    @router.on("bad")
    async def bad(session: Session, payload: dict[str, Any]) -> None: ...

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("bad"))
    rig.fail(ValueError("boom"))

    assert peer.closed() == (1011, "a handler failed")
    assert len(rig.reports) == 1


def test_refused_by_a_handler_that_waited_is_the_answer(router: Router) -> None:
    @router.on("ask")
    async def ask(session: Session, payload: dict[str, Any]) -> None: ...

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("ask", ref="1"))
    rig.fail(Refused("no"))

    assert [(message["type"], message["ref"]) for message in peer.messages()] == [("$err", "1")]
    assert rig.reports == []


def test_on_error_that_raises_is_reported_too(router: Router) -> None:
    def raises(*_: object) -> None:
        raise ValueError("boom")

    router.on("bad")(lambda session, payload: raises())
    router.on_error(lambda session, exc: raises())
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("bad"))

    assert len(rig.reports) == 2
    assert peer.closed() == (1011, "a handler failed")


def test_on_open_that_refuses_closes_with_4003(router: Router) -> None:
    @router.on_open
    def guard(session: Session) -> None:
        raise Refused("members only")

    rig = AppRig(router)
    peer, session = opened(rig)

    assert peer.closed() == (4003, "members only")
    assert not session.is_open
    assert rig.reports == []


def test_on_open_that_raises_closes_with_1011(router: Router) -> None:
    @router.on_open
    def broken(session: Session) -> None:
        raise ValueError("boom")

    peer, _ = opened(AppRig(router))

    assert peer.closed() == (1011, "a handler failed")


def test_on_close_comes_once_and_last_with_the_code(router: Router) -> None:
    told: list[object] = []
    router.on("a")(lambda session, payload: told.append("a"))
    router.on_close(lambda session: told.append((session.close_code, session.close_reason, session.is_open)))
    peer, _ = opened(AppRig(router))
    peer.raw(b"")  # Nothing, which is told by no driver, changes nothing.
    peer.send(typed("a"))
    peer.close(3001, "done")
    peer.vanish()

    assert told == ["a", (3001, "done", False)]


def test_on_close_comes_after_a_handler_that_still_waits(router: Router) -> None:
    told: list[str] = []

    @router.on("slow")
    async def slow(session: Session, payload: dict[str, Any]) -> None:
        told.append("slow")

    router.on_close(lambda session: told.append("close"))
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("slow"), typed("slow"))
    peer.vanish()
    before = list(told)
    rig.run()
    rig.run()

    assert before == []
    assert told == ["slow", "slow", "close"]


def test_on_close_that_raises_is_reported(router: Router) -> None:
    @router.on_close
    def broken(session: Session) -> None:
        raise ValueError("boom")

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.vanish()

    assert len(rig.reports) == 1


def test_what_a_closed_session_still_gets_is_not_handled(router: Router) -> None:
    seen: list[int] = []

    @router.on("stop")
    def stop(session: Session, payload: dict[str, int]) -> None:
        seen.append(payload["n"])
        session.close(4000, "enough")
        session.close(4001, "a second time")

    peer, _ = opened(AppRig(router))
    peer.send(typed("stop", {"n": 1}), typed("stop", {"n": 2}))

    assert seen == [1]
    assert peer.closed() == (4000, "enough")


# ---- guards -------------------------------------------------------------------------------------


def guarded(router: Router, answer: object) -> AppPeer:
    @router.on_publish("note")
    def guard(session: Session, payload: dict[str, Any]) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("$join", room="r"))
    peer.messages()
    return peer


def test_a_guard_that_returns_nothing_lets_the_publish_pass(router: Router) -> None:
    told = guarded(router, None).ask(typed("note", {"n": 1}, room="r", ref="1", mid="m"))

    assert [message["type"] for message in told] == ["note", "$ack"]
    assert told[0]["payload"] == {"n": 1}
    assert told[1]["payload"]["mid"] == "m"


def test_a_guard_may_replace_the_payload(router: Router) -> None:
    told = guarded(router, {"n": 2}).ask(typed("note", {"n": 1}, room="r"))

    assert [message["payload"] for message in told] == [{"n": 2}]


def test_a_guard_sees_no_room_that_cannot_be_one(router: Router) -> None:
    seen: list[str | None] = []

    @router.on_publish("note")
    def guard(session: Session, payload: dict[str, object], message: AppMessage) -> None:
        seen.append(message.room)

    rig = AppRig(router)
    peer = rig.connect()
    (answer,) = peer.ask(typed("note", room="@sys\u200b", ref="1"))

    assert answer["payload"]["code"] == "bad_room"
    assert seen == []


def test_a_guards_payload_is_as_large_as_a_message_may_be(router: Router) -> None:
    router.on_publish("note")(lambda session, payload: {"x": "y" * 100_000})
    rig = AppRig(router)
    peer = rig.connect()
    (answer,) = peer.ask(typed("note", room="africa", ref="1"))

    assert (answer["type"], answer["payload"]["code"]) == ("$err", "too_large")
    assert rig.log.rooms() == []


def test_a_guard_may_refuse(router: Router) -> None:
    told = guarded(router, Refused("no notes")).ask(typed("note", {"n": 1}, room="r", ref="1"))

    assert [(message["type"], message["ref"], message["payload"]["code"]) for message in told] == [
        ("$err", "1", "denied")
    ]


def test_a_guard_that_raises_fails_like_any_handler(router: Router) -> None:
    peer = guarded(router, ValueError("boom"))
    peer.send(typed("note", {"n": 1}, room="r", ref="1"))

    assert peer.closed() == (1011, "a handler failed")


def test_a_guarded_publish_into_a_bad_room_is_refused(router: Router) -> None:
    told = guarded(router, None).ask(typed("note", {"n": 1}, room="a\u200bb", ref="1"))

    assert [(message["type"], message["payload"]["code"]) for message in told] == [("$err", "bad_room")]


def test_a_guard_checks_its_payload(router: Router) -> None:
    @router.on_publish("note")
    async def guard(session: Session, payload: Point) -> Point:
        return Point(payload.x + 1, payload.y)

    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.send(typed("$join", room="r"))
    bad = peer.ask(typed("note", {"x": "?"}, room="r", ref="1"))
    good = peer.ask(typed("note", {"x": 1}, room="r"))
    rig.run()

    assert [(message["type"], message["payload"]["code"]) for message in bad] == [("$err", "bad_message")]
    assert good == []
    assert [message["payload"] for message in peer.messages()] == [{"x": 2, "y": 0}]


# ---- what the application calls -----------------------------------------------------------------


def test_join_makes_a_member_at_once(router: Router) -> None:
    rig = AppRig(router)
    _, session = opened(rig)
    rig.app.join_room(session, "r")
    members = rig.app.members("r")
    rig.app.leave_room(session, "r")

    assert members == [session]
    assert rig.app.members("r") == []


def test_leave_all_leaves_all(router: Router) -> None:
    rig = AppRig(router)
    _, session = opened(rig)
    for name in ("a", "b"):
        session.join(name)
    before = session.rooms
    rig.app.leave_all_rooms(session)

    assert before == ("a", "b")
    assert (session.rooms, rig.app.rooms()) == ((), [])


def test_join_may_resume_by_a_mapping(router: Router) -> None:
    rig = AppRig(router)
    peer, session = opened(rig)
    for number in range(3):
        rig.app.broadcast_room_json("r", "note", {"n": number})
    session.join("r", {"ep": "ep1", "off": 1})

    assert [message["off"] for message in peer.messages()] == [2, 3]


def test_a_broadcast_reaches_all_but_one(router: Router) -> None:
    rig = AppRig(router)
    first, session = opened(rig)
    second, _ = opened(rig)
    rig.app.broadcast_json("news", ["n", 1], but=session)

    assert first.messages() == []
    assert second.messages() == [{"type": "news", "payload": {"n": 1}}]


def test_a_publish_tells_its_outcome_once(router: Router) -> None:
    rig = AppRig(router)
    outcomes: list[object] = []
    rig.app.broadcast_room_json("r", "note", {"n": 1}, mid="m", done=outcomes.append)
    rig.app.broadcast_room_json("r", "note", {"n": 2}, mid="m", done=outcomes.append)
    rig.app.broadcast_room_json("r", "note", {"n": 3}, store=False, done=outcomes.append)

    assert [type(outcome) for outcome in outcomes] == [Published, PublishFailed, Published]


def test_history_tells_the_newest_oldest_first(router: Router) -> None:
    rig = AppRig(router)
    listed: list[HistoryListed] = []
    for number in range(3):
        rig.app.broadcast_room_json("r", "note", {"n": number})
    rig.app.history("r", 2, None, listed.append)
    rig.app.history("r", 2, "not an id", listed.append)

    assert [row.off for row in listed[0].rows] == [2, 3]
    assert (listed[1].rows, listed[1].code) == ((), "bad_message")


def test_a_session_that_asks_for_too_much_history_is_not_read_meanwhile(router: Router) -> None:
    router.on("ask")(lambda session, payload: session.history("r", 1, None, lambda listed: None))
    rig = AppRig(router, config=HubConfig(publishes_max=4))
    peer, _ = opened(rig)
    rig.store_held = True
    peer.send(*[typed("ask")] * 4)
    kinds = [type(effect).__name__ for _, effects in rig.steps for effect in effects]
    rig.answer_store()
    after = [type(effect).__name__ for _, effects in rig.steps for effect in effects][len(kinds) :]

    assert kinds.count("PauseReading") == 1
    assert after.count("ResumeReading") == 1


def test_an_outcome_that_raises_is_reported_and_no_one_elses_problem(router: Router) -> None:
    def broken(outcome: object) -> None:
        raise ValueError("boom")

    rig = AppRig(router)
    peer, session = opened(rig)
    session.publish("r", "note", {}, done=broken)

    assert [(whose, type(exc)) for whose, exc, _ in rig.reports] == [(None, ValueError)]
    assert peer.closed() is None


def wrong_calls(rig: AppRig, session: Session) -> dict[str, Any]:
    app = rig.app
    return {
        "bad room": lambda: app.join_room(session, ""),
        "bad since": lambda: app.join_room(session, "r", {"ep": 1}),
        "negative last": lambda: app.join_room(session, "r", None, -1),
        "room of a leave": lambda: app.leave_room(session, "a\nb"),
        "room of members": lambda: app.members(""),
        "$ type": lambda: app.broadcast_room_json("r", "$note", {}),
        "no type": lambda: app.broadcast_room_json("r", "", {}),
        "no kind": lambda: app.broadcast_room_json("r", "note", {}, kind=""),
        "long mid": lambda: app.broadcast_room_json("r", "note", {}, mid="m" * 129),
        "large payload": lambda: app.broadcast_room_json("r", "note", {"t": "x" * 65_536}),
        "payload that is no object": lambda: app.broadcast_room_json("r", "note", 7),
        "odd pairs": lambda: app.broadcast_room_json("r", "note", ["a"]),
        "NaN": lambda: app.broadcast_json("note", {"n": float("nan")}),
        "limit": lambda: app.history("r", 0, None, lambda listed: None),
        "surrogate": lambda: session.send_text("\ud800"),
        "untyped": lambda: session.send_json(""),
        "close code": lambda: session.close(1005),
        "close code out of range": lambda: session.close(5000),
        "close reason": lambda: session.close(1000, "x" * 124),
    }


@pytest.mark.parametrize("what", list(wrong_calls(AppRig(Router()), None)))  # type: ignore[arg-type] # only the names
def test_a_wrong_call_raises_and_changes_nothing(router: Router, what: str) -> None:
    rig = AppRig(router)
    peer, session = opened(rig)

    with pytest.raises(LocalError):
        wrong_calls(rig, session)[what]()
    assert peer.messages() == []
    assert session.is_open
    assert rig.app.rooms() == []


def test_a_bad_room_that_a_handler_lets_pass_is_answered(router: Router) -> None:
    router.on("join")(lambda session, payload: session.join(payload["room"]))
    peer, _ = opened(AppRig(router))
    told = peer.ask(typed("join", {"room": "\x00"}, ref="1"))

    assert issubclass(BadRoom, LocalError)
    assert [(message["type"], message["ref"], message["payload"]["code"]) for message in told] == [
        ("$err", "1", "bad_room")
    ]


def test_a_session_that_is_gone_takes_calls_and_does_nothing(router: Router) -> None:
    rig = AppRig(router)
    peer, session = opened(rig)
    peer.vanish()
    session.join("r")
    session.leave("r")
    session.close()
    outcomes: list[object] = []
    stored = len(appends(rig))
    for room in ("r", "@user/bob"):
        with pytest.raises(LocalError, match="is over"):
            session.publish(room, "note", {}, mid="m", done=outcomes.append)
        with pytest.raises(LocalError, match="is over"):
            session.publish(room, "note", {}, store=False)

    assert (session.send_text("x"), session.send_json("x"), session.send_binary(b"x")) == (False, False, False)
    assert (rig.app.rooms(), session.rooms) == ([], ())
    assert outcomes == []
    assert len(appends(rig)) == stored, "nothing is published in another name"


def test_a_publish_of_a_busy_handler_stands_in_the_name_of_the_session_that_is_gone(router: Router) -> None:
    rig = AppRig(router)
    router.on("later", thread=True)(lambda session, payload: session.publish("r", "note", {}, mid="m"))
    peer, _ = opened(rig)
    peer.send(typed("later"))
    peer.vanish()
    rig.run()

    (append,) = appends(rig)
    assert append.scope == ANYBODY


def test_calls_that_wait_when_the_hub_is_gone_are_answered(router: Router) -> None:
    rig = AppRig(router)
    rig.store_held = True
    outcomes: list[Any] = []
    rig.app.broadcast_room_json("r", "note", {}, done=outcomes.append)
    rig.app.history("r", 1, None, outcomes.append)
    before = list(outcomes)
    rig.app.abandon("the server stopped")
    rig.app.broadcast_room_json("r", "note", {}, done=outcomes.append)
    rig.app.history("r", 1, None, outcomes.append)

    assert before == []
    assert [(type(outcome), outcome.code, outcome.message) for outcome in outcomes] == [
        (PublishFailed, "store_unavailable", "the server stopped"),
        (HistoryListed, "store_unavailable", "the server stopped"),
    ] * 2


def test_a_publish_that_the_hub_refuses_leaves_no_trace(router: Router) -> None:
    rig = AppRig(router)
    outcomes: list[object] = []

    with pytest.raises(LocalError):
        rig.pump.do(Publish("r", "$x", b"{}"))
    rig.app.abandon("over")
    assert outcomes == []


def test_the_drain_is_told(router: Router) -> None:
    told: list[str] = []
    rig = AppRig(router, drained=lambda: told.append("drained"))
    opened(rig)
    rig.pump.put(Shutdown(8.0))

    assert told == []
    peer = rig.peers[1]
    peer.close()
    assert told == ["drained"]


@pytest.mark.parametrize("asked", ["$history", "$position", "listed", "failed"])
def test_a_drain_ends_when_the_last_question_is_answered(router: Router, asked: str) -> None:
    rig = AppRig(router)
    peer, session = opened(rig)
    rig.store_held = True
    if asked == "listed":
        rig.app.history("r", 1, None, lambda listed: None, session)
    elif asked == "failed":
        rig.app.history("r", 1, "no id", lambda listed: None, session)
    else:
        peer.send(typed(asked, room="r", ref="1"))
    rig.pump.put(Shutdown(8.0))
    before = peer.closed()
    rig.answer_store()
    rig.pump.put(TimePassed())  # The next tick: what the application answers goes before the close frame.

    assert before is None
    assert peer.closed() == (1012, "the server shuts down")


@pytest.mark.parametrize("route", ["typed", "raw", "empty", "of its own", "of its own for all"])
def test_guards_of_the_server_hold_on_every_route(route: str) -> None:
    """Also where messages are raw, unless the client says that it speaks the protocol."""
    asked: list[str] = []

    def refuse(session: Session, payload: object) -> None:
        asked.append("server")
        raise Refused("not now")

    root, other = RootRouter(), Router()
    root.on_publish("bid")(refuse)
    root.on("x")(lambda session, payload: None)
    if route == "typed":
        other.on("y")(lambda session, payload: None)
    elif route == "raw":
        other.on_message(lambda session, message: session.send_text("raw"))
    elif route == "of its own":
        other.on_publish("bid")(lambda session, payload: asked.append("route"))
    elif route == "of its own for all":
        other.on_publish()(lambda session, payload: asked.append("route"))
    rig = AppRig(root, routes={"/": (root, ()), "/other": (other, ())})
    peer = rig.connect("/other")
    if route == "raw":
        peer.send(typed("$hello"))
    (told,) = [
        message
        for message in peer.ask(typed("bid", room="r", ref="1"))
        if isinstance(message, dict) and message.get("ref") == "1"
    ]

    assert asked == (["route"] if route == "of its own" else ["server"])
    assert told["type"] == ("$ack" if route == "of its own" else "$err")
    assert len(appends(rig)) == (route == "of its own")


def test_nobody_in_particular_shares_no_keys_with_the_server(router: Router) -> None:
    rig = AppRig(router)
    peer, _ = opened(rig)
    peer.ask(typed("x", room="r", mid="order-17"), typed("x", room="r", mid="~feed:999999999999999:1"))
    outcomes: list[object] = []
    for mid in ("order-17", "~feed:1:1"):
        rig.app.broadcast_room_json("r", "note", {"by": "the server"}, mid=mid, done=outcomes.append)

    assert [type(outcome) for outcome in outcomes] == [Published, Published]
    assert len(rig.log.list_by_room("r", 10)) == 4
