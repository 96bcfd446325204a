"""Coming back is no new allowance: what a connection had spent, the next ones of its address and its user lack."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.app.access import RootRouter, User
from vixws_core.effects import FindPosition, StoreAppend
from vixws_core.inputs import Connected

from .app_rig import AppRig, typed
from .harness import REQUEST, Harness, Peer, text_frame

RATE, BURST = 10, 100
STEP = HubConfig().events_per_step_max


def config(**more: Any) -> HubConfig:
    """A rate of messages, and nothing that happens by itself."""
    options = {"messages_per_s": float(RATE), "messages_burst": BURST, "ping_interval_s": 0, "idle_timeout_s": 0}
    return HubConfig(**{**options, **more})


def come(harness: Harness, limited: bool | str = "203.0.113.5") -> Peer:
    """A newcomer of an address, whose request was answered."""
    conn = len(harness.peers) + 1
    peer = harness.peers[conn] = Peer(harness, conn)
    harness.put(Connected(conn, limited=limited))
    peer.raw(REQUEST)
    return peer


def flood(peer: Peer, count: int = 4 * STEP) -> None:
    """Sends so many messages in small reads, as long as it is read."""
    for _ in range(0, count, 10):
        if not is_resting(peer):
            peer.raw(text_frame({"type": "x"}) * 10)


def is_resting(peer: Peer) -> bool:
    """Whether reading of it was paused and not resumed."""
    told = [e for _, _, effects in peer.harness.steps for e in effects if getattr(e, "conn", None) == peer.conn]
    marks = [type(e).__name__ for e in told if type(e).__name__ in ("PauseReading", "ResumeReading")]
    return bool(marks) and marks[-1] == "PauseReading"


@pytest.mark.threat(7)
def test_row_7_who_comes_back_has_no_new_burst() -> None:
    harness = Harness(config())
    began = harness.now

    for _ in range(40):
        peer = come(harness)
        flood(peer)
        harness.run_until(harness.now + 0.5)
        peer.vanish()

    due = BURST + RATE * (harness.now - began)
    assert due <= len(harness.received) <= due + STEP, "its rate, and its burst once"


@pytest.mark.threat(7)
def test_row_7_other_addresses_and_connections_without_one_have_all_of_theirs() -> None:
    harness = Harness(config())
    for limited in ("203.0.113.5", "203.0.113.6", True, True):
        peer, before = come(harness, limited), len(harness.received)
        flood(peer)
        peer.vanish()

        assert BURST <= len(harness.received) - before <= BURST + STEP


@pytest.mark.threat(7)
def test_row_7_who_is_not_limited_has_no_debts() -> None:
    harness = Harness(config())
    peer = come(harness, False)
    flood(peer)
    peer.vanish()

    assert len(harness.received) >= 4 * STEP
    assert harness.hub.debts_remembered == 0


def test_what_was_spent_is_regained_by_time() -> None:
    harness = Harness(config())
    peer = come(harness)
    flood(peer)
    peer.vanish()
    harness.run_until(harness.now + (BURST + 10) / RATE)
    before = len(harness.received)
    flood(come(harness))

    assert len(harness.received) - before >= BURST


@pytest.mark.threat(7)
def test_row_7_nobody_waits_longer_than_a_second_for_what_others_of_an_address_spent() -> None:
    harness = Harness(config())
    culprits = [come(harness) for _ in range(40)]
    for peer in culprits:
        flood(peer)
        peer.vanish()
    many = [come(harness) for _ in range(60)]
    for number, peer in enumerate(many):
        peer.raw(text_frame({"type": "$ping", "ref": str(number)}))
    harness.run_until(harness.now + 1.1 + 1 / RATE)

    assert [peer.types() for peer in many] == [["$pong"]] * 60


@pytest.mark.threat(7)
def test_row_7_what_an_address_owes_is_bounded() -> None:
    harness = Harness(config())
    for peer in [come(harness) for _ in range(100)]:
        flood(peer)
        peer.vanish()
    # Sixteen pay all of it: each what it may send at once, and what it gains in the second that it waits.
    for _ in range(16):
        come(harness)

    before = len(harness.received)
    flood(come(harness))
    assert len(harness.received) - before >= BURST


def test_questions_new_rooms_and_inflated_bytes_are_owed_too() -> None:
    harness = Harness(config(messages_per_s=0.0, asks_per_s=1, asks_burst=10, new_rooms_per_min=60))
    for _ in range(20):
        peer = come(harness)
        for number in range(30):
            if not is_resting(peer):
                peer.send({"type": "$position", "ref": "p", "room": f"r{number}"})
        peer.vanish()
        harness.now += 0.01
    asked = len(harness.effects(FindPosition))

    for number in range(20):
        peer = come(harness, "203.0.113.6")
        for at in range(100):
            if not is_resting(peer):
                peer.publish(f"{number} {at}")
        peer.vanish()
        harness.now += 0.01

    assert 10 <= asked <= 12
    assert 60 <= len(harness.log.rooms()) <= 63


def by_header() -> RootRouter:
    router = RootRouter()
    router.authenticate(lambda request: User(request.token))
    return router


@pytest.mark.threat(7)
def test_row_7_a_user_who_comes_back_from_elsewhere_has_no_new_burst() -> None:
    rig = AppRig(by_header(), config=config())

    def stored() -> int:
        return sum(isinstance(e, StoreAppend) for _, effects in rig.steps for e in effects)

    peer = rig.connect("/", "Authorization: Bearer ada")
    for _ in range(BURST // 10 + 1):
        peer.send(*(typed("x", room="africa") for _ in range(10)))
    peer.vanish()
    assert stored() == BURST + 10

    for user, at_once in (("ada", 0), ("bob", 1)):
        peer = rig.connect("/", f"Authorization: Bearer {user}")  # From no address that is known.
        before = stored()
        peer.send(typed("x", room="africa"))
        assert stored() - before == at_once
    rig.pass_time(1.1)
    assert stored() == BURST + 12


@pytest.mark.threat(7)
def test_row_7_an_address_that_is_its_users_as_well_pays_once() -> None:
    rig = AppRig(by_header(), config=config(), arrived=lambda conn, headers: (f"{conn}", "203.0.113.5"))
    peer = rig.connect("/", "Authorization: Bearer ada")
    for _ in range(6):
        peer.send(*(typed("x", room="africa") for _ in range(10)))
    peer.vanish()
    peer = rig.connect("/", "Authorization: Bearer ada")
    for _ in range(BURST // 10):
        peer.send(*(typed("x", room="africa") for _ in range(10)))

    stored = sum(isinstance(e, StoreAppend) for _, effects in rig.steps for e in effects)
    assert BURST <= stored <= BURST + 10


def test_debts_that_are_paid_are_forgotten_and_the_others_are_bounded() -> None:
    harness = Harness(config())
    for number in range(6_000):
        peer = come(harness, f"2001:db8::{number:x}")
        peer.raw(text_frame({"type": "x"}))
        peer.vanish()
        harness.now += 0.01
        harness.steps.clear()

    assert 0 < harness.hub.debts_remembered < 2_200

    for number in range(20_000):
        peer = come(harness, f"2001:db8:1::{number:x}")
        peer.raw(text_frame({"type": "x"}))
        peer.vanish()
        harness.steps.clear()

    assert harness.hub.debts_remembered <= 16_384
