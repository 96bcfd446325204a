"""Configuration, errors and what the hub itself says of its state."""

from __future__ import annotations

import dataclasses

import pytest

from vixws_core import BadRoom, Hub, HubConfig, LocalError, Refused, StoreError, TooManyRooms
from vixws_core.effects import SendBytes
from vixws_core.errors import BadMessage
from vixws_core.inputs import Connected, Publish

from .harness import Harness


def test_every_setting_names_its_unit() -> None:
    units = (
        "_s",
        "_bytes",
        "_max",
        "_low",
        "_high",
        "_total",
        "_per_s",
        "_per_min",
        "_burst",
        "_room",
        "_rooms",
        "durable",
    )
    switches = {"deflate"}
    names = {field.name for field in dataclasses.fields(HubConfig)}

    assert {name for name in names if not name.endswith(units)} == switches


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        HubConfig().rooms_max = 5  # type: ignore[misc]  # That it cannot is the test.


def test_marks_and_budgets_fit_each_other() -> None:
    config = HubConfig()

    assert config.page_bytes_max <= config.unsent_bytes_low < config.unsent_bytes_high < config.unsent_bytes_total
    assert config.tail_bytes_room < config.tail_bytes_total
    assert config.message_bytes_max < config.unsent_bytes_low
    assert config.pong_timeout_s + config.ping_interval_s <= 50  # Threats row 14.


def test_defaults_are_used_where_nothing_is_given() -> None:
    assert Hub().config == HubConfig()


@pytest.mark.parametrize("size", [0, 65])
def test_seed_and_secret_have_1_to_64_bytes(size: int) -> None:
    with pytest.raises(LocalError, match="1 to 64 bytes"):
        Hub(seed=b"x" * size)
    with pytest.raises(LocalError, match="1 to 64 bytes"):
        Hub(secret=b"x" * size)
    Hub(seed=b"x" * 64, secret=b"x")


def test_hub_can_be_looked_at_without_changing_it() -> None:
    harness = Harness()
    peer = harness.client("africa")
    hub = harness.hub

    assert (hub.sessions, hub.connections, hub.draining, hub.unsent_bytes) == (1, 1, False, 0)
    assert (hub.is_open(peer.conn), hub.is_open(99)) == (True, False)
    assert (hub.unsent_bytes_of(peer.conn), hub.unsent_bytes_of(99)) == (0, 0)
    assert hub.next_deadline() == harness.now + 10  # The time of the handshake: it is looked at, and put back to 30.
    assert harness.pass_time(10) == []
    assert hub.next_deadline() == harness.now + 20


def test_unsent_bytes_are_counted_until_they_are_flushed() -> None:
    harness = Harness()
    peer = harness.client()
    peer.takes = False
    peer.send({"type": "$ping"})
    (sent,) = [effect for effect in harness.steps[-1][2] if isinstance(effect, SendBytes)]

    assert harness.hub.unsent_bytes == harness.hub.unsent_bytes_of(peer.conn) == len(sent.data)
    peer.flush()
    assert harness.hub.unsent_bytes == 0


def test_command_that_raises_changes_nothing() -> None:
    hub = Hub()
    hub.handle(Connected(1), 0.0)
    with pytest.raises(BadRoom):
        hub.handle(Publish("", "chat", b"{}"), 1.0)

    assert hub.next_deadline() == 10.0
    assert hub.connections == 1


def test_errors_carry_their_codes() -> None:
    assert Refused().code == "denied"
    assert Refused("no", "internal").code == "internal"
    assert BadRoom("x").code == "bad_room"
    assert TooManyRooms("x").code == "too_many_rooms"
    assert BadMessage("bad_json", "x").code == "bad_json"
    error = StoreError("store_full", "x", retry=True)
    assert (error.code, error.retry, str(error)) == ("store_full", True, "x")
    assert StoreError("internal", "x").retry is False
