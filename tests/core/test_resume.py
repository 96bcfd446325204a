"""Sessions that come back: who shows a session's name takes it over, if it is the same user, and in time."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core.config import Policy
from vixws_core.inputs import Accept

from .harness import Harness, Peer, close_frame


def hello(peer: Peer, session: str | None = None) -> Any:
    """The payload of the `$welcome`."""
    return peer.answer({"type": "$hello", "payload": {"v": [1], "session": session}})["payload"]


def test_a_session_that_was_lost_comes_back_under_another_name() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    one.vanish()
    harness.pass_time(29.9)
    second = hello(harness.connect(), first["session"])

    assert (first["resumed"], second["resumed"]) == (False, True)
    assert second["session"] != first["session"]


@pytest.mark.parametrize("shown", ["s_unknown", None])
def test_a_name_that_is_not_known_is_a_new_session(shown: str | None) -> None:
    harness = Harness()
    hello(harness.connect())

    assert hello(harness.connect(), shown)["resumed"] is False


def test_a_session_is_forgotten_thirty_seconds_after_its_loss_and_nothing_of_it_is_kept() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    one.vanish()
    harness.pass_time(30.1)
    second = hello(harness.connect(), first["session"])

    assert second["resumed"] is False
    assert harness.hub.sessions_remembered == 1


def test_who_said_goodbye_does_not_come_back() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    one.raw(close_frame())

    assert hello(harness.connect(), first["session"])["resumed"] is False
    assert harness.hub.sessions_remembered == 1


def test_a_connection_that_still_has_the_session_is_closed() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    second = hello(harness.connect(), first["session"])

    assert second["resumed"] is True
    assert one.close_seen() == (4009, "replaced: another connection took this session over")


def test_the_old_name_holds_until_something_arrives_on_the_new_connection() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    one.vanish()
    two = harness.connect()
    hello(two, first["session"])  # Its `$welcome` is lost,
    two.vanish()
    three = harness.connect()
    third = hello(three, first["session"])  # so that the client still shows the first one.
    harness.pass_time(1.0)
    three.send({"type": "$ping"})
    three.vanish()

    assert third["resumed"] is True
    assert hello(harness.connect(), first["session"])["resumed"] is False
    assert hello(harness.connect(), third["session"])["resumed"] is True


def test_an_old_name_takes_nothing_over_from_a_connection_that_was_heard_of() -> None:
    harness = Harness()
    one = harness.connect()
    first = hello(one)
    one.vanish()
    two = harness.connect()
    hello(two, first["session"])
    harness.pass_time(1.0)
    two.send({"type": "$ping"})
    hello(harness.connect(), first["session"])

    assert two.close_seen() is None


def test_a_session_is_its_users() -> None:
    harness = Harness(policy=Policy(authenticated=True))
    harness.accepting = False

    def user(name: str) -> Peer:
        peer = harness.connect()
        harness.pump.do(Accept(peer.conn, user=name))
        peer.messages()
        return peer

    ada = user("ada")
    first = hello(ada)
    stolen = hello(user("eve"), first["session"])

    assert stolen["resumed"] is False
    assert ada.close_seen() is None
    assert hello(user("ada"), first["session"])["resumed"] is True
    assert ada.close_seen() is not None


def test_many_sessions_that_are_lost_and_never_come_back_are_forgotten() -> None:
    harness = Harness()
    for _ in range(50):
        peer = harness.connect()
        hello(peer)
        peer.vanish()
        harness.pass_time(1.0)

    assert harness.hub.sessions_remembered <= 32
