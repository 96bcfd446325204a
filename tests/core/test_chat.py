"""The built-in chat, offline: the whole flow, and every way in which it says no."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.app.chat import ENTRY_BYTES, PAGE_MAX, build
from vixws_core.app.router import Router
from vixws_core.errors import LocalError
from vixws_core.inputs import StoreFailed

from .app_rig import AppPeer, AppRig, typed

ROOM = {"room": "africa", "user": "ada"}


def chat(**options: Any) -> AppRig:
    router = Router()
    build(router)
    return AppRig(router, **options)


def member(rig: AppRig, user: str = "ada", room: str = "africa") -> AppPeer:
    """A peer that has joined; nothing is left to read for anybody."""
    peer = rig.connect()
    peer.send(typed("chat.join", {"room": room, "user": user}))
    for other in rig.peers.values():
        other.messages()
    return peer


def said(text: str, **more: object) -> dict[str, Any]:
    return typed("chat.message", {**ROOM, "text": text}, **more)


def test_a_new_session_is_welcomed() -> None:
    peer = chat().connect()

    assert peer.messages() == [{"type": "chat.system", "payload": {"user": "server", "text": "Welcome!"}}]


def test_the_room_hears_who_joins_the_newcomer_included_and_it_is_not_stored() -> None:
    rig = chat()
    first = member(rig)
    second = rig.connect()
    second.messages()
    told = second.ask(typed("chat.join", {"room": "africa", "user": "bob"}))

    assert told == first.messages()
    assert told == [{"type": "chat.system", "room": "africa", "payload": {"room": "africa", "text": "bob joined"}}]
    assert rig.log.rooms() == []


def test_a_join_with_last_sends_the_newest_first() -> None:
    rig = chat()
    member(rig).send(*(said(str(number)) for number in range(5)))
    late = rig.connect()
    late.messages()
    told = late.ask(typed("chat.join", {**ROOM, "last": 2}))

    assert [message["payload"]["text"] for message in told if message["type"] == "chat.message"] == ["3", "4"]


def test_a_join_with_since_goes_on_behind_it() -> None:
    rig = chat()
    peer = member(rig)
    told = peer.ask(*(said(str(number)) for number in range(3)))
    since = {key: told[0][key] for key in ("ep", "off", "id")}
    late = rig.connect()
    late.messages()
    told = late.ask(typed("chat.join", {**ROOM, "since": since}))

    assert [message["payload"]["text"] for message in told if message["type"] == "chat.message"] == ["1", "2"]


def test_leaving_is_told_to_those_who_stay() -> None:
    rig = chat()
    stays, leaves = member(rig), member(rig, "bob")
    told = leaves.ask(typed("chat.leave", {"room": "africa", "user": "bob"}))

    assert told == []
    assert [message["payload"]["text"] for message in stays.messages()] == ["bob left"]


def test_leaving_a_room_one_is_not_in_tells_nobody() -> None:
    rig = chat()
    stays, stranger = member(rig), rig.connect()
    stranger.messages()
    told = stranger.ask(typed("chat.leave", ROOM), typed("chat.leave", ROOM, ref="1"))

    assert stays.messages() == []
    assert [message["type"] for message in told] == ["$ack"]


def test_a_message_is_stored_and_sent_with_its_place_and_unknown_keys_kept() -> None:
    rig = chat()
    peer, other = member(rig), member(rig, "bob")
    payload = {**ROOM, "text": "hello", "colour": {"r": 1}, "n": 2**70}
    told = peer.ask(typed("chat.message", payload))

    assert told == other.messages()
    assert [(message["off"], message["payload"]) for message in told] == [(1, payload)]
    assert rig.log.read("africa", 0, 1).rows[0].payload == payload


def test_a_message_needs_no_membership_and_its_ref_gets_the_ack() -> None:
    rig = chat()
    peer = rig.connect()
    peer.messages()
    told = peer.ask(said("hello", ref="1", mid="m"), said("hello", ref="2", mid="m"))

    assert [(m["type"], m["ref"], m["payload"]["off"], m["payload"]["dup"]) for m in told] == [
        ("$ack", "1", 1, False),
        ("$ack", "2", 1, True),
    ]


def test_typing_is_sent_and_not_stored() -> None:
    rig = chat()
    peer, other = member(rig), member(rig, "bob")
    told = peer.ask(typed("chat.typing", {**ROOM, "since": 3}, ref="1"))

    assert [message["type"] for message in told] == ["chat.typing", "$ack"]
    assert [message["payload"] for message in other.messages()] == [{**ROOM, "since": 3}]
    assert rig.log.rooms() == []


@pytest.mark.parametrize("ref", [None, "7"])
def test_history_comes_oldest_first_with_more_where_there_is(ref: str | None) -> None:
    peer = member(chat())
    sent = peer.ask(*(said(str(number)) for number in range(4)))
    more = {} if ref is None else {"ref": ref}
    newest = peer.ask(typed("chat.history", {"room": "africa", "limit": 2}, **more))[0]
    older = peer.ask(typed("chat.history", {"room": "africa", "limit": 9, "before": sent[2]["id"]}))[0]

    assert newest.get("ref") == ref
    assert newest["payload"]["room"] == "africa"
    assert newest["payload"]["messages"] == [
        {key: message[key] for key in ("id", "off", "ts", "type", "payload")} for message in sent[2:]
    ]
    assert newest["payload"]["more"] is True
    assert [entry["off"] for entry in older["payload"]["messages"]] == [1, 2]
    assert older["payload"]["more"] is False


def test_a_history_answer_stays_about_as_large_as_a_message_may_be() -> None:
    most = 4000
    rig = chat(config=HubConfig(message_bytes_max=most), message_bytes_max=most)
    peer = member(rig)
    peer.send(*(said(f"{number} " + "x" * 600) for number in range(9)))
    peer.texts()
    peer.send(typed("chat.history", {"room": "africa", "limit": 9}))
    (text,) = peer.texts()
    peer.send(typed("chat.history", {"room": "africa", "limit": 9}))
    (page,) = peer.messages()

    assert len(text) <= most + ENTRY_BYTES
    assert [entry["off"] for entry in page["payload"]["messages"]] == [6, 7, 8, 9]
    assert page["payload"]["more"] is True


def test_history_has_at_least_one_message_however_large_it_is() -> None:
    rig = chat(config=HubConfig(message_bytes_max=1000), message_bytes_max=1000)
    peer = member(rig)
    peer.ask(said("x" * 900))
    (page,) = peer.ask(typed("chat.history", {"room": "africa"}))

    assert [entry["off"] for entry in page["payload"]["messages"]] == [1]


def test_an_empty_history_is_a_page() -> None:
    peer = member(chat())
    (page,) = peer.ask(typed("chat.history", {"room": "asia"}))

    assert page["payload"] == {"room": "asia", "messages": [], "more": False}


# ---- no -----------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "join without a user": ("chat.join", {"room": "africa"}, "user"),
    "join with a number as room": ("chat.join", {"room": 7, "user": "ada"}, "room"),
    "join with an empty user": ("chat.join", {"room": "africa", "user": ""}, "user"),
    "join with a long user": ("chat.join", {"room": "africa", "user": "x" * 65}, "user"),
    "join with too many": ("chat.join", {**ROOM, "last": PAGE_MAX + 1}, "last"),
    "join with half a position": ("chat.join", {**ROOM, "since": {"ep": "e"}}, "off"),
    "leave without a room": ("chat.leave", {"user": "ada"}, "room"),
    "message without a text": ("chat.message", ROOM, "text"),
    "message with a list as text": ("chat.message", {**ROOM, "text": []}, "text"),
    "typing without a user": ("chat.typing", {"room": "africa"}, "user"),
    "history of nothing": ("chat.history", {}, "room"),
    "history of none": ("chat.history", {"room": "africa", "limit": 0}, "limit"),
    "history of too many": ("chat.history", {"room": "africa", "limit": PAGE_MAX + 1}, "limit"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_payload_is_told_to_its_sender_alone(name: str) -> None:
    type, payload, word = BAD[name]
    rig = chat()
    other, peer = member(rig), rig.connect()
    peer.messages()
    told = peer.ask(typed(type, payload))
    answered = peer.ask(typed(type, payload, ref="1"))

    assert [(message["type"], message["payload"]["for"]) for message in told] == [("chat.error", type)]
    assert word in told[0]["payload"]["message"]
    assert [(m["ref"], m["payload"]["code"]) for m in answered if m["type"] == "$err"] == [("1", "bad_message")]
    assert other.messages() == []
    assert rig.log.rooms() == []


@pytest.mark.parametrize("room", ["", "a\nb", "a\u200bb", "x" * 129, "\u202eabc"])
@pytest.mark.parametrize("type", ["chat.join", "chat.leave", "chat.message", "chat.typing", "chat.history"])
@pytest.mark.threat(17)
def test_row_17_a_bad_room_is_told_to_its_sender(type: str, room: str) -> None:
    rig = chat()
    peer = rig.connect()
    peer.messages()
    payload = {"room": room, "user": "ada", "text": "hello"}
    told = peer.ask(typed(type, payload))
    answered = peer.ask(typed(type, payload, ref="1"))

    if type == "chat.leave":  # Nobody is in a room that cannot be.
        assert (told, [message["type"] for message in answered]) == ([], ["$ack"])
    else:
        assert [(message["type"], message["payload"]["for"]) for message in told] == [("chat.error", type)]
        assert "room" in told[0]["payload"]["message"]
        assert [(m["type"], m["ref"], m["payload"]["code"]) for m in answered] == [("$err", "1", "bad_room")]
    assert rig.app.rooms() == []
    assert rig.log.rooms() == []


def test_a_room_too_many_is_told_and_the_others_stay() -> None:
    rig = chat(config=HubConfig(rooms_max=2))
    peer = member(rig)
    peer.ask(typed("chat.join", {"room": "asia", "user": "ada"}))
    told = peer.ask(typed("chat.join", {"room": "europe", "user": "ada"}))
    answered = peer.ask(typed("chat.join", {"room": "europe", "user": "ada"}, ref="1"))

    assert [message["type"] for message in told] == ["chat.error"]
    assert [(m["type"], m["payload"]["code"]) for m in answered] == [("$err", "too_many_rooms")]
    assert rig.app.rooms() == ["africa", "asia"]


def fail_store(rig: AppRig) -> None:
    """The held store fails all that it was asked."""
    asks, rig.asks = rig.asks, []
    rig.pump.put(*(StoreFailed(ask.request, "store_unavailable", "the disk is gone") for ask in asks))


def test_a_store_that_fails_is_told_to_the_sender_and_the_room_goes_on() -> None:
    rig = chat()
    peer, other = member(rig), member(rig, "bob")
    rig.store_held = True
    peer.send(said("one"), said("two", ref="2"))
    fail_store(rig)
    told = peer.messages()
    rig.store_held = False
    after = peer.ask(said("three"))

    assert [(m["type"], m.get("ref")) for m in told] == [("$err", "2"), ("chat.error", None)]
    assert told[0]["payload"]["retry"] is True
    assert told[1]["payload"] == {"message": "the store is not available", "for": "chat.message"}
    assert [message["off"] for message in after] == [1]
    assert [message["payload"]["text"] for message in other.messages()] == ["three"]


def test_a_history_that_the_store_cannot_give_is_told() -> None:
    rig = chat()
    peer = member(rig)
    rig.store_held = True
    ask = {"room": "africa"}
    peer.send(typed("chat.history", ask), typed("chat.history", ask, ref="2"))
    fail_store(rig)
    told = peer.messages()

    assert [(m["type"], m.get("ref")) for m in told] == [("chat.error", None), ("$err", "2")]
    assert told[1]["payload"]["code"] == "store_unavailable"


def test_history_before_something_that_is_no_id_is_told() -> None:
    peer = member(chat())
    told = peer.ask(typed("chat.history", {"room": "africa", "before": "yesterday"}))

    assert [message["type"] for message in told] == ["chat.error"]
    assert "digits" in told[0]["payload"]["message"]


def test_two_messages_under_one_key_conflict() -> None:
    peer = member(chat())
    peer.ask(said("one", mid="m"))
    told = peer.ask(said("two", mid="m"))

    assert [message["type"] for message in told] == ["chat.error"]
    assert "another content" in told[0]["payload"]["message"]


def test_every_message_with_a_ref_has_one_answer() -> None:
    peer = member(chat())
    peer.ask(said("before"))
    asked = [
        typed("chat.join", ROOM, ref="1"),
        said("hello", ref="2"),
        typed("chat.typing", ROOM, ref="3"),
        typed("chat.history", {"room": "africa"}, ref="4"),
        typed("chat.leave", ROOM, ref="5"),
        typed("chat.nothing", ref="6"),
        typed("chat.join", {}, ref="7"),
    ]
    told = peer.ask(*asked)

    assert sorted(message["ref"] for message in told if "ref" in message) == [str(number) for number in range(1, 8)]


def test_the_chat_is_built_once_on_a_router() -> None:
    router = Router()
    build(router)

    with pytest.raises(LocalError, match="registered"):
        build(router)
