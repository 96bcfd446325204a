"""A log that goes back under live members: each whose cursor it passed is told, nobody else, and nothing is missed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.effects import FindPosition, ReadStore, StoreAppend
from vixws_core.inputs import PositionKnown, Publish, RoomAdvanced, StoreRead
from vixws_core.log import PureLog, message_id
from vixws_core.message import StoredMessage

from .harness import EPOCH, TS, Harness, Peer

ROOM = "africa"
NO_TAIL = HubConfig(tail_bytes_room=1)


def publish(harness: Harness, count: int) -> None:
    for _ in range(count):
        harness.put(Publish(ROOM, "chat", b"{}"))


def member(harness: Harness, **asked: object) -> Peer:
    """A client that said `$hello` and joined."""
    peer = harness.client()
    peer.join(ROOM, **asked)
    return peer


def go_back(harness: Harness, backup: PureLog) -> None:
    """A backup is put in the place of the log; its counter of ids stays ahead, as a store's does."""
    last = harness.log.replay_from("")[-1].id
    harness.log = deepcopy(backup)
    harness.log._last_id = int(last)


def grow(harness: Harness, count: int) -> RoomAdvanced:
    """Somebody else appends; returns what the last commit tells, which the hub has not heard."""
    result = None
    for _ in range(count):
        result = harness.log.append_batch([StoreAppend(0, ROOM, "event", "chat", b"{}")], TS)
    assert result is not None
    return result.advanced[0]


def seen(peer: Peer) -> list[Any]:
    """Offsets and types of what came, in order."""
    return [message.get("off", message["type"]) for message in peer.messages()]


def the_reset(messages: list[Any]) -> Any:
    (found,) = [message["payload"] for message in messages if message["type"] == "$reset"]
    return found


# ---- what is told --------------------------------------------------------------------------------


def test_members_of_a_log_that_went_back_are_told_and_get_what_is_stored_next() -> None:
    harness = Harness()
    publish(harness, 3)
    backup = deepcopy(harness.log)
    one = member(harness)
    publish(harness, 2)
    one.messages()
    go_back(harness, backup)
    publish(harness, 1)
    messages = one.messages()

    assert the_reset(messages) == {
        "ep": EPOCH,
        "from": 3,
        "id": message_id(3),
        "head": 3,
        "floor": 0,
        "reason": "ahead",
    }
    assert [(m["off"], m["id"]) for m in messages if "off" in m] == [(4, message_id(6))]


def test_a_log_that_went_back_and_grew_to_the_same_offset_is_a_fork() -> None:
    harness = Harness()
    publish(harness, 3)
    backup = deepcopy(harness.log)
    one = member(harness)
    publish(harness, 1)
    one.messages()
    go_back(harness, backup)
    grow(harness, 1)
    publish(harness, 1)
    messages = one.messages()

    assert [m["type"] for m in messages] == ["$reset", "chat"]
    assert (the_reset(messages)["reason"], the_reset(messages)["from"]) == ("fork", 4)
    assert the_reset(messages)["id"] == harness.log.read(ROOM, 3, 4).rows[0].id
    assert messages[1]["off"] == 5


def test_a_log_that_went_back_and_grew_beyond_is_a_fork_for_whoever_reads_on() -> None:
    harness = Harness()
    publish(harness, 3)
    backup = deepcopy(harness.log)
    one = member(harness)
    publish(harness, 1)
    one.messages()
    go_back(harness, backup)
    grow(harness, 3)
    publish(harness, 1)
    messages = one.messages()

    assert [m["type"] for m in messages] == ["$reset"]
    assert the_reset(messages) == {
        "ep": EPOCH,
        "from": 7,
        "id": harness.log.position(ROOM).id,
        "head": 7,
        "floor": 0,
        "reason": "fork",
    }


def test_a_member_whose_place_is_still_in_the_log_is_told_and_reads_on_from_it() -> None:
    harness = Harness(NO_TAIL)
    publish(harness, 6)
    backup = deepcopy(harness.log)
    publish(harness, 2)
    harness.store_held = True
    behind = harness.client()
    behind.send({"type": "$join", "room": ROOM, "payload": {"since": {"ep": EPOCH, "off": 2}}})
    harness.deliver()  # Its position; its first page is on its way.
    go_back(harness, backup)
    harness.asks = [ask for ask in harness.asks if isinstance(ask, ReadStore)]
    harness.store_held = False
    harness.put(*[StoreRead(a.request, *_page(harness, a)) for a in harness.asks if isinstance(a, ReadStore)])
    publish(harness, 1)

    messages = behind.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", "$reset", 3, 4, 5, 6, 7]
    assert (the_reset(messages)["from"], the_reset(messages)["reason"]) == (2, "ahead")


def test_a_page_of_the_log_before_is_not_taken_for_one_of_the_log_that_went_back() -> None:
    harness = Harness(NO_TAIL)
    publish(harness, 2)
    backup = deepcopy(harness.log)
    publish(harness, 4)
    member(harness)
    harness.store_held = True
    behind = harness.client()
    behind.send({"type": "$join", "room": ROOM, "payload": {"since": {"ep": EPOCH, "off": 1}}})
    harness.deliver()
    (ask,) = [ask for ask in harness.asks if isinstance(ask, ReadStore)]
    harness.asks = []
    old = StoreRead(ask.request, *_page(harness, ask))
    go_back(harness, backup)
    harness.put(grow(harness, 1))
    harness.put(old)  # Entries 3 to 6 of it are no more.
    harness.store_held = False
    harness.deliver_all()

    assert [(m["off"], m["id"]) for m in behind.messages() if "off" in m] == [(2, message_id(2)), (3, message_id(7))]


def _page(harness: Harness, ask: ReadStore) -> tuple[Any, ...]:
    page = harness.log.read(ask.room, ask.after, ask.until, ask.rows_max, ask.bytes_max)
    return page.ep, page.floor, page.head, page.rows, page.id_at, page.floor_id, page.head_id


def test_a_newcomer_finds_the_log_gone_back_and_everybody_is_told() -> None:
    harness = Harness()
    publish(harness, 3)
    backup = deepcopy(harness.log)
    one = member(harness)
    publish(harness, 2)
    one.messages()
    go_back(harness, backup)
    two = harness.client()
    (joined,) = [m["payload"] for m in two.join(ROOM, last=1) if m["type"] == "$joined"]

    assert (joined["from"], joined["head"], joined["id"]) == (2, 3, message_id(2))
    assert the_reset(one.messages())["reason"] == "ahead"


def test_a_newcomer_finds_another_entry_at_the_head_and_everybody_is_told() -> None:
    harness = Harness()
    publish(harness, 3)
    backup = deepcopy(harness.log)
    one = member(harness)
    publish(harness, 1)
    one.messages()
    go_back(harness, backup)
    grow(harness, 1)
    harness.client().join(ROOM, last=1)

    assert the_reset(one.messages()) == {
        "ep": EPOCH,
        "from": 4,
        "id": harness.log.position(ROOM).id,
        "head": 4,
        "floor": 0,
        "reason": "fork",
    }


def test_what_was_told_before_may_be_told_again() -> None:
    harness = Harness()
    publish(harness, 2)
    one = member(harness)
    publish(harness, 3)
    rows = harness.log.read(ROOM, 0, 5).rows
    one.messages()
    for first, last in ((0, 2), (2, 5), (1, 4), (4, 5)):
        harness.put(RoomAdvanced(ROOM, EPOCH, last, rows[first:last], rows[first - 1].id if first else ""))
    harness.put(RoomAdvanced(ROOM, EPOCH, 3, (), rows[2].id))
    harness.put(RoomAdvanced(ROOM, EPOCH, 5, ()))

    assert one.messages() == []


def test_the_tail_knows_the_ids_of_logs_whose_ids_do_not_rise() -> None:
    harness = Harness()
    one = member(harness)
    rows = tuple(_row(off, f"{off:010d}{off * 7919 % 1000:010d}") for off in range(1, 6))
    harness.put(RoomAdvanced(ROOM, EPOCH, 5, rows, ""))
    one.messages()
    harness.put(RoomAdvanced(ROOM, EPOCH, 3, (_row(3, f"{3:010d}{999_999:010d}"),), rows[1].id))

    assert the_reset(one.messages())["from"] == 2


def _row(off: int, id: str) -> StoredMessage:
    return StoredMessage(id, "event", ROOM, "chat", TS, b"{}", EPOCH, off)


# ---- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({}, 8),
        ({"last": 3}, 5),
        ({"last": 100}, 2),
        ({"since": {"ep": EPOCH, "off": 4}}, 4),
        ({"since": {"ep": EPOCH, "off": 2}}, 2),
        ({"since": {"ep": EPOCH, "off": 1}}, 8),
        ({"since": {"ep": EPOCH, "off": 1}, "on_fail": "floor"}, 2),
        ({"since": {"ep": EPOCH, "off": 80}}, 8),
        ({"since": {"ep": "other", "off": 4}}, 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another"])
def test_joined_carries_the_id_of_the_entry_it_starts_behind(asked: dict[str, Any], place: int, others: int) -> None:
    harness = Harness()
    publish(harness, 8)
    harness.log.trim(ROOM, 2)
    for _ in range(others):
        member(harness)
    (joined,) = [m["payload"] for m in harness.client().join(ROOM, **asked) if m["type"] == "$joined"]

    assert (joined["from"], joined["id"]) == (place, message_id(place))


def test_joined_in_an_empty_room_carries_no_id() -> None:
    (joined, _) = harness_join(Harness())

    assert (joined["payload"]["from"], joined["payload"]["id"]) == (0, "")


def harness_join(harness: Harness) -> list[Any]:
    return harness.client().join(ROOM)


def test_a_room_that_moved_past_the_answer_starts_the_newcomer_at_a_known_id() -> None:
    harness = Harness()
    publish(harness, 3)
    member(harness)
    harness.store_held = True
    late = harness.client()
    late.send({"type": "$join", "room": ROOM, "payload": {"last": 1}})
    (ask,) = [ask for ask in harness.asks if isinstance(ask, FindPosition)]
    harness.asks = []
    harness.put(grow(harness, 1))
    harness.put(PositionKnown(ask.request, EPOCH, 0, 3, message_id(3), message_id(2)))
    harness.deliver_all()
    messages = late.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 3, 4, "$live"]
    assert messages[0]["payload"]["id"] == message_id(2)


def test_a_gap_carries_the_id_of_its_last_entry_where_it_is_known() -> None:
    harness = Harness(NO_TAIL)
    publish(harness, 8)
    harness.store_held = True
    late = harness.client()
    late.send({"type": "$join", "room": ROOM, "payload": {"since": {"ep": EPOCH, "off": 1}}})
    harness.deliver()
    harness.log.trim(ROOM, 5)
    harness.deliver_all()
    (gap,) = [m["payload"] for m in late.messages() if m["type"] == "$gap"]

    assert gap == {"from": 2, "to": 5, "id": message_id(5)}


# ---- entries that nobody can read ----------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        StoredMessage("", "event", ROOM, "t" * 129, TS, b"{}"),
        StoredMessage("", "event", ROOM, "$joined", TS, b"{}"),
        StoredMessage("", "event", ROOM, "", TS, b"{}"),
        StoredMessage("", "event", ROOM, "chat", TS, b"[1]"),
        StoredMessage("", "event", ROOM, "chat", TS, b'{"x":"%s"}' % (b"y" * 70_000)),
    ],
    ids=["long type", "protocol's type", "no type", "no object", "too large"],
)
@pytest.mark.parametrize("place", [1, 3, 5], ids=["first", "between", "last"])
def test_an_entry_that_no_client_can_read_is_a_gap_for_those_who_are_there_and_those_who_come(
    bad: StoredMessage, place: int
) -> None:
    harness = Harness()
    live = member(harness)
    for off in range(1, 6):
        ask = StoreAppend(0, ROOM, "event", bad.type, bad.payload_json) if off == place else None
        ask = ask or StoreAppend(0, ROOM, "event", "chat", b"{}")
        harness.put(*harness.log.append_batch([ask], TS).advanced)
    late = harness.client()
    late.send({"type": "$join", "room": ROOM, "payload": {"last": 5}})
    pages: list[Any] = []
    while not pages or pages[-1]["more"]:
        asked = {"after": pages[-1]["messages"][-1]["off"] if pages else 0}
        answer = harness.client().answer({"type": "$history", "ref": "h", "room": ROOM, "payload": asked})
        pages.append(answer["payload"])
    listed = [message for page in pages for message in page["messages"]]
    want = [off if off != place else "$gap" for off in range(1, 6)]

    assert seen(live) == want
    assert [found for found in seen(late) if found not in ("$joined", "$live")] == want
    assert [m["off"] for m in listed] == list(range(1, 6))
    assert [m["off"] for m in listed if m["type"] == "$unreadable"] == [place]
