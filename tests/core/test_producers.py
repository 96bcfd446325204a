"""Ordered producers: numbers are taken one after the other, and what is refused says what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import LocalError, StoreError
from vixws_core.app.access import RootRouter
from vixws_core.app.session import Session
from vixws_core.effects import PublishFailed, StoreAppend
from vixws_core.inputs import Publish, StoreFailed
from vixws_core.mids import Numbered, is_mid, numbered
from vixws_core.producers import KEPT_DAYS, SENDER_MAX, Kept, Producers, day_of, judge
from vixws_core.testing import World
from vixws_core.testing.app_server import SimServer
from vixws_core.testing.scenarios import run_varied, varied_world

from .app_rig import AppRig, typed
from .harness import Harness

ODD = [
    "~",
    "~p",
    "~p:1",
    "~p:1:0",
    "~p:01:1",
    "~p:1:01",
    "~p:-1:1",
    "~a b:1:1",
    "~p:1:1 ",
    "~:1:1",
    "~p:1:1000000000000000",
]


def ask(mid: str, room: str = "africa", scope: str = "ada") -> StoreAppend:
    return StoreAppend(7, room, "event", "note", b"{}", mid, b"d" * 16, scope)


def publish(mid: str, n: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "note", "room": "africa", "ref": f"r{n}", "mid": mid, "payload": {"n": n}, **more}


@pytest.mark.parametrize("mid", ODD)
def test_a_key_that_only_begins_like_one_is_none(mid: str) -> None:
    harness = Harness()
    peer = harness.client("africa")
    peer.messages()
    peer.send(publish(mid))
    (answer,) = peer.messages()

    assert not is_mid(mid) and numbered(mid) is None
    assert answer["payload"]["code"] == "bad_message"
    with pytest.raises(LocalError, match="~producer:epoch:seq"):
        harness.put(Publish("africa", "note", b"{}", mid=mid))


@pytest.mark.parametrize("mid", ["m", "p:1:1", "a~p:1:1", "m:1:~"])
def test_other_keys_are_free(mid: str) -> None:
    assert is_mid(mid) and numbered(mid) is None


def test_the_longest_names_and_numbers_are_taken() -> None:
    assert numbered(f"~{'x' * 32}:{10**15 - 1}:{10**15 - 1}") == Numbered("x" * 32, 10**15 - 1, 10**15 - 1)


def test_what_is_refused_says_which_number_is_expected_and_nothing_of_it_is_seen() -> None:
    harness = Harness()
    peer, member = harness.client("africa"), harness.client("africa")
    peer.messages(), member.messages()

    peer.send(publish("~p:0:1", 1), publish("~p:0:3", 2), publish("~p:0:2", 3), publish("~p:0:1", 1, ref="again"))
    found = [m for m in peer.messages() if m["type"] in ("$ack", "$err")]

    assert [(m["type"], m["payload"].get("code"), m["payload"].get("expected")) for m in found] == [
        ("$ack", None, None),
        ("$err", "seq_gap", 2),
        ("$ack", None, None),
        ("$ack", None, None),
    ]
    assert [m["payload"].get("dup") for m in found] == [False, None, False, True]
    assert found[1]["payload"]["retry"] is False and "number 3" in found[1]["payload"]["msg"]
    assert [m["payload"]["n"] for m in member.messages() if m["type"] == "note"] == [1, 3]


def test_what_comes_in_one_read_is_taken_in_order_behind_what_fails() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.send(*(publish(f"~p:0:{n}", n) for n in (1, 2)))
    first, second = harness.asks
    harness.put(StoreFailed(first.request, "store_unavailable"))
    harness.asks = [second]
    harness.deliver_all()

    assert [m["payload"]["code"] for m in peer.messages() if m["type"] == "$err"] == ["store_unavailable", "seq_gap"]


def test_a_guard_passes_the_number_on() -> None:
    router = RootRouter()
    router.on_publish("note")(lambda session, payload: {**payload, "seen": True})
    rig = AppRig(router)
    peer = rig.connect("/")
    peer.ask(typed("$hello", {"v": [1], "pub": "p" * 32}))

    codes = [
        peer.ask(publish(mid, n))[-1]["payload"].get("code") for n, mid in enumerate(("~p:0:2", "~p:0:1", "~p:0:1"))
    ]

    assert codes == ["seq_gap", None, "mid_conflict"]


def test_a_handler_hears_which_number_was_expected() -> None:
    router = RootRouter()
    outcomes: list[object] = []

    @router.on("say")
    def say(session: Session, payload: dict[str, Any]) -> None:
        session.publish("africa", "note", {}, mid=payload["mid"], done=outcomes.append)

    rig = AppRig(router)
    peer = rig.connect("/")
    peer.send(typed("say", {"mid": "~p:0:4"}))

    (failed,) = outcomes
    assert isinstance(failed, PublishFailed) and (failed.code, failed.expected) == ("seq_gap", 1)


def test_the_server_raises_with_the_number_that_is_expected() -> None:
    caught: list[StoreError] = []

    def build(server: SimServer) -> None:
        @server.on_open
        async def opened(session: Session) -> None:
            try:
                await server.publish("africa", "note", {}, mid="~p:3:9")
            except StoreError as exc:
                caught.append(exc)

    world = World("number", build=build)
    world.run(40)
    world.settle()

    assert {(error.code, error.expected, error.retry) for error in caught} == {("seq_gap", 1, False)}


# ---- what is known of them ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "mid", "expected"),
    [
        (None, "~p:5:1", Kept(5, 1, 100)),
        (None, "~p:5:2", ("seq_gap", 1)),
        (Kept(5, 3, 100), "~p:5:4", Kept(5, 4, 100)),
        (Kept(5, 3, 100), "~p:5:5", ("seq_gap", 4)),
        (Kept(5, 3, 100), "~p:5:3", ("stale_mid", None)),
        (Kept(5, 3, 100), "~p:4:4", ("fenced", None)),
        (Kept(5, 3, 100), "~p:4:1", ("fenced", None)),
        (Kept(5, 3, 100), "~p:6:1", Kept(6, 1, 100)),
        (Kept(5, 3, 100), "~p:6:4", ("seq_gap", 1)),
        (Kept(5, 3, 100 - KEPT_DAYS), "~p:4:1", ("fenced", None)),
        (Kept(5, 3, 99 - KEPT_DAYS), "~p:4:1", Kept(4, 1, 100)),
        (Kept(5, 3, 99 - KEPT_DAYS), "~p:5:4", ("seq_gap", 1)),
    ],
)
def test_what_is_taken_of_a_producer(kept: Kept | None, mid: str, expected: object) -> None:
    parts = numbered(mid)
    assert parts is not None
    found = judge(kept, ask(mid), parts, 100)

    assert ((found.code, found.expected) if isinstance(found, StoreFailed) else found) == expected
    assert not isinstance(found, StoreFailed) or (found.request, found.retry) == (7, False)


DAY = "2026-01-02T00:00:00Z"


def number(name: str, seq: int, room: str = "r", scope: str = "") -> StoreAppend:
    return StoreAppend(7, room, "event", "note", b"{}", f"~{name}:0:{seq}", scope=scope)


def test_of_one_sender_in_one_room_the_idlest_producer_goes_and_nobody_elses() -> None:
    producers = Producers()
    assert producers.take(number("other", 1, "s"), DAY) is None
    assert producers.take(number("other", 1, scope="bob"), DAY) is None
    assert producers.take(number("m0", 1), "2026-01-01T00:00:00Z") is None
    for at in range(1, SENDER_MAX + 3):
        assert producers.take(number(f"m{at:03}", 1), DAY) is None

    assert len(producers) == SENDER_MAX + 2
    gone = ("m0", "m001", "m002")
    found = [producers.take(number(name, 2), DAY) for name in (*gone, "m003", f"m{SENDER_MAX + 2:03}")]
    assert [None if each is None else each.expected for each in found] == [1, 1, 1, None, None]
    assert producers.take(number("other", 2, "s"), DAY) is None
    assert producers.take(number("other", 2, scope="bob"), DAY) is None


def test_in_all_who_has_most_producers_gives_way() -> None:
    producers = Producers(100)
    for at in range(20):
        assert producers.take(number("one", 1, f"room{at}", "ada"), DAY) is None
    for at in range(1_000):
        assert producers.take(number(f"m{at % 90}", at // 90 + 1, "flood", "eve"), DAY) is None or at >= 90

    assert len(producers) <= 100
    assert [producers.take(number("one", 2, f"room{at}", "ada"), DAY) for at in range(20)] == [None] * 20


def test_where_everybody_has_one_those_go_that_stored_nothing_for_longest() -> None:
    producers = Producers(100)
    for at in range(101):
        assert producers.take(number("one", 1, scope=f"user{at}"), DAY) is None

    assert len(producers) == 100
    found = [producers.take(number("one", 2, scope=f"user{at}"), DAY) for at in (0, 1, 100)]
    assert [None if each is None else each.expected for each in found] == [1, None, None]


def test_the_day_of_a_time() -> None:
    assert day_of("2026-03-01T00:00:00Z") - day_of("2026-02-28T23:59:59.999Z") == 1
    assert day_of("") == day_of("soon") == 0


def test_the_worlds_refuse_numbers_in_every_way() -> None:
    codes: set[str] = set()
    for number in range(12):
        world = varied_world(f"producers/{number}")
        run_varied(world, 300)
        for client in world.clients:
            codes |= {settled.code for settled in client.settled.values() if hasattr(settled, "code")}
        if {"seq_gap", "fenced"} <= codes:
            break

    assert {"seq_gap"} <= codes
