"""The chat page in Chromium with a scripted peer: what a healthy server seldom says."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import pytest

if find_spec("playwright") is None and os.environ.get("CI") != "true":
    pytest.skip("playwright is not installed", allow_module_level=True)

from playwright.sync_api import Page, expect

from tests.browser.chatting import Peer, Visit, expect_state, expect_texts, write


def joined_peer(visit: Visit, head: int = 0) -> tuple[Page, Peer]:
    peer = Peer(head)
    page = visit("Ada", before=peer.attach)
    expect_state(page, "live")
    return page, peer


def test_seen_offsets_are_dropped_and_a_jump_is_asked_for(visit: Visit) -> None:
    page, peer = joined_peer(visit, head=3)
    expect_texts(page, ["e1 1", "e1 2", "e1 3"])

    peer.send_entry(2)
    peer.send_entry(5)
    peer.send_entry(6)

    expect_texts(page, ["e1 1", "e1 2", "e1 3", "e1 4", "e1 5", "e1 6"])
    joins = peer.said_of("$join")
    assert len(joins) == 2
    assert joins[1]["payload"]["since"] == {"ep": "e1", "off": 3, "id": "e1-3"}


def test_what_still_comes_of_a_room_just_left_is_not_shown(visit: Visit) -> None:
    page, peer = joined_peer(visit, head=1)
    page.evaluate("location.hash = 'asia'")
    expect(page.locator("#title-room")).to_have_text("# asia")
    expect_state(page, "live")
    assert peer.route is not None

    late = {"room": "africa", "payload": {"user": "Eve", "text": "late"}}
    peer.route.send(json.dumps(peer.entry(2) | late))
    peer.route.send(json.dumps({"type": "chat.system", **late}))
    peer.send_entry(2)

    expect_texts(page, ["e1 1", "e1 2"])
    expect(page.get_by_text("late", exact=True)).to_have_count(0)
    assert [message["room"] for message in peer.said_of("$leave")] == ["africa"]


def test_a_gap_is_told(visit: Visit) -> None:
    page, peer = joined_peer(visit, head=1)

    peer.say("$gap", {"from": 2, "to": 6})
    peer.send_entry(7)

    expect_texts(page, ["e1 1", "e1 7"])
    expect(page.locator("#messages [data-kind=divider]")).to_have_text("Messages 2 to 6 are no longer kept.")
    assert len(peer.said_of("$join")) == 1


def test_a_reset_starts_the_list_again(visit: Visit) -> None:
    page, peer = joined_peer(visit, head=3)
    expect_texts(page, ["e1 1", "e1 2", "e1 3"])

    peer.ep = "e2"
    peer.head = 2
    peer.say("$reset", {"ep": "e2", "from": 2, "head": 2, "floor": 0, "reason": "epoch"})
    expect_texts(page, ["e2 1", "e2 2"])
    peer.send_entry(3)

    expect_texts(page, ["e2 1", "e2 2", "e2 3"])
    expect(page.locator("#messages [data-kind=divider]")).to_contain_text("history of this room was reset")


def test_a_rejoin_that_is_not_recovered_starts_the_list_again(visit: Visit) -> None:
    page, peer = joined_peer(visit, head=3)
    expect_texts(page, ["e1 1", "e1 2", "e1 3"])
    assert peer.route is not None

    peer.ep = "e2"
    peer.head = 1
    peer.joined = {"recovered": False, "reason": "epoch", "from": 1}
    peer.route.close(code=4200)

    expect_texts(page, ["e2 1"])
    assert peer.said_of("$join")[1]["payload"]["since"] == {"ep": "e1", "off": 3, "id": "e1-3"}


def test_a_final_close_code_stops_and_says_why(visit: Visit) -> None:
    page, peer = joined_peer(visit)
    assert peer.route is not None

    peer.route.close(code=4003, reason="denied")

    expect_state(page, "stopped")
    expect(page.locator("#status-text")).to_have_text("stopped: denied (4003)")
    assert peer.connections == 1


def test_an_unanswered_ping_means_a_new_connection(visit: Visit) -> None:
    peer = Peer(head=1)
    peer.pongs_left = 1

    def before(page: Page) -> None:
        page.clock.install()
        peer.attach(page)

    page = visit("Ada", before=before)
    expect_state(page, "live")
    page.clock.run_for(26_000)
    expect_state(page, "live")
    page.clock.run_for(25_000)
    expect_state(page, "live")
    assert peer.connections == 1

    page.clock.run_for(21_000)

    expect_state(page, "live")
    expect_texts(page, ["e1 1"])
    assert peer.connections == 2


def test_a_drain_is_obeyed(visit: Visit) -> None:
    peer = Peer()

    def before(page: Page) -> None:
        page.clock.install()
        peer.attach(page)

    page = visit("Ada", before=before)
    expect_state(page, "live")

    peer.say("$drain", {"reconnect_in_ms": 20_000, "close_in_ms": 8000}, everywhere=True)
    expect_state(page, "offline")
    page.clock.run_for(12_000)
    expect_state(page, "offline")
    assert peer.connections == 1
    page.clock.run_for(10_000)

    expect_state(page, "live")
    assert peer.connections == 2


def test_refused_and_oversized_messages_say_why_and_can_be_removed(visit: Visit) -> None:
    page, peer = joined_peer(visit)
    peer.refusals = [{"code": "denied", "msg": "not here"}]

    write(page, "x" * 1000)
    write(page, "bad")
    failed = page.locator("#messages li[data-state=failed]")
    expect(failed.locator(".fate")).to_contain_text(["longer than the 1000 bytes", "not sent: not here"])
    failed.last.get_by_role("button", name="Remove").click()
    expect(failed).to_have_count(1)
    failed.get_by_role("button", name="Remove").click()

    expect(failed).to_have_count(0)
    assert [message["payload"]["text"] for message in peer.said_of("chat.message")] == ["bad"]


def test_a_refusal_that_may_pass_is_tried_again_with_the_same_mid(visit: Visit) -> None:
    page, peer = joined_peer(visit)
    peer.refusals = [{"code": "store_unavailable", "retry": True, "after_ms": 20}]

    write(page, "first")
    write(page, "second")

    expect_texts(page, ["first", "second"])
    expect(page.locator("#messages li[data-kind=message]")).to_have_count(2)
    tries = peer.said_of("chat.message")
    assert [message["payload"]["text"] for message in tries] == ["first", "first", "second"]
    assert tries[0]["mid"] == tries[1]["mid"] != tries[2]["mid"]


def test_a_try_again_waits_as_long_as_the_server_asked(visit: Visit) -> None:
    peer = Peer()
    peer.refusals = [{"code": "store_unavailable", "retry": True, "after_ms": 20_000}]

    def before(page: Page) -> None:
        page.clock.install()
        peer.attach(page)

    page = visit("Ada", before=before)
    expect_state(page, "live")
    write(page, "later")
    expect(page.locator("#messages li[data-state=sending]")).to_have_count(1)
    page.clock.run_for(12_000)
    assert len(peer.said_of("chat.message")) == 1
    page.clock.run_for(10_000)

    expect_texts(page, ["later"])
    assert len(peer.said_of("chat.message")) == 2


def test_a_message_that_always_fails_inside_the_server_is_given_up(visit: Visit) -> None:
    page, peer = joined_peer(visit)
    peer.refusals = [{"code": "internal", "retry": True, "after_ms": 1, "msg": "broken"}] * 5

    write(page, "poison")
    write(page, "fine")

    expect_texts(page, ["fine"])
    expect(page.locator("#messages li[data-state=failed] .fate")).to_contain_text("not sent: broken")
    assert len(peer.said_of("chat.message")) == 6
