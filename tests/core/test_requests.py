"""The protocol's messages: $hello, $ping, $history, $position, publishing, and every way to be refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vixws_core import BadRoom, HubConfig, LocalError
from vixws_core.effects import (
    AppMessage,
    Broadcast,
    HistoryListed,
    ListStore,
    MessageReceived,
    MessageSkipped,
    PauseReading,
    PeerMisbehaved,
    Published,
    PublishFailed,
    ReadStore,
    ResumeReading,
    StoreAppend,
)
from vixws_core.inputs import (
    ListHistory,
    PositionKnown,
    Publish,
    Refuse,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
)
from vixws_core.log import PureLog
from vixws_core.message import StoredMessage, encode_json

from .harness import EPOCH, TS, Harness, Peer


def filled(count: int, size: int = 1) -> PureLog:
    harness = Harness()
    for number in range(1, count + 1):
        harness.put(Publish("africa", "chat", encode_json({"n": number, "text": "x" * size})))
    return harness.log


def code_of(answer: Any) -> str:
    assert answer["type"] == "$err"
    code: str = answer["payload"]["code"]
    return code


# ---- $hello and $ping -----------------------------------------------------------------------------


def test_hello_is_answered_with_all_that_holds() -> None:
    config = HubConfig(durable="fsync", rooms_max=7, message_bytes_max=1000, unsent_bytes_high=5000)
    harness = Harness(config, secret=b"secret")
    welcome = harness.connect().answer({"type": "$hello", "ref": "1", "payload": {"v": [1]}})
    token = welcome["payload"].pop("session")

    assert token.startswith("s_")
    assert len(token) == 34  # 128 bits.
    assert welcome == {
        "type": "$welcome",
        "ref": "1",
        "payload": {
            "v": 1,
            "resumed": False,
            "user": None,
            "caps": [],
            "limits": {"message_bytes": 1000, "rooms": 7, "unsent_bytes": 5000},
            "ping_ms": 30_000,
            "reconnect_ms": 500,
            "durable": "fsync",
        },
    }


def test_session_tokens_differ_and_depend_on_the_secret() -> None:
    tokens = {Harness(secret=secret).connect().hello()["payload"]["session"] for secret in (b"one", b"two", b"\0" * 64)}
    harness = Harness(secret=b"one")
    tokens |= {harness.connect().hello()["payload"]["session"] for _ in range(3)}

    assert len(tokens) == 5


def test_hello_without_a_payload_speaks_version_1() -> None:
    assert Harness().connect().answer({"type": "$hello"})["type"] == "$welcome"


def test_hello_without_ref_is_answered_without_ref() -> None:
    assert "ref" not in Harness().connect().answer({"type": "$hello", "payload": {"v": [7, 1]}})


@pytest.mark.parametrize("versions", [[], [2], [0, 2, 3]])
def test_hello_without_a_common_version_closes_4010(versions: list[int]) -> None:
    harness = Harness()
    peer = harness.connect()
    peer.send({"type": "$hello", "ref": "1", "payload": {"v": versions}})

    assert peer.close_seen() == (4010, "version: expected 1 in v")


def test_second_hello_closes_4002() -> None:
    harness = Harness()
    peer = harness.client()
    peer.send({"type": "$hello", "ref": "2"})

    assert peer.close_seen() == (4002, "protocol_error: a second or late $hello")
    assert [wrong.kind for wrong in harness.effects(PeerMisbehaved)] == ["protocol_error"]


@pytest.mark.parametrize(
    "first",
    [
        {"type": "$join", "room": "africa"},
        {"type": "$leave", "room": "africa"},
        {"type": "chat", "room": "africa"},
        {"type": "application"},
        {"type": "$unknown"},
    ],
    ids=lambda first: first["type"],
)
def test_late_hello_closes_4002(first: dict[str, Any]) -> None:
    harness = Harness()
    peer = harness.connect()
    peer.send(first, {"type": "$hello", "ref": "2"})

    assert (peer.close_seen() or (0,))[0] == 4002


def test_hello_after_a_ping_or_a_refused_message_is_in_time() -> None:
    harness = Harness()
    peer = harness.connect()
    peer.send({"type": "$ping"}, "no json", {"type": "$hello", "payload": {"v": "one"}}, {"type": "$hello"})

    assert [m["type"] for m in peer.messages()] == ["$pong", "$err", "$err", "$welcome"]


@pytest.mark.parametrize(
    "payload",
    [
        {"v": 1},
        {"v": ["1"]},
        {"v": [1] * 17},
        {"pub": 5},
        {"pub": "x" * 257},
        {"session": []},
        {"caps": ["a"] * 33},
    ],
    ids=str,
)
def test_hello_with_a_wrong_payload_is_refused(payload: dict[str, Any]) -> None:
    answer = Harness().connect().answer({"type": "$hello", "ref": "1", "payload": payload})

    assert code_of(answer) == "bad_message"


def test_ping_is_answered_with_the_newest_reconnect_ms() -> None:
    harness = Harness(HubConfig(handshakes_per_s=1.0))
    peer = harness.connect()
    first = peer.answer({"type": "$ping", "ref": "p"})
    for _ in range(7):
        harness.connect()

    assert first == {"type": "$pong", "ref": "p", "payload": {"reconnect_ms": 1250}}
    assert peer.answer({"type": "$ping"}) == {"type": "$pong", "payload": {"reconnect_ms": 10_000}}


@pytest.mark.parametrize("type", ["$", "$nothing", "$batch", "$authed", "$ack", "$Join"])
def test_unknown_protocol_type_is_answered_only_where_a_ref_asks(type: str) -> None:
    harness = Harness()
    peer = harness.client()
    answer = peer.answer({"type": type, "ref": "5"})
    peer.send({"type": type})

    assert (code_of(answer), answer["ref"], answer["payload"]["retry"]) == ("unknown_type", "5", False)
    assert peer.messages() == []
    assert harness.effects(MessageSkipped) == [MessageSkipped(peer.conn, "unknown_type")]
    assert harness.received == []


@pytest.mark.parametrize("type", ["$join", "$leave", "$history", "$position"])
def test_message_about_a_room_needs_a_room(type: str) -> None:
    answer = Harness().client().answer({"type": type, "ref": "5"})

    assert code_of(answer) == "bad_message"
    assert "expected a room" in answer["payload"]["msg"]


@pytest.mark.parametrize(
    "payload",
    [
        {"since": 5},
        {"since": {"off": 1}},
        {"since": {"ep": "e"}},
        {"since": {"ep": 1, "off": 1}},
        {"since": {"ep": "e", "off": -1}},
        {"since": {"ep": "e", "off": "1"}},
        {"since": {"ep": "e", "off": 1.5}},
        {"since": {"ep": "e", "off": (1 << 53) + 1}},
        {"since": {"ep": "e", "off": 10**30}},
        {"since": {"ep": "e", "off": 1, "id": 7}},
        {"since": {"ep": "e" * 257, "off": 1}},
        {"last": -1},
        {"last": "5"},
        {"last": 1 << 60},
        {"on_fail": "tail"},
        {"on_fail": 1},
        {"on_fail": "x" * 5000},
    ],
    ids=lambda payload: str(payload)[:40],
)
@pytest.mark.threat(16)
def test_join_with_a_wrong_payload_is_refused(payload: dict[str, Any]) -> None:
    harness = Harness()
    answer = harness.client().answer({"type": "$join", "ref": "5", "room": "africa", "payload": payload})

    assert code_of(answer) == "bad_message"
    assert harness.hub.rooms() == []


# ---- $history and $position -----------------------------------------------------------------------


def page(peer: Peer, **payload: object) -> tuple[list[int], bool]:
    answer = peer.answer({"type": "$history", "ref": "h", "room": "africa", "payload": payload})
    assert (answer["type"], answer["ref"], answer["room"]) == ("$page", "h", "africa")
    return [message["off"] for message in answer["payload"]["messages"]], answer["payload"]["more"]


# Ten messages, of which two are trimmed.
PAGES: list[tuple[dict[str, Any], list[int], bool]] = [
    ({}, [10, 9, 8, 7, 6, 5, 4, 3], False),
    ({"limit": 3}, [10, 9, 8], True),
    ({"limit": 8}, [10, 9, 8, 7, 6, 5, 4, 3], False),
    ({"limit": 1}, [10], True),
    ({"before": 6}, [5, 4, 3], False),
    ({"before": 6, "limit": 2}, [5, 4], True),
    ({"before": 6, "limit": 1}, [5], True),
    ({"before": 6, "limit": 3}, [5, 4, 3], False),
    ({"before": 4}, [3], False),
    ({"before": 4, "limit": 1}, [3], False),
    ({"before": 3}, [], False),
    ({"before": 1}, [], False),
    ({"before": 0}, [], False),
    ({"before": 11}, [10, 9, 8, 7, 6, 5, 4, 3], False),
    ({"before": 1 << 53, "limit": 1}, [10], True),
    ({"after": 0}, [3, 4, 5, 6, 7, 8, 9, 10], False),
    ({"after": 0, "limit": 1}, [3], True),
    ({"after": 7}, [8, 9, 10], False),
    ({"after": 7, "limit": 2}, [8, 9], True),
    ({"after": 9}, [10], False),
    ({"after": 9, "limit": 1}, [10], False),
    ({"after": 10}, [], False),
    ({"after": 1 << 53}, [], False),
]


@pytest.mark.parametrize(("asked", "offsets", "more"), PAGES, ids=[str(p[0]) for p in PAGES])
def test_history_page_has_the_right_messages_and_says_whether_there_are_more(
    asked: dict[str, Any], offsets: list[int], more: bool
) -> None:
    log = filled(10)
    log.trim("africa", 2)

    assert page(Harness(log=log).client(), **asked) == (offsets, more)


def test_history_of_one_message_has_no_more() -> None:
    peer = Harness(log=filled(1)).client()

    assert [page(peer, **asked) for asked in ({}, {"after": 0}, {"before": 2})] == [([1], False)] * 3


def test_history_of_an_empty_room_is_an_empty_page() -> None:
    assert page(Harness().client()) == ([], False)


def test_history_message_is_what_the_room_saw() -> None:
    harness = Harness()
    peer = harness.client("africa")
    peer.publish("africa", mid="m", kind="note")
    (live,) = [m for m in peer.messages() if m["type"] == "chat"]
    answer = peer.answer({"type": "$history", "ref": "h", "room": "africa"})

    assert answer["payload"]["messages"] == [live]
    assert live == {
        "type": "chat",
        "room": "africa",
        "ep": EPOCH,
        "off": 1,
        "id": "0" * 19 + "1",
        "ts": TS,
        "kind": "note",
        "mid": "m",
        "payload": {"text": "hi"},
    }


@pytest.mark.parametrize("size", [10, 300, 900])
def test_history_page_is_cut_to_the_largest_message(size: int) -> None:
    harness = Harness(HubConfig(message_bytes_max=1_000), log=filled(100, size))
    peer = harness.client()
    seen: list[int] = []
    after, more = 0, True
    while more:
        peer.send({"type": "$history", "ref": "h", "room": "africa", "payload": {"after": after, "limit": 500}})
        (text,) = [frame for frame in peer.frames() if isinstance(frame, str)]
        payload = json.loads(text)["payload"]
        seen += [message["off"] for message in payload["messages"]]
        after, more = seen[-1], payload["more"]

        assert len(text) <= 1_000 + 4_096
    assert seen == list(range(1, 101))


def test_history_page_holds_at_least_one_message_however_large() -> None:
    harness = Harness(HubConfig(message_bytes_max=1_000), log=filled(3, 20_000))

    assert page(harness.client(), before=3) == ([2], True)


def test_history_page_whose_rows_are_larger_with_their_heads_is_cut_and_says_more() -> None:
    harness = Harness(HubConfig(message_bytes_max=1_000))
    harness.store_held = True
    peer = harness.client()
    peer.send({"type": "$history", "ref": "h", "room": "africa", "payload": {"after": 0}})
    (ask,) = harness.asks
    rows = tuple(StoredMessage("1" * 20, "event", "africa", "t" * 100, TS, b"{}", EPOCH, off) for off in range(1, 31))
    harness.put(StoreRead(ask.request, EPOCH, 0, 30, rows))
    (answer,) = peer.messages()

    assert 1 < len(answer["payload"]["messages"]) < 30
    assert answer["payload"]["more"] is True


@pytest.mark.parametrize(
    "payload",
    [
        {"before": 1, "after": 1},
        {"limit": 0},
        {"limit": 501},
        {"limit": "9"},
        {"before": -1},
        {"after": 1.5},
        {"before": "9"},
        {"after": (1 << 53) + 1},
    ],
    ids=str,
)
def test_history_with_a_wrong_payload_is_refused(payload: dict[str, Any]) -> None:
    answer = Harness().client().answer({"type": "$history", "ref": "h", "room": "africa", "payload": payload})

    assert code_of(answer) == "bad_message"


@pytest.mark.parametrize("type", ["$history", "$position"])
def test_unstored_room_has_no_history(type: str) -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp*",)))
    answer = harness.client().answer({"type": type, "ref": "h", "room": "tmp1"})

    assert code_of(answer) == "unknown_room"


def test_position_tells_where_the_log_stands() -> None:
    log = filled(5)
    log.trim("africa", 2)
    peer = Harness(log=log).client()

    assert peer.answer({"type": "$position", "ref": "p", "room": "africa"}) == {
        "type": "$position",
        "ref": "p",
        "room": "africa",
        "payload": {"ep": EPOCH, "head": 5, "floor": 2, "id": "0" * 19 + "5"},
    }
    assert peer.answer({"type": "$position", "room": "asia"})["payload"] == {
        "ep": EPOCH,
        "head": 0,
        "floor": 0,
        "id": "",
    }


@pytest.mark.parametrize("type", ["$history", "$position"])
def test_question_that_the_store_cannot_answer_is_refused_without_the_servers_paths(type: str) -> None:
    harness = Harness()
    harness.store_held = True
    peer = harness.client()
    peer.send({"type": type, "ref": "q", "room": "africa"})
    (ask,) = harness.asks
    harness.put(StoreFailed(ask.request, "store_unavailable", "no disk", True))

    assert peer.messages() == [
        {
            "type": "$err",
            "ref": "q",
            "room": "africa",
            "payload": {"code": "store_unavailable", "retry": True, "msg": "the store is not available"},
        }
    ]


@pytest.mark.parametrize("type", ["$history", "$position"])
def test_answer_for_a_connection_that_is_gone_is_dropped(type: str) -> None:
    harness = Harness()
    harness.store_held = True
    peer = harness.client()
    peer.send({"type": type, "ref": "q", "room": "africa"}, {"type": type, "ref": "r", "room": "africa"})
    peer.vanish()
    one, two = harness.asks

    assert harness.put(StoreFailed(one.request, "internal")) == []
    assert harness.put(*harness.run_store()) == []
    assert harness.put(StoreRead(two.request, EPOCH, 0, 0, ()), PositionKnown(two.request, EPOCH, 0, 0, "")) == []


def test_answers_with_unknown_numbers_are_ignored() -> None:
    harness = Harness()
    peer = harness.client("africa")
    effects = harness.put(
        StoreAppended(99, EPOCH, 1, "1"),
        StoreFailed(99, "internal"),
        StoreRead(99, EPOCH, 0, 0, ()),
        StoreListed(99, ()),
        PositionKnown(99, EPOCH, 0, 0, ""),
    )

    assert effects == []
    assert peer.messages() == []


# ---- publishing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "answered"),
    [
        ({}, None),
        ({"ref": "9"}, {"type": "$ack", "ref": "9", "room": "africa"}),
        ({"mid": "m"}, {"type": "$ack", "room": "africa"}),
        ({"ref": "9", "mid": "m"}, {"type": "$ack", "ref": "9", "room": "africa"}),
    ],
    ids=["neither", "ref", "mid", "both"],
)
def test_publish_is_stored_and_answered_where_ref_or_mid_ask(more: dict[str, Any], answered: Any) -> None:
    harness = Harness()
    peer = harness.client()
    peer.publish("africa", **more)
    payload = {"ep": EPOCH, "off": 1, "id": "0" * 19 + "1", "dup": False}
    if "mid" in more:
        payload["mid"] = "m"
    expected = [] if answered is None else [{**answered, "payload": payload}]

    assert peer.messages() == expected
    assert harness.log.position("africa").head == 1


def test_publishing_needs_no_join() -> None:
    harness = Harness()
    reader = harness.client("africa")
    harness.client().publish("africa")

    assert [message["off"] for message in reader.messages()] == [1]


def test_ack_and_fan_out_come_after_the_commit() -> None:
    harness = Harness()
    peer = harness.client("africa")
    harness.store_held = True
    peer.publish("africa", ref="9")
    before = peer.messages()
    effects = harness.deliver()

    assert before == []
    assert [m["type"] for m in peer.messages()] == ["chat", "$ack"]
    assert any(isinstance(effect, Broadcast) for effect in effects)


def test_repeat_with_the_same_content_is_a_dup_and_not_seen_again() -> None:
    harness = Harness()
    reader = harness.client("africa")
    peer = harness.client()
    peer.publish("africa", ref="1", mid="m")
    peer.publish("africa", ref="2", mid="m")
    first, second = (message["payload"] for message in peer.messages())

    assert (first["off"], first["dup"]) == (1, False)
    assert (second["off"], second["id"], second["dup"]) == (1, first["id"], True)
    assert len(reader.messages()) == 1


@pytest.mark.parametrize("change", [{"payload": {}}, {"type": "other"}, {"kind": "other"}], ids=str)
def test_repeat_with_another_content_is_a_mid_conflict(change: dict[str, Any]) -> None:
    harness = Harness()
    peer = harness.client()
    peer.publish("africa", ref="1", mid="m")
    peer.messages()
    answer = peer.answer(
        {"type": "chat", "room": "africa", "payload": {"text": "hi"}, "ref": "2", "mid": "m", **change}
    )

    assert (code_of(answer), answer["ref"], answer["payload"]["retry"]) == ("mid_conflict", "2", False)
    assert harness.log.position("africa").head == 1


def test_mid_is_scoped_by_the_secret_of_its_sender() -> None:
    harness = Harness(secret=b"key")
    offsets = []
    for pub in ("ada", "bob", None, "ada", None):
        peer = harness.connect()
        peer.answer({"type": "$hello", "payload": {"pub": pub}})
        peer.publish("africa", mid="m")
        offsets.append(peer.messages()[0]["payload"]["off"])
    scopes = {effect.scope for effect in harness.effects(StoreAppend)}

    assert offsets == [1, 2, 3, 1, 3]
    assert not any("ada" in scope for scope in scopes)


def test_mid_is_scoped_by_room() -> None:
    harness = Harness()
    peer = harness.client()
    peer.publish("africa", mid="m")
    peer.publish("asia", mid="m")

    assert [m["payload"]["dup"] for m in peer.messages()] == [False, False]


def test_failed_append_is_told_to_the_publisher_and_nobody_else() -> None:
    harness = Harness()
    reader, peer = harness.client("africa"), harness.client()
    harness.store_held = True
    peer.publish("africa", ref="9")
    (ask,) = harness.asks
    harness.put(StoreFailed(ask.request, "store_full", "/srv/chat.db: disk is full", True))

    assert peer.messages() == [
        {
            "type": "$err",
            "ref": "9",
            "room": "africa",
            "payload": {"code": "store_full", "retry": True, "msg": "the store is full"},
        }
    ]
    assert reader.messages() == []


def test_room_goes_on_after_a_commit_that_was_reported_failed() -> None:
    harness = Harness()
    reader, peer = harness.client("africa"), harness.client()
    harness.store_held = True
    peer.publish("africa", "lost", ref="1")
    (ask,) = harness.asks
    harness.run_store()  # It was stored all the same, and nobody is told.
    harness.put(StoreFailed(ask.request, "store_unavailable"))
    harness.store_held = False
    peer.publish("africa", "next", ref="2")

    assert [(m["off"], m["payload"]["text"]) for m in reader.messages()] == [(1, "lost"), (2, "next")]


def test_answer_to_a_publisher_that_is_gone_is_dropped() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="1")
    peer.publish("africa", ref="2")
    peer.vanish()
    first, second = harness.asks

    assert harness.put(StoreAppended(first.request, EPOCH, 1, "1"), StoreFailed(second.request, "internal")) == []


def test_client_cannot_set_what_is_the_servers() -> None:
    harness = Harness()
    peer = harness.client("africa")
    peer.publish("africa", ep="evil", off=99, id="evil", ts="evil", **{"from": "root"})
    (message,) = peer.messages()

    assert (message["ep"], message["off"], message["id"], message["ts"]) == (EPOCH, 1, "0" * 19 + "1", TS)
    assert "from" not in message


def test_sender_of_a_stored_message_is_shown() -> None:
    harness = Harness()
    harness.log.append_batch([StoreAppend(1, "africa", "event", "chat", b"{}", sender='ada"')], TS)
    answer = harness.client().answer({"type": "$history", "room": "africa"})

    assert answer["payload"]["messages"][0]["from"] == 'ada"'


@pytest.mark.parametrize("more", [{}, {"ref": "9"}, {"mid": "m"}, {"ref": "9", "mid": "m", "kind": "k"}], ids=str)
def test_publish_into_an_unstored_room_is_broadcast_at_once(more: dict[str, Any]) -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp*",)))
    reader, peer = harness.client("tmp1"), harness.client()
    harness.store_held = True
    peer.publish("tmp1", **more)
    expected: dict[str, Any] = {"type": "chat", "room": "tmp1", "payload": {"text": "hi"}}
    expected.update((key, more[key]) for key in ("kind", "mid") if key in more)

    assert reader.messages() == [expected]
    assert harness.asks == []
    ack: dict[str, Any] = {"type": "$ack", "room": "tmp1", "payload": {"mid": "m"} if "mid" in more else {}}
    if "ref" in more:
        ack["ref"] = "9"
    assert peer.messages() == ([ack] if more else [])


def test_guarded_publish_goes_to_the_application() -> None:
    harness = Harness(guarded=frozenset({"chat"}))
    peer = harness.client()
    peer.send(
        {"type": "chat", "room": "africa", "ref": "9", "mid": "m", "kind": "k", "payload": {"a": 1}},
        {"type": "other", "room": "africa"},
    )
    (message,) = harness.received

    assert isinstance(message, AppMessage)
    assert (message.type, message.room, message.ref, message.mid, message.kind, message.payload) == (
        "chat", "africa", "9", "m", "k", b'{"a": 1}',
    )  # fmt: skip
    assert [effect.type for effect in harness.effects(StoreAppend)] == ["other"]


def test_publish_of_the_application_for_a_connection_is_acked_to_it() -> None:
    harness = Harness(guarded=frozenset({"chat"}))
    peer = harness.client()
    harness.on_record = lambda record: harness.pump.do(
        Publish("africa", "chat", b'{"b":2}', mid="m", conn=record.conn, ref="9", request=5)
    )
    answer = peer.answer({"type": "chat", "room": "africa", "ref": "9", "mid": "m"})

    assert (answer["type"], answer["ref"], answer["payload"]["off"]) == ("$ack", "9", 1)
    assert harness.effects(Published) == [Published(5, "africa", EPOCH, 1, "0" * 19 + "1", False)]


def test_refusal_of_the_application_is_answered() -> None:
    harness = Harness()
    peer = harness.client()
    harness.on_record = lambda record: harness.pump.do(Refuse(record.conn, "denied", "not you", "9"))
    answer = peer.answer({"type": "chat", "ref": "9"})

    assert answer == {"type": "$err", "ref": "9", "payload": {"code": "denied", "retry": False, "msg": "not you"}}
    assert harness.put(Refuse(99, "denied", "nobody")) == []


@pytest.mark.parametrize("code", ["rate_limited", "store_unavailable", "store_full", "internal", "denied"])
def test_retry_follows_from_the_code(code: str) -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Refuse(peer.conn, code, "x" * 1000, "9"))
    (answer,) = peer.messages()

    assert answer["payload"]["retry"] is (code != "denied")
    assert len(answer["payload"]["msg"]) == 300


def test_publish_of_the_application_is_answered_to_it() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp*",)))
    harness.put(Publish("africa", "chat", b"{}", request=1, mid="m"))
    harness.put(Publish("africa", "chat", b"{}", request=2, mid="m"))
    harness.put(Publish("tmp1", "chat", b"{}", request=3))
    harness.put(Publish("africa", "chat", b"{}", request=4, store=False))
    harness.put(Publish("africa", "other", b"{}", request=5, mid="m"))
    harness.put(Publish("africa", "chat", b"{}"))

    assert harness.effects(Published) == [
        Published(1, "africa", EPOCH, 1, "0" * 19 + "1", False),
        Published(2, "africa", EPOCH, 1, "0" * 19 + "1", True),
        Published(3, "tmp1", "", 0, "", False),
        Published(4, "africa", "", 0, "", False),
    ]
    (failed,) = harness.effects(PublishFailed)
    assert (failed.request, failed.room, failed.code, failed.retry) == (5, "africa", "mid_conflict", False)


def test_nothing_is_published_in_the_name_of_a_connection_that_is_unknown() -> None:
    harness = Harness()

    with pytest.raises(LocalError, match="is over"):
        harness.put(Publish("africa", "chat", b"{}", conn=99, ref="9"))
    assert harness.effects(StoreAppend) == []


def test_failed_publish_in_a_sessions_name_is_told_to_the_application_and_by_ref_to_the_session() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    harness.put(
        Publish("africa", "chat", b"{}", conn=peer.conn, request=1),
        Publish("africa", "chat", b"{}", conn=peer.conn, request=2, ref="9"),
        Publish("africa", "chat", b"{}", conn=peer.conn),
    )
    harness.put(*(StoreFailed(ask.request, "store_full") for ask in harness.asks if isinstance(ask, StoreAppend)))

    assert [failed.request for failed in harness.effects(PublishFailed)] == [1, 2]
    assert [message.get("ref") for message in peer.messages()] == ["9", None]


@pytest.mark.parametrize("type", ["", "$join", "$"])
def test_application_may_not_publish_the_protocols_types(type: str) -> None:
    harness = Harness()
    with pytest.raises(LocalError, match="not begin with"):
        harness.put(Publish("africa", type, b"{}"))

    assert harness.log.rooms() == []


def test_too_many_unanswered_publishes_pause_reading_until_half_are_answered() -> None:
    harness = Harness(HubConfig(publishes_max=8))
    peer = harness.client()
    harness.store_held = True
    for number in range(7):
        peer.publish("africa", ref=str(number))
    before = harness.effects(PauseReading)
    peer.publish("africa", ref="7")
    paused = harness.effects(PauseReading)
    answers = harness.run_store()
    acks = [answer for answer in answers if isinstance(answer, StoreAppended)]
    harness.put(*acks[:3])
    early = harness.effects(ResumeReading)
    harness.put(acks[3])

    assert (before, early) == ([], [])
    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]


def test_questions_count_among_the_unanswered() -> None:
    harness = Harness(HubConfig(publishes_max=2))
    peer = harness.client()
    harness.store_held = True
    peer.send({"type": "$history", "room": "africa"}, {"type": "$position", "room": "africa"})
    paused = harness.effects(PauseReading)
    harness.deliver()

    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]


def test_every_ref_gets_exactly_one_final_answer() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp*",)), log=filled(5))
    peer = harness.connect()
    asked: list[dict[str, Any]] = [
        {"type": "$hello", "payload": {}},
        {"type": "$ping"},
        {"type": "$join", "room": "africa"},
        {"type": "$join", "room": "tmp1"},
        {"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 1}}},
        {"type": "$join", "room": "asia", "payload": {"last": 3}},
        {"type": "$join", "room": "@user/x"},
        {"type": "$history", "room": "africa"},
        {"type": "$history", "room": "tmp1"},
        {"type": "$position", "room": "africa"},
        {"type": "$leave", "room": "africa"},
        {"type": "$leave", "room": "africa"},
        {"type": "$what"},
        {"type": "chat", "room": "africa"},
        {"type": "chat", "room": "tmp1"},
        {"type": "chat", "room": "africa", "mid": "m"},
        {"type": "chat", "room": "africa", "mid": "m"},
        {"type": "chat", "room": "africa", "mid": "m", "kind": "k"},
        {"type": "chat", "room": "\n"},
        {"type": "", "room": "africa"},
        {"type": "chat", "payload": []},
        {"type": "chat", "room": 5},
    ]
    peer.send(*({**message, "ref": str(number)} for number, message in enumerate(asked)))
    refs = [message["ref"] for message in peer.messages() if "ref" in message]

    assert sorted(refs, key=int) == [str(number) for number in range(len(asked))]


# ---- the application's history --------------------------------------------------------------------


def test_history_of_the_application_is_answered_oldest_first() -> None:
    harness = Harness(log=filled(5))
    harness.put(ListHistory(7, "africa", 2), ListHistory(8, "africa", 2, "0" * 19 + "3"))
    first, second = harness.effects(HistoryListed)

    assert (first.request, [row.off for row in first.rows], first.code) == (7, [4, 5], "")
    assert (second.request, [row.off for row in second.rows]) == (8, [1, 2])
    assert [ask.limit for ask in harness.effects(ListStore)] == [2, 2]


def test_history_that_cannot_be_listed_says_why() -> None:
    harness = Harness()
    harness.put(ListHistory(7, "africa", 2, "no id"))
    harness.store_held = True
    harness.put(ListHistory(8, "africa", 2))
    (ask,) = harness.asks
    harness.put(StoreFailed(ask.request, "store_unavailable", "no disk"))
    first, second = harness.effects(HistoryListed)

    assert (first.request, first.rows, first.code) == (7, (), "bad_message")
    assert second == HistoryListed(8, (), "store_unavailable", "no disk")


def test_history_of_a_bad_room_is_the_callers_fault() -> None:
    with pytest.raises(BadRoom):
        Harness().put(ListHistory(7, "", 2))


def test_history_of_the_application_counts_among_the_unanswered_of_its_connection() -> None:
    harness = Harness(HubConfig(publishes_max=1))
    peer = harness.client()
    harness.store_held = True
    harness.put(ListHistory(7, "africa", 2, conn=peer.conn))
    paused = harness.effects(PauseReading)
    harness.deliver()

    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert harness.put(ListHistory(8, "africa", 2, conn=99))[0].__class__ is ListStore


def test_history_is_answered_though_its_connection_is_gone() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    harness.put(ListHistory(7, "africa", 2, conn=peer.conn))
    peer.vanish()
    harness.deliver()

    assert harness.effects(HistoryListed) == [HistoryListed(7, ())]


# ---- what is no message of the hub's ----------------------------------------------------------------


def test_messages_without_a_room_are_the_applications() -> None:
    harness = Harness()
    peer = harness.client()
    peer.send({"type": "chat.join", "ref": "1", "payload": {"room": "africa"}}, {"type": "b", "kind": "k"})
    (record,) = harness.effects(MessageReceived)

    assert record.messages == (
        AppMessage(
            '{"type": "chat.join", "ref": "1", "payload": {"room": "africa"}}',
            "chat.join",
            b'{"room": "africa"}',
            ref="1",
        ),
        AppMessage('{"type": "b", "kind": "k"}', "b", b"{}", "k"),
    )


def test_bad_message_is_answered_to_its_sender_only() -> None:
    harness = Harness()
    peer, other = harness.client("africa"), harness.client("africa")
    peer.send("no json", '{"type":5,"ref":"9"}', '{"ref":"8"}', "[]", '{"type":"a","payload":[],"ref":"7"}')

    assert [(m.get("ref"), m["payload"]["code"]) for m in peer.messages()] == [
        (None, "bad_json"),
        ("9", "bad_message"),
        ("8", "bad_message"),
        (None, "bad_message"),
        ("7", "bad_message"),
    ]
    assert other.messages() == []
    assert harness.hub.is_open(peer.conn)
    assert harness.effects(ReadStore) == []


def test_untyped_connection_hands_over_what_is_no_envelope() -> None:
    harness = Harness(typed=False)
    peer = harness.client()
    peer.send("hello", "{not json", '{"type":5}', '{"type":"a"}', '{"type":"chat","room":"africa"}')
    peer.send_binary(b"\x00\x01")

    assert harness.received == ["hello", "{not json", '{"type":5}', '{"type":"a"}', b"\x00\x01"]
    assert harness.log.rooms() == ["africa"]


def test_untyped_connection_hands_over_everything_until_hello_is_said() -> None:
    harness = Harness(typed=False)
    peer = harness.connect()
    texts = ["hello", '{"type":"chat","room":"africa"}', '{"type":"$join","room":"africa"}', '{"type":"x $hello"}']
    peer.send(*texts)

    assert harness.received == texts
    assert harness.log.rooms() == harness.hub.rooms() == []
    assert peer.frames() == []
    peer.send('{"type":"$join","room":"africa","payload":{"$hello":1}}')
    assert harness.hub.rooms() == []


def test_untyped_connection_speaks_the_protocol_once_hello_is_said() -> None:
    harness = Harness(typed=False)
    peer = harness.connect()
    peer.send('{"type":"$hello"}', '{"type":"$join","room":"africa"}', '{"type":"chat","room":"africa"}')

    assert harness.received == []
    assert peer.types() == ["$welcome", "$joined", "$live", "chat"]


def test_untyped_connection_hands_over_guarded_publishes_as_envelopes() -> None:
    harness = Harness(typed=False, guarded=frozenset({"chat"}))
    harness.client().send('{"type":"chat","room":"africa"}')

    assert harness.received == [AppMessage('{"type":"chat","room":"africa"}', "chat", b"{}", room="africa")]
    assert harness.log.rooms() == []
