"""Rates of a client and of a user: questions for the log, new rooms, messages. Over them it is not read for a while."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.app.access import RootRouter, User
from vixws_core.effects import FindPosition, PauseReading, ReadStore, ResumeReading, StoreAppend
from vixws_core.inputs import Connected
from vixws_core.log import PureLog

from .app_rig import AppRig, typed
from .harness import REQUEST, Harness, Peer


def quiet(**more: Any) -> HubConfig:
    """A configuration in which nothing happens by itself."""
    return HubConfig(ping_interval_s=0, idle_timeout_s=0, **more)


def ask(kind: str, number: int) -> dict[str, object]:
    return {"type": kind, "ref": str(number), "room": f"r{number}" if kind == "$join" else "africa", "payload": {}}


def is_resting(harness: Harness, peer: Peer) -> bool:
    """Whether reading of it was paused last, and not resumed."""
    told = [
        type(e)
        for _, _, effects in harness.steps
        for e in effects
        if isinstance(e, PauseReading | ResumeReading) and e.conn == peer.conn
    ]
    return bool(told) and told[-1] is PauseReading


@pytest.mark.parametrize("kind", ["$join", "$history", "$position"])
@pytest.mark.threat(17)
def test_row_17_questions_over_their_rate_are_not_read_until_they_are_due(kind: str) -> None:
    harness = Harness(quiet(asks_per_s=10, asks_burst=20, rooms_max=1_000))
    peer = harness.client()
    asked = [ask(kind, number) for number in range(200)]

    for at in range(0, 200, 10):
        peer.send(*asked[at : at + 10])

    def served() -> int:
        return sum(isinstance(e, FindPosition | ReadStore) for _, _, effects in harness.steps for e in effects)

    assert 20 <= served() <= 20 + harness.hub.config.events_per_step_max
    assert is_resting(harness, peer)
    before = served()
    harness.run_until(harness.now + 30)
    assert served() == 200 and before < 200
    assert len({message["ref"] for message in peer.messages() if "ref" in message}) == 200, "none is lost"


@pytest.mark.threat(32)
def test_rows_of_a_page_count() -> None:
    log = PureLog("ep1")
    harness = Harness(quiet(asks_per_s=1, asks_burst=12), log=log)
    writer = harness.client()
    for number in range(500):
        writer.publish("africa", str(number))
    peer = harness.client()

    peer.send({"type": "$history", "ref": "1", "room": "africa", "payload": {"limit": 500}})
    assert not is_resting(harness, peer)
    peer.send({"type": "$history", "ref": "2", "room": "africa", "payload": {"limit": 500}})

    assert is_resting(harness, peer)
    assert [message["ref"] for message in peer.messages()] == ["1", "2"]


def test_rooms_that_a_client_begins_have_a_rate() -> None:
    harness = Harness(quiet(new_rooms_per_min=30))
    peer = harness.client()

    for number in range(1_000):
        peer.publish(f"r{number}", ref=str(number))

    began = len(harness.log.rooms())
    assert 30 <= began <= 30 + harness.hub.config.events_per_step_max
    assert is_resting(harness, peer)
    harness.run_until(harness.now + 600)
    # What was read in one step is handled, and paid for by a longer rest.
    assert 300 <= len(harness.log.rooms()) <= 30 + 300 + harness.hub.config.events_per_step_max


def test_a_room_that_is_there_and_a_repeat_begin_none() -> None:
    harness = Harness(quiet(new_rooms_per_min=2))
    peer = harness.client()

    for number in range(50):
        peer.publish("africa", str(number))
        peer.publish("asia", "same", mid="m")

    assert not is_resting(harness, peer)


def test_rates_do_not_hold_for_who_is_not_limited() -> None:
    harness = Harness(quiet(asks_per_s=1, asks_burst=1, new_rooms_per_min=1))
    peer = harness.peers[1] = Peer(harness, 1)
    harness.put(Connected(1, limited=False))
    peer.raw(REQUEST)
    peer.hello()

    for number in range(100):
        peer.publish(f"r{number}")
        peer.send(ask("$position", number))

    assert not is_resting(harness, peer)


def by_header() -> RootRouter:
    router = RootRouter()
    router.authenticate(lambda request: User(request.token))
    return router


@pytest.mark.threat(7)
def test_a_user_has_one_rate_for_all_connections_and_others_have_their_own() -> None:
    config = quiet(user_messages_per_s=10, user_messages_burst=100)
    rig = AppRig(by_header(), config=config)
    peers = [rig.connect("/", f"Authorization: Bearer {user}") for user in ("ada", "ada", "bob")]

    for _ in range(20):
        for peer in peers:
            peer.send(*(typed("x", room="africa") for _ in range(10)))

    def stored(user: str) -> int:
        return sum(isinstance(e, StoreAppend) and e.sender == user for _, effects in rig.steps for e in effects)

    assert 100 <= stored("ada") <= 120
    assert 100 <= stored("bob") <= 110
    rig.pass_time(10)
    assert 190 <= stored("ada") <= 200 + 2 * config.events_per_step_max
    assert rig.hub.is_open(1) and rig.hub.is_open(2) and rig.hub.is_open(3)


def test_a_users_questions_and_new_rooms_count_together() -> None:
    rig = AppRig(by_header(), config=quiet(asks_per_s=1, asks_burst=10, rooms_max=100))
    peers = [rig.connect("/", "Authorization: Bearer ada") for _ in range(4)]

    for number in range(20):
        for peer in peers:
            peer.send(typed("$position", room="africa", ref=str(number)))

    asked = sum(isinstance(e, FindPosition) for _, effects in rig.steps for e in effects)
    assert 10 <= asked <= 10 + len(peers)


def test_who_comes_back_has_no_new_allowance() -> None:
    rig = AppRig(by_header(), config=quiet(user_messages_per_s=10, user_messages_burst=100))

    for _ in range(10):
        peer = rig.connect("/", "Authorization: Bearer ada")
        for _ in range(20):
            peer.send(*(typed("x", room="africa") for _ in range(10)))
        peer.vanish()

    stored = sum(isinstance(e, StoreAppend) for _, effects in rig.steps for e in effects)
    assert stored <= 100 + 10 * rig.hub.config.events_per_step_max


def test_users_who_are_gone_and_have_all_of_their_allowance_are_forgotten() -> None:
    rig = AppRig(by_header(), config=quiet(asks_per_s=1, asks_burst=10))

    for number in range(6_000):
        peer = rig.connect("/", f"Authorization: Bearer u{number}")
        if number % 3 == 0:
            peer.send(typed("$position", room="africa"))
        peer.vanish()
        rig.now += 0.5

    assert rig.hub.users_remembered < 2_200


def test_guesses_of_tokens_and_questions_that_are_refused_have_a_rate() -> None:
    router = by_header()
    asked: list[str] = []

    @router.authorize
    def may(user: User, action: str, room: str) -> None:
        asked.append(action)

    rig = AppRig(router, config=quiet(asks_per_s=1, asks_burst=80))
    peer = rig.connect("/", "Authorization: Bearer ada")
    for number in range(200):
        peer.send(typed("$auth", {"token": "eve"}, ref=str(number)))
    guesses = len(peer.messages())
    other = rig.connect("/", "Authorization: Bearer bob")
    for number in range(200):
        other.send(typed("$position", room="r", ref=str(number)))

    assert 10 <= guesses <= 12
    assert 80 <= len(asked) <= 82
