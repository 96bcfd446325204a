"""Guards of publishes: of one type or of all, what they pass on, and how a repeat is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from vixws_core import Refused
from vixws_core.app.router import Router
from vixws_core.app.session import Session
from vixws_core.effects import AppMessage, StoreAppend

from .app_rig import AppRig, typed


class Bid(msgspec.Struct):
    amount: int
    note: str = ""


class Renamed(msgspec.Struct, rename="camel"):
    the_amount: int


@dataclass
class BidData:
    amount: int


class BidDict(TypedDict):
    amount: int


class BidModel(pydantic.BaseModel):
    amount: int = pydantic.Field(alias="theAmount")


def stored(rig: AppRig) -> list[Any]:
    return [msgspec.json.decode(e.payload) for _, effects in rig.steps for e in effects if isinstance(e, StoreAppend)]


def guarding(annotation: Any) -> Router:
    router = Router()

    def guard(session: Session, payload: Any) -> None:
        return None

    guard.__annotations__["payload"] = annotation
    router.on_publish("bid")(guard)
    return router


@pytest.mark.parametrize(
    ("annotation", "sent", "kept"),
    [
        (Bid, {"amount": 1, "admin": True}, {"amount": 1, "note": ""}),
        (Renamed, {"theAmount": 1, "admin": True}, {"theAmount": 1}),
        (BidData, {"amount": 1, "admin": True}, {"amount": 1}),
        (BidDict, {"amount": 1, "admin": True}, {"amount": 1}),
        (BidModel, {"theAmount": 1, "admin": True}, {"theAmount": 1}),
        (dict, {"amount": 1, "admin": True}, {"amount": 1, "admin": True}),
        (Any, {"amount": 1, "admin": True}, {"amount": 1, "admin": True}),
    ],
)
def test_a_guard_passes_on_what_its_type_names_and_nothing_else(annotation: Any, sent: Any, kept: Any) -> None:
    rig = AppRig(guarding(annotation))

    rig.connect().send(typed("bid", sent, room="sale"))

    assert stored(rig) == [kept]


def test_a_guard_of_all_types_gets_those_that_have_none_of_their_own() -> None:
    router = Router()
    seen: list[str] = []

    @router.on_publish()
    def every(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        seen.append(f"every {message.type}")
        if message.type == "bad":
            raise Refused("not here")

    @router.on_publish("own")
    def own(session: Session, payload: dict[str, Any]) -> None:
        seen.append("own")

    rig = AppRig(router)
    peer = rig.connect()

    found = peer.ask(*(typed(kind, room="sale", ref=kind) for kind in ("own", "other", "bad")))

    assert seen == ["own", "every other", "every bad"]
    assert {message["ref"]: message["type"] for message in found} == {"own": "$ack", "other": "$ack", "bad": "$err"}
    assert len(stored(rig)) == 2


def test_a_type_named_as_the_mark_for_all_is_an_ordinary_type() -> None:
    router = Router()
    router.on_publish("own")(lambda session, payload: None)
    rig = AppRig(router)

    found = rig.connect().ask(typed("*", room="sale", ref="1"))

    assert [message["type"] for message in found] == ["$ack"]


def test_a_guard_may_stamp_and_a_repeat_is_known_by_what_the_client_sent() -> None:
    router = Router()
    times = iter(range(100))

    @router.on_publish("bid")
    def stamp(session: Session, payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "at": next(times)}

    rig = AppRig(router)
    peer = rig.connect()
    bid = typed("bid", {"amount": 1}, room="sale", ref="1", mid="m")

    (first,) = peer.ask(bid)
    (again,) = peer.ask(bid)
    (other,) = peer.ask(typed("bid", {"amount": 2}, room="sale", ref="1", mid="m"))

    assert (first["payload"]["dup"], again["payload"]["dup"]) == (False, True)
    assert first["payload"]["off"] == again["payload"]["off"]
    assert other["payload"]["code"] == "mid_conflict"
    (row,) = rig.log.read("sale", 0, 10, 10, 1 << 20).rows
    assert row.payload == {"amount": 1, "at": 0}, "what was stored first stays"


def test_a_handlers_publish_is_known_by_what_it_gives() -> None:
    router = Router()
    router.on("say")(lambda session, payload: session.publish("sale", "said", payload, mid="m", ref=payload["ref"]))
    peer = AppRig(router).connect()

    (first,) = peer.ask(typed("say", {"ref": "1", "n": 1}, ref="1"))
    (second,) = peer.ask(typed("say", {"ref": "2", "n": 1}, ref="2"))

    assert first["type"] == "$ack" and second["payload"]["code"] == "mid_conflict"
