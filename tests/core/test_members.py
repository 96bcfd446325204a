"""Rooms: joining, leaving, names, and where each cursor starts (PROTOCOL §3)."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import BadRoom, HubConfig, LocalError, TooManyRooms
from vixws_core.effects import Broadcast, FindPosition, Joined, Left, PeerMisbehaved, StoreAppend
from vixws_core.inputs import (
    Join,
    Leave,
    LeaveAll,
    PositionKnown,
    Publish,
    RoomAdvanced,
    Since,
    StoreFailed,
)
from vixws_core.log import PureLog
from vixws_core.message import StoredMessage, encode_json
from vixws_core.names import check_room, matches

from .harness import EPOCH, Harness, Peer


def filled(count: int = 10, trimmed: int = 0, room: str = "africa") -> PureLog:
    harness = Harness()
    for number in range(1, count + 1):
        harness.put(Publish(room, "chat", encode_json({"n": number})))
    harness.log.trim(room, trimmed)
    return harness.log


def identity(off: int) -> str:
    return f"{off:020d}"


def joined_of(messages: list[Any]) -> Any:
    (payload,) = [message["payload"] for message in messages if message["type"] == "$joined"]
    return payload


def offsets(messages: list[Any]) -> list[int]:
    return [message["off"] for message in messages if "off" in message]


# ---- where a cursor starts ------------------------------------------------------------------------

# The log has ten entries, of which three are trimmed: floor 3, head 10.
PLACES: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("no since", {}, 10, "fresh"),
    ("the last n", {"last": 4}, 6, "fresh"),
    ("more than are kept", {"last": 9}, 3, "fresh"),
    ("far more than there are", {"last": 1 << 53}, 3, "fresh"),
    ("none of the last", {"last": 0}, 10, "fresh"),
    ("the head", {"since": {"ep": EPOCH, "off": 10}}, 10, None),
    ("the head with its id", {"since": {"ep": EPOCH, "off": 10, "id": identity(10)}}, 10, None),
    ("between", {"since": {"ep": EPOCH, "off": 5}}, 5, None),
    ("between with its id", {"since": {"ep": EPOCH, "off": 5, "id": identity(5)}}, 5, None),
    ("the floor", {"since": {"ep": EPOCH, "off": 3}}, 3, None),
    ("the floor with its id", {"since": {"ep": EPOCH, "off": 3, "id": identity(3)}}, 3, None),
    ("no id given", {"since": {"ep": EPOCH, "off": 7, "id": None}}, 7, None),
    ("another epoch", {"since": {"ep": "other", "off": 5}}, 10, "epoch"),
    ("another epoch with the same id", {"since": {"ep": "other", "off": 5, "id": identity(5)}}, 10, "epoch"),
    ("below the floor", {"since": {"ep": EPOCH, "off": 2}}, 10, "trimmed"),
    ("zero below the floor", {"since": {"ep": EPOCH, "off": 0}}, 10, "trimmed"),
    ("below, from the floor", {"since": {"ep": EPOCH, "off": 2}, "on_fail": "floor"}, 3, "trimmed"),
    ("below, from the head", {"since": {"ep": EPOCH, "off": 2}, "on_fail": "head"}, 10, "trimmed"),
    ("beyond the head", {"since": {"ep": EPOCH, "off": 11}}, 10, "ahead"),
    ("beyond, from the floor", {"since": {"ep": EPOCH, "off": 11}, "on_fail": "floor"}, 10, "ahead"),
    ("another id", {"since": {"ep": EPOCH, "off": 5, "id": identity(6)}}, 10, "fork"),
    ("another id at the floor", {"since": {"ep": EPOCH, "off": 3, "id": identity(9)}}, 10, "fork"),
    ("another id at the head", {"since": {"ep": EPOCH, "off": 10, "id": "x"}}, 10, "fork"),
    ("an empty id", {"since": {"ep": EPOCH, "off": 10, "id": ""}}, 10, "fork"),
    ("last beside since", {"since": {"ep": EPOCH, "off": 5}, "last": 1}, 5, None),
]


@pytest.mark.parametrize("known", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("asked", "start", "reason"), [p[1:] for p in PLACES], ids=[p[0] for p in PLACES])
def test_cursor_starts_where_the_table_says(asked: dict[str, Any], start: int, reason: str | None, known: bool) -> None:
    harness = Harness(log=filled(10, trimmed=3))
    if known:
        harness.client("africa")
    messages = harness.client().join("africa", **asked)

    expected = {"ep": EPOCH, "from": start, "id": identity(start), "head": 10, "floor": 3, "recovered": reason is None}
    expected["stored"] = True
    if reason is not None:
        expected["reason"] = reason
    assert joined_of(messages) == expected
    assert offsets(messages) == list(range(start + 1, 11))
    assert messages[-1] == {"type": "$live", "room": "africa", "payload": {"off": 10}}


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        (None, "fresh"),
        ({"ep": EPOCH, "off": 0}, None),
        ({"ep": EPOCH, "off": 0, "id": ""}, None),
        ({"ep": EPOCH, "off": 0, "id": "anything"}, None),
        ({"ep": "other", "off": 0}, "epoch"),
        ({"ep": EPOCH, "off": 1}, "ahead"),
    ],
)
def test_empty_room_has_a_position_too(since: Any, reason: str | None) -> None:
    messages = Harness().client().join("africa", since=since)
    joined = joined_of(messages)

    assert (joined["ep"], joined["from"], joined["head"], joined["floor"]) == (EPOCH, 0, 0, 0)
    assert joined.get("reason") == reason
    assert messages[1]["type"] == "$live"


def test_position_of_an_empty_room_is_recovered_after_its_first_messages() -> None:
    harness = Harness()
    joined = joined_of(harness.client().join("africa"))
    harness.put(Publish("africa", "chat", b"{}"))
    messages = harness.client().join("africa", since={"ep": joined["ep"], "off": joined["head"]})

    assert joined_of(messages)["recovered"] is True
    assert offsets(messages) == [1]


def test_nothing_missed_is_recovered_with_nothing_sent() -> None:
    harness = Harness(log=filled(3))
    messages = harness.client().join("africa", since={"ep": EPOCH, "off": 3, "id": identity(3)})

    assert [message["type"] for message in messages] == ["$joined", "$live"]


def test_place_below_a_floor_that_moved_under_a_known_room_is_not_recovered() -> None:
    harness = Harness()
    harness.client("africa")
    for _ in range(6):
        harness.put(Publish("africa", "chat", b"{}"))
    harness.log.trim("africa", 4)
    joined = joined_of(harness.client().join("africa", since={"ep": EPOCH, "off": 2}))

    assert (joined["recovered"], joined["reason"], joined["floor"]) == (False, "trimmed", 4)


def test_place_in_the_tail_below_a_known_floor_is_asked_of_the_log() -> None:
    harness = Harness()
    harness.client("africa")
    for _ in range(6):
        harness.put(Publish("africa", "chat", b"{}"))
    harness.log.trim("africa", 4)
    harness.client().join("africa", last=6)  # The position asked for this one tells the floor.
    joined = joined_of(harness.client().join("africa", since={"ep": EPOCH, "off": 2}))

    assert joined["reason"] == "trimmed"
    assert joined["floor"] == 4


def test_floor_is_asked_of_a_log_that_changed() -> None:
    harness = Harness()
    harness.client("africa")
    harness.log = PureLog("ep2")
    for _ in range(5):
        harness.log.append_batch([_append()], "")
    harness.log.trim("africa", 3)
    harness.put(harness.log.append_batch([_append()], "").advanced[0])
    joined = joined_of(harness.client().join("africa"))

    assert joined == {
        "ep": "ep2", "from": 6, "id": identity(6), "head": 6, "floor": 3, "recovered": False, "stored": True,
        "reason": "fresh",
    }  # fmt: skip


def _append() -> Any:
    return StoreAppend(0, "africa", "event", "chat", b"{}")


def test_fresh_join_of_a_known_room_asks_the_store_nothing() -> None:
    harness = Harness()
    harness.client("africa")
    harness.store_held = True
    messages = harness.client().join("africa")

    assert harness.asks == []
    assert [message["type"] for message in messages] == ["$joined", "$live"]


# ---- answers that come late -----------------------------------------------------------------------


def _asking(harness: Harness, off: int | None = None) -> tuple[Peer, FindPosition]:
    """A member whose position is being asked for."""
    peer = harness.client()
    harness.store_held = True
    since = {} if off is None else {"since": {"ep": EPOCH, "off": off}}
    peer.send({"type": "$join", "ref": "7", "room": "africa", "payload": since})
    ask = harness.asks.pop()
    assert isinstance(ask, FindPosition)
    return peer, ask


def test_answer_older_than_the_room_is_asked_again() -> None:
    harness = Harness(log=filled(5))
    harness.client("africa")
    peer, ask = _asking(harness, 6)  # It saw 6 before we did.
    harness.put(harness.log.append_batch([_append()], "").advanced[0])
    harness.put(PositionKnown(ask.request, EPOCH, 0, 5, identity(5)))
    waits = peer.messages()
    harness.deliver_all()

    assert waits == []
    assert joined_of(peer.messages())["recovered"] is True


@pytest.mark.threat(27)
def test_log_that_lost_writes_resets_its_members_and_tells_who_is_ahead() -> None:
    harness = Harness(log=filled(9))
    old = harness.client("africa")
    harness.log = filled(4)  # A backup under the same epoch.
    peer = harness.client()
    joined = joined_of(peer.join("africa", since={"ep": EPOCH, "off": 7}))

    assert old.messages() == [
        {
            "type": "$reset",
            "room": "africa",
            "payload": {"ep": EPOCH, "from": 4, "id": identity(4), "head": 4, "floor": 0, "reason": "ahead"},
        }
    ]
    assert (joined["reason"], joined["head"]) == ("ahead", 4)


def test_answer_of_an_epoch_that_is_over_is_asked_again() -> None:
    harness = Harness(log=filled(5))
    old = harness.client("africa")
    peer, ask = _asking(harness, 2)
    harness.log = PureLog("ep2")
    harness.put(harness.log.append_batch([_append()], "").advanced[0])
    harness.put(PositionKnown(ask.request, EPOCH, 0, 5, identity(5)))
    harness.deliver_all()
    messages = peer.messages()

    assert [m["type"] for m in old.messages()] == ["$reset", "chat"]
    assert [m["type"] for m in messages] == ["$joined", "$live"]
    assert (joined_of(messages)["ep"], joined_of(messages)["reason"]) == ("ep2", "epoch")


def test_position_of_another_epoch_resets_the_members_there_are() -> None:
    harness = Harness(log=filled(5))
    old = harness.client("africa")
    harness.log = PureLog("ep2")
    harness.client().join("africa", last=1)
    (reset,) = old.messages()

    assert (reset["type"], reset["payload"]["reason"], reset["payload"]["ep"]) == ("$reset", "epoch", "ep2")


def test_answer_after_leave_is_dropped() -> None:
    harness = Harness(log=filled(3))
    peer, ask = _asking(harness)
    peer.send({"type": "$leave", "ref": "8", "room": "africa"})
    peer.messages()
    effects = harness.put(PositionKnown(ask.request, EPOCH, 0, 3, identity(3)))

    assert effects == []
    assert harness.hub.rooms() == []


def test_join_that_is_left_before_its_answer_is_answered() -> None:
    harness = Harness(log=filled(3))
    peer, _ = _asking(harness)
    peer.send({"type": "$leave", "ref": "8", "room": "africa"})
    first, second = peer.messages()

    assert (first["type"], first["ref"], first["room"], first["payload"]["retry"]) == ("$err", "7", "africa", False)
    assert (second["type"], second["ref"]) == ("$left", "8")


def test_join_that_another_one_replaces_is_answered() -> None:
    harness = Harness(log=filled(3))
    peer, _ = _asking(harness)
    peer.send({"type": "$join", "ref": "8", "room": "africa"})
    harness.deliver_all()
    messages = peer.messages()

    assert [(m["type"], m.get("ref")) for m in messages] == [("$err", "7"), ("$joined", "8"), ("$live", None)]


def test_failed_join_is_answered_once_and_over() -> None:
    harness = Harness()
    peer, ask = _asking(harness)
    harness.put(StoreFailed(ask.request, "store_unavailable", "no disk"))
    (answer,) = peer.messages()

    assert answer == {
        "type": "$err",
        "ref": "7",
        "room": "africa",
        "payload": {"code": "store_unavailable", "retry": True, "msg": "the store is not available"},
    }
    assert harness.hub.members("africa") == ()
    assert harness.hub.rooms() == []


def test_join_of_the_application_is_tried_again_until_it_succeeds() -> None:
    harness = Harness(log=filled(3))
    peer = harness.client()
    harness.store_held = True
    harness.put(Join(peer.conn, "africa", last=2))
    for pause_s in (0.5, 1.0, 2.0):
        (ask,) = harness.asks
        harness.asks = []
        harness.put(StoreFailed(ask.request, "store_unavailable"))
        harness.pass_time(pause_s - 0.1)
        assert harness.asks == []
        harness.pass_time(0.1)
    harness.deliver_all()
    messages = peer.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 2, 3, "$live"]


def test_retry_asks_once_for_each_member() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    harness.put(Join(peer.conn, "africa"), Join(peer.conn, "asia"), Join(peer.conn, "europe"))
    africa, _, _ = harness.asks
    harness.asks = []
    harness.put(StoreFailed(africa.request, "store_unavailable"))
    harness.pass_time(0.5)

    assert [(type(ask), ask.room) for ask in harness.asks] == [(FindPosition, "africa")]


def test_failure_told_after_the_member_left_changes_nothing() -> None:
    harness = Harness()
    peer, ask = _asking(harness)
    peer.send({"type": "$leave", "room": "africa"})
    peer.messages()

    assert harness.put(StoreFailed(ask.request, "store_unavailable")) == []


# ---- membership -----------------------------------------------------------------------------------


def test_joining_twice_keeps_one_membership_and_gives_a_new_place() -> None:
    harness = Harness(log=filled(5))
    peer = harness.client("africa")
    messages = peer.join("africa", since={"ep": EPOCH, "off": 3})
    harness.put(Publish("africa", "chat", b"{}"))

    assert offsets(messages) == [4, 5]
    assert offsets(peer.messages()) == [6]
    assert harness.effects(Joined) == [Joined(peer.conn, "africa")]
    assert harness.hub.members("africa") == (peer.conn,)


def test_application_that_joins_a_member_again_changes_nothing() -> None:
    harness = Harness()
    peer = harness.client("africa")

    assert harness.put(Join(peer.conn, "africa")) == []


def test_application_that_gives_a_member_a_place_moves_it() -> None:
    harness = Harness(log=filled(5))
    peer = harness.client("africa")
    harness.put(Join(peer.conn, "africa", Since(EPOCH, 4)))

    assert offsets(peer.messages()) == [5]


def test_plain_client_hears_no_joined_and_no_live() -> None:
    harness = Harness(log=filled(5))
    peer = harness.connect()
    harness.put(Join(peer.conn, "africa", last=1))

    assert offsets(peer.messages()) == [5]
    assert peer.messages() == []


def test_members_and_rooms_can_be_seen_in_order_of_joining() -> None:
    harness = Harness()
    one, two = harness.client(), harness.client()
    two.join("asia")
    two.join("africa")
    one.join("asia")

    assert harness.hub.rooms() == ["africa", "asia"]
    assert harness.hub.members("asia") == (two.conn, one.conn)
    assert harness.hub.members("nowhere") == ()
    assert harness.hub.rooms_of(two.conn) == ("asia", "africa")
    assert harness.hub.rooms_of(99) == ()


def test_leaving_is_answered_and_told() -> None:
    harness = Harness()
    peer = harness.client("africa")
    answer = peer.answer({"type": "$leave", "ref": "8", "room": "africa"})
    again = peer.answer({"type": "$leave", "ref": "9", "room": "africa"})

    assert answer == {"type": "$left", "ref": "8", "room": "africa"}
    assert again == {"type": "$left", "ref": "9", "room": "africa"}
    assert harness.effects(Left) == [Left(peer.conn, "africa")]
    assert harness.hub.rooms() == []


def test_leave_all_leaves_every_room_in_order_of_joining() -> None:
    harness = Harness()
    peer = harness.client("b", "a", "c")
    harness.put(LeaveAll(peer.conn))

    assert [left.room for left in harness.effects(Left)] == ["b", "a", "c"]
    assert harness.hub.rooms_of(peer.conn) == ()


def test_who_left_hears_nothing_more() -> None:
    harness = Harness()
    gone, stays = harness.client("africa"), harness.client("africa")
    harness.put(Leave(gone.conn, "africa"))
    harness.put(Publish("africa", "chat", b"{}"))

    assert gone.messages() == []
    assert offsets(stays.messages()) == [1]


def test_commands_about_connections_just_gone_do_nothing() -> None:
    harness = Harness()
    peer = harness.client()
    peer.vanish()

    assert harness.put(Join(peer.conn, "africa"), Leave(peer.conn, "africa"), LeaveAll(peer.conn)) == []


def test_connection_that_is_not_open_yet_does_not_join() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()

    assert harness.put(Join(peer.conn, "africa")) == []


def test_unstored_room_answers_no_position() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp.*", "exact")))
    peer = harness.client()

    assert [joined_of(peer.join(name)) for name in ("tmp.a", "exact")] == [{"stored": False}] * 2
    assert joined_of(peer.join("exactly"))["stored"] is True
    assert harness.effects(Broadcast) == []


def test_re_join_of_an_unstored_room_is_answered() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp.*",)))
    peer = harness.client("tmp.a")
    again = peer.join("tmp.a")
    harness.put(Publish("tmp.a", "typing", b"{}"))

    assert [m["type"] for m in again] == ["$joined"]
    assert peer.types() == ["typing"]


@pytest.mark.threat(17)
def test_row_17_join_beyond_the_limit_is_answered_and_no_close() -> None:
    harness = Harness()
    peer = harness.client(*(f"room {number}" for number in range(128)))
    answer = peer.answer({"type": "$join", "ref": "7", "room": "one more"})
    again = peer.join("room 5")

    assert (answer["type"], answer["payload"]["code"], answer["payload"]["retry"]) == ("$err", "too_many_rooms", False)
    assert again[0]["type"] == "$joined"
    assert len(harness.hub.rooms_of(peer.conn)) == 128
    assert harness.hub.is_open(peer.conn)
    assert "one more" not in harness.hub.rooms()


def test_application_that_joins_beyond_the_limit_is_told_by_an_exception() -> None:
    harness = Harness(HubConfig(rooms_max=1))
    peer = harness.client("africa")

    with pytest.raises(TooManyRooms, match="1 rooms"):
        harness.put(Join(peer.conn, "asia"))
    assert harness.hub.rooms_of(peer.conn) == ("africa",)


# ---- names ----------------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    "a" * 129,
    "é" * 65,
    "x" * (1 << 15),
    "a\0b",
    " ",
    "\u00a0 ",
    "\u034f",
    "\ufe0f\ufe0f",
    "\U000e0100",
    "\u115f",
    "\u3164",
    "\u2800 \u2800",
    "\n",
    "a\tb",
    "a\x7f",
    "a\x85b",
    "a\u200bb",
    "\u202eabc",
    "a\u2028b",
    "a\u2029b",
    "\ufeffabc",
    "e\u0301",
    "@user/",
    "@users/ada",
    "@",
    "a\ue000",
    "a\u0378",
]
GOOD_NAMES = [
    "a",
    "a" * 128,
    "é" * 64,
    "'; DROP TABLE ws_messages; --",
    "%",
    "_",
    "a b",
    "../../etc",
    "😀",
    "\u00e9",
    "user/ada",
    "a@b",
    "שלום",
    '"',
    "\\",
    "$room",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.threat(17)
def test_row_17_bad_room_is_answered_and_no_close(name: str) -> None:
    harness = Harness()
    peer, other = harness.client(), harness.client("africa")
    types = ("$join", "$leave", "$history", "$position", "chat")
    answers = [peer.answer({"type": type, "ref": "7", "room": name}) for type in types]

    assert {answer["payload"]["code"] for answer in answers} == {"bad_room"}
    assert {answer["ref"] for answer in answers} == {"7"}
    assert harness.hub.is_open(peer.conn)
    assert other.messages() == []
    assert harness.log.rooms() == []
    assert [wrong.kind for wrong in harness.effects(PeerMisbehaved)] == ["bad_room"] * 5


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.threat(17)
def test_row_17_bad_room_of_the_application_is_an_exception(name: str) -> None:
    harness = Harness()
    peer = harness.client()
    for command in (Join(peer.conn, name), Publish(name, "chat", b"{}")):
        with pytest.raises(BadRoom):
            harness.put(command)

    assert harness.hub.rooms() == []


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: ascii(name)[:20])
@pytest.mark.threat(18)
def test_row_18_good_room_round_trips(name: str) -> None:
    harness = Harness()
    peer = harness.client(name)
    peer.publish(name)
    (message,) = peer.messages()

    assert message["room"] == name
    assert harness.log.rooms() == [name]


def test_surrogates_are_no_room_name() -> None:
    with pytest.raises(BadRoom, match="valid Unicode"):
        check_room("a\ud800")


def test_bad_room_is_a_local_error_for_callers() -> None:
    assert issubclass(BadRoom, LocalError)
    assert issubclass(TooManyRooms, LocalError)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("*", "anything", True),
        ("a*", "abc", True),
        ("a*", "ba", False),
        ("*a", "bca", True),
        ("*a", "ab", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "axxcyyb", False),
        ("a*b*c", "axxc", False),
        ("*a*b", "ab", True),
        ("a*b*c", "abc", True),
        ("a*b*b", "ab", False),
        ("ab*ba", "aba", False),
        ("a**b", "ab", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_pattern_fits_names(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


def test_row_of_another_room_state_is_not_kept_after_the_last_member_left() -> None:
    harness = Harness()
    peer = harness.client("africa")
    harness.put(
        RoomAdvanced("africa", EPOCH, 1, (StoredMessage(identity(1), "event", "africa", "c", "", b"{}", EPOCH, 1),))
    )
    harness.put(Leave(peer.conn, "africa"))
    joined = joined_of(peer.join("africa"))

    assert joined["head"] == 0
