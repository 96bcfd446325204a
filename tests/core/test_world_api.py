"""What users of the simulated world write: their own application, their own story, their own properties."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vixws_core import LocalError, Refused
from vixws_core.app import Router, Session
from vixws_core.client import ClientState
from vixws_core.inputs import Since
from vixws_core.testing import NO_FAULTS, Faults, World, roomy_config


def shop(router: Router) -> None:
    """An application with a guard that waits, a handler in a thread, and one that fails."""

    @router.on_publish("order")
    async def check(session: Session, payload: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if payload.get("count", 0) < 1:
            raise Refused("count must be 1 or more")
        return {**payload, "checked": True}

    @router.on("price", thread=True)
    def price(session: Session, payload: Mapping[str, Any]) -> None:
        session.publish("prices", "price", {"of": payload["of"], "is": 3})

    @router.on("fail")
    def fail(session: Session, payload: Mapping[str, Any]) -> None:
        raise RuntimeError("as told")


@pytest.mark.parametrize("seed", range(10))
def test_an_application_whose_handlers_wait_runs_in_a_world(seed: int) -> None:
    world = World(seed, build=shop, clients=2)
    buyer, seller = world.clients
    seller.join("orders")
    seller.join("prices")
    world.settle()
    good, bad = buyer.publish("orders", "order", {"count": 2}), buyer.publish("orders", "order", {"count": 0})
    world.run(30)
    world.settle()
    buyer.send("price", {"of": "tea"})
    world.settle()

    assert [message.payload for message in seller.seen["orders"]] == [b'{"count":2,"checked":true}']
    assert [message.type for message in seller.seen["prices"]] == ["price"]
    assert [(buyer.settled[number].ok, buyer.settled[number].code) for number in (good, bad)] == [
        (True, ""),
        (False, "denied"),
    ]


def test_what_a_handler_raises_is_kept_and_ends_its_connection_only() -> None:
    world = World("fail", build=shop, clients=2, faults=NO_FAULTS)
    world.settle()
    world.client(0).send("fail")
    world.run(10)

    assert world.server is not None
    assert [repr(error) for error in world.server.errors] == ["RuntimeError('as told')"]
    assert world.client(0).state is not ClientState.OPEN
    assert world.client(1).state is ClientState.OPEN


def test_a_publish_survives_a_crash_of_the_server() -> None:
    world = World("crash", clients=2, faults=NO_FAULTS)
    world.client(0).join("africa")
    world.settle()
    request = world.client(1).publish("africa", "note", {"n": 1})
    world.run(3)
    world.crash()
    assert world.server is None
    world.settle()

    assert world.client(1).settled[request].ok
    assert world.client(0).offsets("africa") == [1]
    assert len(world.traces) == 2


def test_a_drained_server_is_followed_by_another() -> None:
    world = World("drain", clients=2, faults=NO_FAULTS)
    world.client(0).join("africa")
    world.settle()
    world.drain()
    world.append("africa", "note", {"n": 1})
    world.settle()

    assert world.client(0).offsets("africa") == [1]
    assert len(world.traces) == 2


def test_a_client_that_was_away_while_the_log_was_trimmed_is_told_so() -> None:
    world = World("trim", clients=1, faults=NO_FAULTS)
    client = world.client(0)
    client.join("africa", since=Since("e1", 0), from_floor=True)
    for number in range(5):
        world.append("africa", "note", {"n": number})
    world.trim("africa", 3)
    world.settle()

    assert client.offsets("africa") == [4, 5]
    assert client.joined["africa"].reason == "trimmed"


def test_a_restored_backup_is_noticed_by_who_was_ahead_of_it() -> None:
    world = World("restore", clients=1, faults=NO_FAULTS)
    client = world.client(0)
    client.join("africa")
    world.settle()
    world.append("africa", "note", {"n": 1})
    world.back_up()
    world.append("africa", "note", {"n": 2})
    world.settle()
    world.crash(restore=True)
    world.settle()

    assert client.joined["africa"].reason == "ahead"
    assert world.truth.head("africa") == 1


def test_a_cut_connection_comes_back_where_it_was() -> None:
    world = World("cut", clients=1, faults=NO_FAULTS)
    client = world.client(0)
    client.join("africa")
    world.settle()
    world.append("africa", "note", {"n": 1})
    world.cut(0)
    world.append("africa", "note", {"n": 2})
    world.settle()

    assert client.offsets("africa") == [1, 2]
    assert client.joined["africa"].recovered


def test_a_stopped_client_holds_nobody_up_and_may_start_again() -> None:
    world = World("stop", clients=2, faults=NO_FAULTS)
    world.client(0).join("africa")
    world.settle()
    world.client(0).stop()
    world.append("africa", "note", {"n": 1})
    world.settle()
    assert world.client(0).state is ClientState.STOPPED
    world.client(0).start()
    world.settle()

    assert world.client(0).offsets("africa") == [1]


commands = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("publish"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("run"), st.just(0), st.integers(1, 20)),
        st.tuples(st.just("trim"), st.just(0), st.integers(0, 9)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 32), commands)
def test_whatever_clients_do_everybody_settles(seed: int, story: list[tuple[str, int, int]]) -> None:
    world = World(seed, clients=3, config=roomy_config(), faults=Faults(crash=0, drain=0, trim=0))
    for step, (name, index, count) in enumerate(story):
        client = world.client(index)
        try:
            if name == "join":
                client.join("africa", last=count)
            elif name == "leave":
                client.leave("africa")
            elif name == "publish":
                client.publish("africa", "note", {"n": step}, mid=f"k{step}")
            elif name == "cut":
                world.cut(index)
            elif name == "run":
                world.run(count)
            elif name == "trim":
                world.trim("africa", count)
            else:
                world.crash()
        except LocalError:
            assert name == "join"  # Joined already.
    world.settle()

    published = sum(name == "publish" for name, _, _ in story)
    assert sum(row.type == "note" for row in world.truth.rows.get("africa", [])) >= published
    assert all(answer.ok for client in world.clients for answer in client.settled.values())


def test_the_same_words_may_be_published_twice() -> None:
    world = World(seed=3, clients=2)
    ada = world.client(0)
    ada.join("hall")
    ada.publish("hall", "note", {"text": "again"})
    ada.publish("hall", "note", {"text": "again"})
    world.run(200)
    world.settle()

    assert ada.offsets("hall") == [1, 2]
