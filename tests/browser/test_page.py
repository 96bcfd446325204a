"""The chat page in Chromium, against the real server in a process of its own."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

import pytest

if find_spec("playwright") is None and os.environ.get("CI") != "true":
    pytest.skip("playwright is not installed", allow_module_level=True)

from playwright.sync_api import expect

from tests.browser.chatting import PATIENCE_MS, ChatServer, Cut, Visit, expect_state, expect_texts, offsets, write


def test_two_people_see_one_list_in_one_order(visit: Visit) -> None:
    ada = visit("Ada")
    expect_state(ada, "live")
    ben = visit("Ben")
    expect_state(ben, "live")
    expect(ada.get_by_text("Ben joined")).to_be_visible()

    for number in range(5):
        write(ada, f"from Ada {number}")
        write(ben, f"from Ben {number}")
    expect(ada.locator("#messages li[data-off]")).to_have_count(10)
    expect(ben.locator("#messages li[data-off]")).to_have_count(10)
    seen = ada.locator("#messages li[data-off] .text").all_inner_texts()

    expect_texts(ben, seen)
    assert [text for text in seen if "Ada" in text] == [f"from Ada {number}" for number in range(5)]
    assert [text for text in seen if "Ben" in text] == [f"from Ben {number}" for number in range(5)]
    assert offsets(ada) == offsets(ben) == list(range(1, 11))
    expect(ada.locator("#messages li.own")).to_have_count(5)
    expect(ada.locator("#messages li[data-state=sending], #messages li[data-state=sent]")).to_have_count(0)


def test_history_is_there_after_a_reload(visit: Visit) -> None:
    ada = visit("Ada")
    expect_state(ada, "live")
    write(ada, "one")
    write(ada, "two")
    expect_texts(ada, ["one", "two"])

    ada.reload()

    expect_state(ada, "live")
    expect_texts(ada, ["one", "two"])
    expect(ada.locator("#messages time").first).to_have_text(re.compile(r"\d\d"))
    expect(ada.get_by_text("Ada joined")).to_have_count(0)


def test_a_restart_loses_and_doubles_nothing(visit: Visit, server: ChatServer) -> None:
    ada = visit("Ada")
    ben = visit("Ben")
    expect_state(ada, "live")
    expect_state(ben, "live")
    write(ada, "before")
    expect_texts(ben, ["before"])

    server.stop()
    expect_state(ada, "offline")
    expect_state(ben, "offline")
    expect(ada.locator("#status-count")).to_have_text(re.compile(r"retry in \d+ s"))
    write(ada, "while away, first")
    write(ada, "while away, second")
    expect(ada.locator("#messages li[data-state=sending]")).to_have_count(2)
    server.start()
    server.publish("africa", ["from elsewhere"])
    expect_state(ada, "live")
    expect_state(ben, "live")
    write(ben, "after")

    for page in (ada, ben):
        expect(page.locator("#messages li[data-off]")).to_have_count(5, timeout=PATIENCE_MS)
    seen = ada.locator("#messages li[data-off] .text").all_inner_texts()
    expect_texts(ben, seen)
    assert offsets(ada) == offsets(ben) == [1, 2, 3, 4, 5]
    assert sorted(seen) == ["after", "before", "from elsewhere", "while away, first", "while away, second"]
    assert seen.index("while away, first") < seen.index("while away, second")
    expect(ada.locator("#messages li[data-state=sending], #messages li[data-state=sent]")).to_have_count(0)


def test_a_message_survives_a_reload_while_the_server_is_away(visit: Visit, server: ChatServer) -> None:
    cut = Cut()
    ada = visit("Ada", before=cut.attach)
    expect_state(ada, "live")
    cut.open = False
    cut.close()
    expect_state(ada, "offline")
    write(ada, "kept")
    expect(ada.locator("#messages li[data-state=sending]")).to_have_count(1)

    ada.reload()
    expect(ada.locator("#messages li[data-state=sending] .text")).to_have_text("kept")
    cut.open = True

    expect_texts(ada, ["kept"])
    expect(ada.locator("#messages li[data-kind=message]")).to_have_count(1)


def test_a_message_whose_acknowledgement_was_lost_is_stored_once(visit: Visit) -> None:
    cut = Cut()
    ada = visit("Ada", before=cut.attach)
    expect_state(ada, "live")
    ben = visit("Ben")
    expect_state(ben, "live")

    cut.deaf = True
    write(ada, "once")
    expect_texts(ben, ["once"])
    expect(ada.locator("#messages li[data-state=sending]")).to_have_count(1)
    cut.deaf = False
    cut.close()

    expect_texts(ada, ["once"])
    write(ada, "next")
    expect_texts(ben, ["once", "next"])
    expect_texts(ada, ["once", "next"])
    expect(ada.locator("#messages li[data-kind=message]")).to_have_count(2)


def test_markup_is_shown_as_text(visit: Visit) -> None:
    markup = "<script>console.error('ran')</script><img src=x onerror=console.error(1)>"
    ada = visit("<b>Ada</b>")
    ben = visit("Ben")
    expect_state(ada, "live")
    expect_state(ben, "live")

    write(ada, markup)

    expect_texts(ben, [markup])
    expect(ben.locator("#messages .user")).to_have_text("<b>Ada</b>")
    expect(ben.locator("#messages script, #messages img, #messages b b")).to_have_count(0)


def test_earlier_messages_load_above_in_order(visit: Visit, server: ChatServer) -> None:
    texts = [f"line {number}" for number in range(1, 121)]
    server.publish("africa", texts)
    ada = visit("Ada")
    expect_state(ada, "live")
    expect_texts(ada, texts[70:])
    earlier = ada.get_by_role("button", name="Load earlier messages")

    earlier.click()
    expect_texts(ada, texts[20:])
    earlier.click()
    expect_texts(ada, texts)

    expect(earlier).to_be_hidden()
    assert offsets(ada) == list(range(1, 121))


def test_typing_is_shown_to_others_only(visit: Visit) -> None:
    ada = visit("Ada")
    ben = visit("Ben")
    expect_state(ada, "live")
    expect_state(ben, "live")

    ada.get_by_label("Message", exact=True).fill("hm")

    expect(ben.locator("#typing")).to_have_text("Ada is typing…")
    expect(ada.locator("#typing")).to_have_text("")


def test_rooms_are_apart_and_a_link_leads_to_one(visit: Visit) -> None:
    ada = visit("Ada", room="café & co")
    expect_state(ada, "live")
    write(ada, "in the café")
    expect_texts(ada, ["in the café"])

    ada.get_by_role("button", name="Room & name").click()
    ada.get_by_label("Room", exact=True).fill("asia")
    ada.get_by_role("button", name="Join").click()
    expect_state(ada, "live")
    write(ada, "in asia")
    expect_texts(ada, ["in asia"])
    assert ada.url.endswith("#asia")
    ada.evaluate("location.hash = encodeURIComponent('café & co')")

    expect_texts(ada, ["in the café"])
    expect(ada.locator("#title-room")).to_have_text("# café & co")


def test_a_narrow_window_needs_no_sideways_scrolling(visit: Visit) -> None:
    ada = visit("A" * 64, viewport={"width": 360, "height": 640}, color_scheme="dark")
    expect_state(ada, "live")
    write(ada, "w" * 300)
    expect_texts(ada, ["w" * 300])

    widths = ada.evaluate("[document.documentElement.scrollWidth, scroller.scrollWidth - scroller.clientWidth]")

    assert widths == [360, 0]


def test_the_list_follows_the_newest_only_from_the_bottom(visit: Visit, server: ChatServer) -> None:
    server.publish("africa", [f"line {number}" for number in range(60)])
    ada = visit("Ada", viewport={"width": 700, "height": 500})
    expect_state(ada, "live")
    rows = ada.locator("#messages li[data-off]")
    expect(rows.last).to_be_in_viewport()

    server.publish("africa", [f"burst {number}" for number in range(30)] + ["followed"])
    expect(rows.last).to_have_text(re.compile("followed"))
    expect(rows.last).to_be_in_viewport()
    ada.locator("#scroller").evaluate("(scroller) => { scroller.scrollTop = 200; }")
    ada.locator("#scroller").hover()
    ada.mouse.wheel(0, -100)
    server.publish("africa", ["not followed"])
    expect(rows.last).to_have_text(re.compile("not followed"))
    newest = ada.get_by_role("button", name="New messages")
    expect(newest).to_be_visible()
    expect(rows.last).not_to_be_in_viewport()
    newest.click()

    expect(rows.last).to_be_in_viewport()
