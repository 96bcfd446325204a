"""Cursors: what is new reaches the live members once; everybody else reads on and loses nothing."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.effects import Broadcast, FindPosition, ReadStore, SendBytes, StoreAppend
from vixws_core.inputs import (
    BytesFlushed,
    Join,
    Leave,
    Publish,
    RoomAdvanced,
    Send,
    StoreFailed,
    StoreRead,
    TimePassed,
)
from vixws_core.log import PureLog, run_asks
from vixws_core.message import StoredMessage, encode_json

from .harness import EPOCH, TS, Harness, Peer

SMALL = HubConfig(
    unsent_bytes_low=2_000, unsent_bytes_high=6_000, tail_bytes_room=1, page_rows_max=4, page_bytes_max=1_000
)
"""Marks of a few messages, and no tail: every catch-up reads the store."""


def filled(room: str = "africa", count: int = 10, size: int = 1) -> PureLog:
    """A log with `count` messages in a room."""
    harness = Harness()
    for number in range(1, count + 1):
        harness.put(Publish(room, "chat", encode_json({"n": number, "text": "x" * size})))
    return harness.log


def offsets(messages: list[Any]) -> list[int]:
    return [message["off"] for message in messages if "off" in message]


def of_type(messages: list[Any], type: str) -> list[Any]:
    return [message["payload"] for message in messages if message["type"] == type]


def publish(harness: Harness, count: int, size: int = 1, room: str = "africa") -> None:
    for _ in range(count):
        harness.put(Publish(room, "chat", encode_json({"text": "x" * size})))


def row(off: int, room: str = "africa", ep: str = EPOCH) -> StoredMessage:
    return StoredMessage(f"{off:020d}", "event", room, "chat", "", b"{}", ep, off)


# ---- live ---------------------------------------------------------------------------------------


def test_members_share_one_bytes_object_and_one_tuple() -> None:
    harness = Harness()
    members = [harness.client("africa") for _ in range(5)]
    publish(harness, 2)

    first, second = harness.effects(Broadcast)

    assert first.conns == tuple(member.conn for member in members)
    assert second.conns is first.conns
    assert first.frames == 1
    assert [member.types() for member in members] == [["chat", "chat"]] * 5


def test_tuple_of_targets_changes_with_membership() -> None:
    harness = Harness()
    one, two = harness.client("africa"), harness.client("africa")
    publish(harness, 1)
    two.send({"type": "$leave", "room": "africa"})
    publish(harness, 1)

    assert [effect.conns for effect in harness.effects(Broadcast)] == [(one.conn, two.conn), (one.conn,)]


def test_one_commit_is_broadcast_in_groups_of_64_kib() -> None:
    harness = Harness()
    member = harness.client("africa")
    rows = tuple(
        StoredMessage(f"{off:020d}", "event", "africa", "chat", "", encode_json({"x": "y" * 10_000}), EPOCH, off)
        for off in range(1, 21)
    )
    harness.put(RoomAdvanced("africa", EPOCH, 20, rows))
    groups = harness.effects(Broadcast)

    assert [group.frames for group in groups] == [7, 7, 6]
    assert offsets(member.messages()) == list(range(1, 21))


def test_entries_that_were_told_before_are_not_told_again() -> None:
    harness = Harness()
    member = harness.client("africa")
    harness.put(RoomAdvanced("africa", EPOCH, 2, (row(1), row(2))))
    harness.put(RoomAdvanced("africa", EPOCH, 2, (row(1), row(2))))
    harness.put(RoomAdvanced("africa", EPOCH, 3, (row(2), row(3))))

    assert offsets(member.messages()) == [1, 2, 3]


def test_room_that_advances_with_a_gap_is_read() -> None:
    harness = Harness()
    member = harness.client("africa")
    publish(harness, 2)
    for number in range(3):  # Three commits that nobody told us about.
        harness.log.append_batch([_append("africa", number)], "")
    last = harness.log.append_batch([_append("africa", 9)], "").advanced[0]
    harness.put(last)

    assert offsets(member.messages()) == [1, 2, 3, 4, 5, 6]


def _append(room: str, number: int) -> Any:
    return StoreAppend(number, room, "event", "chat", b"{}")


def test_room_that_advances_without_entries_is_read() -> None:
    harness = Harness()
    member = harness.client("africa")
    harness.log.append_batch([_append("africa", 1), _append("africa", 2)], "")
    harness.put(RoomAdvanced("africa", EPOCH, 2, ()))

    assert offsets(member.messages()) == [1, 2]


def test_room_without_members_or_log_ignores_advances() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp*",)))
    member = harness.client("tmp1")
    harness.put(RoomAdvanced("nobody", EPOCH, 1, (row(1, "nobody"),)))
    harness.put(RoomAdvanced("tmp1", EPOCH, 1, (row(1, "tmp1"),)))

    assert member.messages() == []


def test_room_learns_its_place_from_an_advance_before_its_position_is_known() -> None:
    harness = Harness()
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "ref": "7", "room": "africa"})
    old = harness.run_store()
    advanced = harness.log.append_batch([_append("africa", 1), _append("africa", 2)], "").advanced[0]
    harness.put(advanced)
    harness.deliver(old)
    publish(harness, 1)
    harness.deliver()
    joined, live, message = member.messages()

    assert (joined["payload"]["from"], joined["payload"]["head"]) == (2, 2)
    assert live["payload"] == {"off": 2}
    assert message["off"] == 3


def test_empty_advance_before_the_position_is_known_does_no_harm() -> None:
    harness = Harness()
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "ref": "7", "room": "africa"})
    harness.log.append_batch([_append("africa", 1)], "")
    harness.put(RoomAdvanced("africa", EPOCH, 1, ()))
    harness.deliver()

    assert member.messages()[0]["payload"]["head"] == 1


# ---- catching up ---------------------------------------------------------------------------------


def test_resume_reads_what_it_missed_and_then_is_live() -> None:
    harness = Harness(SMALL, log=filled(count=10))
    member = harness.client()
    messages = member.join("africa", since={"ep": EPOCH, "off": 3})
    publish(harness, 1)

    assert [message["type"] for message in messages] == ["$joined", *["chat"] * 7, "$live"]
    assert messages[0]["payload"]["recovered"] is True
    assert offsets(messages) == [4, 5, 6, 7, 8, 9, 10]
    assert messages[-1]["payload"] == {"off": 10}
    assert offsets(member.messages()) == [11]


def test_live_is_told_once_at_the_announced_head_though_more_follows() -> None:
    harness = Harness(SMALL, log=filled(count=6))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "ref": "7", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()  # The position: head 6.
    advanced = harness.log.append_batch([_append("africa", 1), _append("africa", 2)], "").advanced[0]
    harness.put(advanced)
    harness.deliver_all()
    messages = member.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 1, 2, 3, 4, 5, 6, "$live", 7, 8]


def test_short_catch_up_from_the_tail_asks_the_store_for_the_position_alone() -> None:
    harness = Harness()
    harness.client("africa")
    publish(harness, 5)
    late = harness.client()
    harness.store_held = True
    late.send({"type": "$join", "ref": "j", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 2}}})
    (ask,) = harness.asks
    harness.deliver()
    messages = late.messages()

    assert isinstance(ask, FindPosition)
    assert harness.asks == []
    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 3, 4, 5, "$live"]


def test_live_is_told_at_the_announced_head_from_the_tail_too() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000))
    harness.client("africa")
    publish(harness, 3)
    late = harness.client()
    late.takes = False
    harness.put(Send(late.conn, b'{"type":"big","payload":"' + b"x" * 3_000 + b'"}'))
    late.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    publish(harness, 2)
    late.takes = True
    late.flush()

    assert [m.get("off", m["type"]) for m in late.messages()] == ["big", "$joined", 1, 2, 3, "$live", 4, 5]
    assert harness.effects(ReadStore) == []


def test_catch_up_from_the_tail_goes_on_in_turns_between_rooms() -> None:
    harness = Harness(HubConfig(page_bytes_max=600))
    harness.client("africa", "asia")
    for _ in range(4):
        publish(harness, 1, 200, "africa")
        publish(harness, 1, 200, "asia")
    member = harness.connect()
    member.takes = False
    member.hello()
    since = {"ep": EPOCH, "off": 0}
    member.send(
        {"type": "$join", "room": "africa", "payload": {"since": since}},
        {"type": "$join", "room": "asia", "payload": {"since": since}},
    )
    messages = member.messages()

    assert {name: offsets([m for m in messages if m["room"] == name]) for name in ("africa", "asia")} == {
        "africa": [1, 2, 3, 4],
        "asia": [1, 2, 3, 4],
    }


@pytest.mark.threat(13)
def test_row_13_slow_reader_becomes_a_catch_up_reader_and_loses_nothing() -> None:
    harness = Harness(SMALL)
    quick, slow = harness.client("africa"), harness.client("africa")
    slow.takes = False
    for _ in range(100):
        publish(harness, 1, 100)

        assert harness.hub.unsent_bytes_of(slow.conn) <= SMALL.unsent_bytes_high + 1_000
    while slow.unflushed:
        slow.flush(500)

        assert harness.hub.unsent_bytes_of(slow.conn) <= SMALL.unsent_bytes_high + 1_000

    assert offsets(quick.messages()) == list(range(1, 101))
    assert offsets(slow.messages()) == list(range(1, 101))


@pytest.mark.threat(13)
def test_row_13_slow_reader_is_live_again_afterwards() -> None:
    harness = Harness(SMALL)
    slow = harness.client("africa")
    slow.takes = False
    publish(harness, 60, 100)
    slow.takes = True
    slow.flush()
    slow.messages()
    publish(harness, 1)

    assert harness.effects(Broadcast)[-1].conns == (slow.conn,)
    assert offsets(slow.messages()) == [61]


@pytest.mark.threat(13)
def test_row_13_others_do_not_notice_a_slow_reader() -> None:
    harness = Harness(SMALL)
    quick, slow = harness.client("africa"), harness.client("africa")
    slow.takes = False
    publish(harness, 100, 100)

    assert harness.effects(Broadcast)[-1].conns == (quick.conn,)


def test_parked_reader_costs_nothing_while_the_room_goes_on() -> None:
    harness = Harness(SMALL)
    slow = harness.client("africa")
    slow.takes = False
    publish(harness, 60, 100)
    unsent = harness.hub.unsent_bytes
    publish(harness, 500, 100)

    assert harness.hub.unsent_bytes == unsent
    assert harness.effects(ReadStore) == []


@pytest.mark.threat(32)
def test_row_32_a_thousand_resumes_of_the_same_place_share_their_reads() -> None:
    harness = Harness(HubConfig(tail_bytes_room=1, page_rows_max=50), log=filled(count=100))
    members = [harness.client() for _ in range(1_000)]
    harness.store_held = True
    for member in members:
        member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver_all()

    assert len(harness.effects(ReadStore)) == 2
    assert all(offsets(member.messages()) == list(range(1, 101)) for member in members)


@pytest.mark.threat(32)
def test_row_32_a_reader_gets_only_what_it_takes() -> None:
    harness = Harness(SMALL, log=filled(count=200, size=100))
    member = harness.client()
    member.takes = False
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    highest = harness.hub.unsent_bytes_of(member.conn)
    while member.unflushed:
        member.flush(300)
        highest = max(highest, harness.hub.unsent_bytes_of(member.conn))

    assert highest < SMALL.unsent_bytes_low + SMALL.page_bytes_max + 1_000
    assert max(ask.bytes_max for ask in harness.effects(ReadStore)) <= SMALL.page_bytes_max
    assert offsets(member.messages()) == list(range(1, 201))


@pytest.mark.threat(32)
def test_one_connection_has_one_read_under_way() -> None:
    harness = Harness(SMALL)
    rooms = [f"room {number}" for number in range(5)]
    for name in rooms:
        publish(harness, 3, 1, name)
    member = harness.client()
    harness.store_held = True
    for name in rooms:
        member.send({"type": "$join", "room": name, "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()
    reads = []
    while harness.asks:
        reads.append(len(harness.asks))
        harness.deliver()

    assert set(reads) == {1}
    assert len(offsets(member.messages())) == 15


def test_tails_stay_within_the_budget_of_all_rooms() -> None:
    harness = Harness(HubConfig(tail_bytes_room=2_000, tail_bytes_total=5_000))
    member = harness.client(*(f"room {number}" for number in range(20)))
    for number in range(20):
        publish(harness, 30, 50, f"room {number}")

        assert harness.hub.tail_bytes <= 5_000
    for number in range(20):
        harness.put(Leave(member.conn, f"room {number}"))

    assert harness.hub.tail_bytes == 0


def test_parked_member_reads_what_a_room_skipped() -> None:
    harness = Harness(SMALL)
    slow = harness.client("africa")
    slow.takes = False
    publish(harness, 60, 100)
    harness.log.append_batch([_append("africa", 1), _append("africa", 2)], "")
    harness.put(RoomAdvanced("africa", EPOCH, 62, ()))
    while slow.unflushed:
        slow.flush(1_000)

    assert offsets(slow.messages()) == list(range(1, 63))


def test_member_of_one_room_that_left_another_becomes_a_catch_up_reader() -> None:
    harness = Harness(SMALL)
    slow = harness.client("africa", "asia")
    harness.put(Leave(slow.conn, "asia"))
    slow.takes = False
    publish(harness, 60, 100)
    while slow.unflushed:
        slow.flush(1_000)

    assert offsets(slow.messages()) == list(range(1, 61))


def test_reader_of_several_rooms_is_parked_in_all_and_reads_on_in_turn() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000, page_bytes_max=300))
    slow = harness.client("africa", "asia", "europe")
    slow.takes = False
    for _ in range(40):
        for name in ("africa", "asia", "europe"):
            publish(harness, 1, 50, name)
    before = len(slow.messages())
    while slow.unflushed:
        slow.flush(700)
    rest = slow.messages()
    first = [m["room"] for m in rest[:9]]

    assert before < 100
    assert set(first) == {"africa", "asia", "europe"}  # None of them waits for another one's end.
    for name in ("africa", "asia", "europe"):
        assert [m["off"] for m in rest if m["room"] == name][-1] == 40
    assert harness.effects(ReadStore) == []


def test_reader_that_is_behind_in_one_room_is_parked_in_another() -> None:
    harness = Harness(SMALL, log=filled("africa", 200, 100))
    slow = harness.client("asia")
    slow.takes = False
    slow.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    publish(harness, 60, 100, "asia")
    while slow.unflushed:
        slow.flush(1_000)
    messages = slow.messages()

    assert [m["off"] for m in messages if m.get("room") == "asia" and "off" in m] == list(range(1, 61))
    assert [m["off"] for m in messages if m.get("room") == "africa" and "off" in m] == list(range(1, 201))


# ---- what cannot be read ---------------------------------------------------------------------------


def test_offsets_trimmed_before_a_cursor_are_told_as_a_gap() -> None:
    harness = Harness(SMALL, log=filled(count=10))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 2}}})
    harness.deliver()
    harness.log.trim("africa", 7)
    harness.deliver_all()
    messages = member.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", "$gap", 8, 9, 10, "$live"]
    assert of_type(messages, "$gap") == [{"from": 3, "to": 7, "id": f"{7:020d}"}]


def test_room_trimmed_and_grown_during_a_read_loses_only_what_was_trimmed() -> None:
    harness = Harness(SMALL, log=filled(count=10))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 2}}})
    harness.deliver()  # The read up to 10 is asked now.
    harness.put(harness.log.append_batch([_append("africa", n) for n in range(5)], "").advanced[0])
    harness.log.trim("africa", 12)
    harness.deliver_all()
    messages = member.messages()

    assert of_type(messages, "$gap") == [{"from": 3, "to": 12, "id": f"{12:020d}"}]
    assert offsets(messages) == [13, 14, 15]


def test_room_trimmed_up_to_its_head_is_a_gap_up_to_the_head_and_live() -> None:
    harness = Harness(SMALL, log=filled(count=10))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 2}}})
    harness.deliver()
    harness.log.trim("africa", 10)
    harness.deliver_all()
    messages = member.messages()

    assert [m["type"] for m in messages] == ["$joined", "$gap", "$live"]
    assert of_type(messages, "$gap") == [{"from": 3, "to": 10, "id": f"{10:020d}"}]


def _reading(count: int = 6) -> tuple[Harness, Peer, ReadStore]:
    """A member whose first read of a room of `count` messages is under way; the test answers it by hand."""
    harness = Harness(SMALL, log=filled(count=count))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()
    (ask,) = harness.asks
    harness.asks = []
    assert isinstance(ask, ReadStore)
    return harness, member, ask


def _asked(harness: Harness) -> ReadStore:
    (ask,) = harness.asks
    harness.asks = []
    assert isinstance(ask, ReadStore)
    return ask


@pytest.mark.threat(26)
def test_damaged_row_is_told_as_a_gap_and_its_neighbours_come() -> None:
    harness, member, ask = _reading()
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1), row(2), row(4), row(6))))
    messages = member.messages()

    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 1, 2, "$gap", 4, "$gap", 6, "$live"]
    assert of_type(messages, "$gap") == [{"from": 3, "to": 3, "id": ""}, {"from": 5, "to": 5, "id": ""}]


def test_damaged_rows_at_the_end_are_told_as_a_gap_only_when_nothing_more_can_be_read() -> None:
    harness, member, ask = _reading()
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1), row(2))))
    again = _asked(harness)
    harness.put(StoreRead(again.request, EPOCH, 0, 6, ()))
    messages = member.messages()

    assert (again.after, again.until) == (2, 6)
    assert [m.get("off", m["type"]) for m in messages] == ["$joined", 1, 2, "$gap", "$live"]
    assert of_type(messages, "$gap") == [{"from": 3, "to": 6, "id": ""}]


def test_empty_page_is_no_gap_in_what_came_after_it_was_asked() -> None:
    harness, member, ask = _reading()
    harness.put(RoomAdvanced("africa", EPOCH, 8, (row(7), row(8))))
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, ()))
    again = _asked(harness)
    harness.put(StoreRead(again.request, EPOCH, 0, 8, (row(7), row(8))))
    messages = member.messages()

    assert of_type(messages, "$gap") == [{"from": 1, "to": 6, "id": ""}]
    assert offsets(messages) == [7, 8]


def test_short_page_with_an_unchanged_floor_means_read_again() -> None:
    harness, member, ask = _reading()
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1),)))
    again = _asked(harness)
    harness.put(StoreRead(again.request, EPOCH, 0, 6, tuple(row(off) for off in range(2, 7))))

    assert [m.get("off", m["type"]) for m in member.messages()] == ["$joined", 1, 2, 3, 4, 5, 6, "$live"]


def test_rows_that_were_not_asked_for_are_left_out() -> None:
    harness, member, ask = _reading()
    harness.put(StoreRead(ask.request, EPOCH, 0, 9, tuple(row(off) for off in range(10))))

    assert offsets(member.messages()) == [1, 2, 3, 4, 5, 6]


def test_page_run_before_a_commit_and_told_after_it_is_no_reset() -> None:
    harness, member, ask = _reading()
    harness.put(RoomAdvanced("africa", EPOCH, 7, (row(7),)))
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, tuple(row(off) for off in range(1, 7))))
    again = _asked(harness)
    harness.put(StoreRead(again.request, EPOCH, 0, 7, (row(7),)))

    assert [m.get("off", m["type"]) for m in member.messages()] == ["$joined", 1, 2, 3, 4, 5, 6, "$live", 7]


def test_page_from_a_log_that_went_back_resets_whoever_is_behind_its_head() -> None:
    harness, member, ask = _reading()
    other = harness.client()
    other.send({"type": "$join", "room": "africa"})
    harness.put(StoreRead(ask.request, EPOCH, 1, 4, (row(2),), None, "1", "4"))
    again = _asked(harness)
    harness.put(StoreRead(again.request, EPOCH, 1, 4, (row(2), row(3), row(4)), None, "1", "4"))
    messages = member.messages()

    assert of_type(other.messages(), "$reset") == [
        {"ep": EPOCH, "from": 4, "id": "4", "head": 4, "floor": 1, "reason": "ahead"}
    ]
    assert [m.get("off", m["type"]) for m in messages] == ["$joined", "$reset", "$gap", 2, 3, 4]
    assert of_type(messages, "$gap") == [{"from": 1, "to": 1, "id": "1"}]


def test_page_of_another_epoch_resets() -> None:
    harness, member, ask = _reading()
    harness.put(StoreRead(ask.request, "ep2", 0, 3, (row(1, ep="ep2"),)))
    harness.put(RoomAdvanced("africa", "ep2", 4, (row(4, ep="ep2"),)))
    messages = member.messages()

    assert of_type(messages, "$reset") == [{"ep": "ep2", "from": 3, "id": "", "head": 3, "floor": 0, "reason": "epoch"}]
    assert offsets(messages) == [4]


def test_log_changed_under_live_members_resets_them_and_goes_on() -> None:
    harness = Harness()
    member = harness.client("africa")
    publish(harness, 3)
    harness.put(RoomAdvanced("africa", "ep2", 2, (row(1, ep="ep2"), row(2, ep="ep2"))))
    messages = member.messages()

    assert of_type(messages, "$reset") == [{"ep": "ep2", "from": 0, "id": "", "head": 0, "floor": 0, "reason": "epoch"}]
    assert offsets(messages) == [1, 2, 3, 1, 2]


def test_log_changed_without_entries_resets_to_its_head() -> None:
    harness = Harness()
    member = harness.client("africa")
    harness.put(RoomAdvanced("africa", "ep2", 7, (), "7"))

    assert of_type(member.messages(), "$reset") == [
        {"ep": "ep2", "from": 7, "id": "7", "head": 7, "floor": 0, "reason": "epoch"}
    ]


def test_plain_members_hear_nothing_of_gaps_and_resets() -> None:
    harness = Harness(SMALL, log=filled(count=10))
    member = harness.connect()
    harness.store_held = True
    harness.put(Join(member.conn, "africa", last=8))
    harness.deliver()
    harness.log.trim("africa", 7)
    harness.deliver_all()
    harness.put(RoomAdvanced("africa", "ep2", 0, ()))

    assert [m.get("off", m["type"]) for m in member.messages()] == [8, 9, 10]


def test_late_page_after_leave_is_dropped() -> None:
    harness, member, ask = _reading()
    member.send({"type": "$leave", "room": "africa"})
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1),)))

    assert [m["type"] for m in member.messages()] == ["$joined", "$left"]


def test_late_page_after_a_re_join_is_dropped_and_the_new_place_is_read() -> None:
    harness, member, ask = _reading()
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 4}}})
    harness.deliver()
    harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1), row(2))))
    harness.deliver_all()

    assert [m.get("off", m["type"]) for m in member.messages()] == ["$joined", "$joined", 5, 6, "$live"]


def test_late_page_after_the_end_is_dropped() -> None:
    harness, member, ask = _reading()
    member.vanish()
    effects = harness.put(StoreRead(ask.request, EPOCH, 0, 6, (row(1),)))

    assert effects == []


def test_failed_read_is_asked_again_in_a_while() -> None:
    harness, member, ask = _reading()
    harness.put(StoreFailed(ask.request, "store_unavailable"))
    due = harness.hub.next_deadline()
    before = harness.put(TimePassed())
    harness.store_held = False
    harness.pass_time(SMALL.store_retry_s)

    assert due == 1000.0 + SMALL.store_retry_s
    assert before == []
    assert offsets(member.messages()) == [1, 2, 3, 4, 5, 6]


def test_a_room_that_cannot_be_read_is_asked_ever_less_often_until_it_can() -> None:
    harness, member, ask = _reading()
    pauses: list[float] = []
    for _ in range(8):
        harness.put(StoreFailed(ask.request, "store_unavailable"))
        began = harness.now
        while not harness.asks:
            due = harness.hub.next_deadline()
            assert due is not None
            harness.pass_time(due - harness.now)
        ask = _asked(harness)
        pauses.append(harness.now - began)
        harness.asks = []
    harness.asks = [ask]
    harness.deliver_all()
    well = offsets(member.messages())
    member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()
    ask = _asked(harness)
    harness.put(StoreFailed(ask.request, "store_unavailable"))

    first = SMALL.store_retry_s
    assert pauses == [first * times for times in (1, 2, 4, 8, 16, 16, 16, 16)]
    assert well == [1, 2, 3, 4, 5, 6]
    assert harness.hub.next_deadline() == harness.now + first


@pytest.mark.parametrize("rooms", [("africa", "asia"), ("asia", "africa")])
def test_a_room_that_cannot_be_read_keeps_no_other_room_of_its_members_waiting(rooms: tuple[str, str]) -> None:
    log = filled(count=6)
    for number in range(1, 7):
        log.append_batch([_append("asia", number)], "")
    harness = Harness(SMALL, log=log)
    harness.store_held = True
    member = harness.client()
    for room in rooms:
        member.send({"type": "$join", "room": room, "payload": {"since": {"ep": EPOCH, "off": 0}}})
    for _ in range(40):
        asks, harness.asks = harness.asks, []
        for ask in asks:
            if isinstance(ask, ReadStore) and ask.room == "africa":
                harness.put(StoreFailed(ask.request, "store_unavailable"))
            else:
                harness.put(*run_asks(harness.log, [ask], TS))

    assert [(m["room"], m["off"]) for m in member.messages() if "off" in m] == [("asia", off) for off in range(1, 7)]


def test_failed_read_is_asked_again_once_however_often_the_room_grows() -> None:
    harness, _, ask = _reading()
    harness.put(StoreFailed(ask.request, "store_unavailable"))
    for off in (7, 8, 9):
        harness.put(RoomAdvanced("africa", EPOCH, off, (row(off),)))

    assert harness.asks == []


def test_member_ahead_of_the_room_waits_for_it() -> None:
    harness = Harness(log=filled(count=5))
    harness.store_held = True
    one, two = harness.client(), harness.client()
    one.send({"type": "$join", "room": "africa"})
    harness.deliver()
    advanced = harness.log.append_batch([_append("africa", 1), _append("africa", 2)], "").advanced[0]
    two.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 7}}})
    harness.deliver()  # The answer about 7 comes before the news of 6 and 7.
    first = two.messages()
    harness.put(advanced)
    harness.put(harness.log.append_batch([_append("africa", 3)], "").advanced[0])

    assert [m["type"] for m in first] == ["$joined", "$live"]
    assert first[0]["payload"]["recovered"] is True
    assert offsets(two.messages()) == [8]
    assert offsets(one.messages()) == [6, 7, 8]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_reads_and_commits_in_any_order_lose_and_repeat_nothing(step: int) -> None:
    """Commits, reads and their answers interleave; each member still sees 1, 2, 3, …"""
    for pattern in itertools.product("crd", repeat=6):
        harness = Harness(SMALL, log=filled(count=step))
        harness.store_held = True
        member = harness.client()
        member.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
        waiting: list[Any] = []
        for move in pattern:
            if move == "c":
                harness.put(harness.log.append_batch([_append("africa", 1)], "").advanced[0])
            elif move == "r":
                waiting += harness.run_store()
            elif waiting:
                harness.put(waiting.pop(0))
        harness.deliver(waiting)
        harness.deliver_all()
        messages = member.messages()
        head = harness.log.position("africa").head

        assert offsets(messages) == list(range(1, head + 1)), pattern
        assert [m["type"] for m in messages if m["type"][0] == "$"] == ["$joined", "$live"], pattern


# ---- rooms that are not stored ------------------------------------------------------------------


UNSTORED = HubConfig(unsent_bytes_low=500, unsent_bytes_high=1_000, unstored_rooms=("tmp*",))


def test_messages_dropped_for_a_parked_member_of_an_unstored_room_are_told_by_count() -> None:
    harness = Harness(UNSTORED)
    slow, quick = harness.client("tmp1"), harness.client("tmp1")
    slow.takes = False
    publish(harness, 30, 80, "tmp1")
    seen = len(slow.messages())
    slow.flush()

    assert slow.messages() == [{"type": "$gap", "room": "tmp1", "payload": {"dropped": 30 - seen}}]
    assert len(quick.messages()) == 30


def test_plain_members_of_an_unstored_room_hear_nothing_of_the_drop() -> None:
    harness = Harness(UNSTORED)
    slow = harness.connect()
    harness.put(Join(slow.conn, "tmp1"))
    slow.takes = False
    publish(harness, 30, 80, "tmp1")
    slow.messages()
    slow.flush()

    assert slow.messages() == []


def test_member_that_left_hears_nothing_of_what_was_dropped() -> None:
    harness = Harness(UNSTORED)
    slow = harness.client("tmp1")
    slow.takes = False
    publish(harness, 30, 80, "tmp1")
    slow.messages()
    harness.put(Leave(slow.conn, "tmp1"))
    slow.flush()

    assert slow.messages() == []


def test_unstored_message_in_a_stored_room_goes_to_live_and_asking_members() -> None:
    harness = Harness(SMALL, log=filled(count=60, size=100))
    live = harness.client("africa")
    harness.store_held = True
    asking, behind = harness.client(), harness.client()
    behind.takes = False
    behind.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()
    asking.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 2}}})
    for peer in (live, asking, behind):
        peer.messages()
    harness.put(Publish("africa", "typing", b"{}", store=False))

    assert live.messages() == [{"type": "typing", "room": "africa", "payload": {}}]
    assert asking.types() == ["typing"]
    assert behind.types() == []


def test_stored_room_counts_no_dropped_messages() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=500, unsent_bytes_high=1_000))
    slow = harness.client("africa")
    slow.takes = False
    publish(harness, 12, 80)
    harness.put(Publish("africa", "typing", b"{}", store=False))
    slow.takes = True
    slow.flush()
    messages = slow.messages()

    assert offsets(messages) == list(range(1, 13))
    assert of_type(messages, "$gap") == []


def test_message_to_an_unknown_room_goes_to_nobody() -> None:
    harness = Harness()

    assert harness.put(Publish("nobody", "typing", b"{}", store=False)) == []


def test_publish_that_parks_its_members_reaches_them_all_the_same() -> None:
    harness = Harness(UNSTORED)
    members = [harness.client("tmp1") for _ in range(3)]
    for member in members:
        member.takes = False
    harness.put(Publish("tmp1", "big", encode_json({"x": "y" * 2_000})))

    assert [member.types() for member in members] == [["big"]] * 3
    assert harness.put(Publish("tmp1", "big", b"{}")) == []


def test_bytes_that_were_flushed_of_an_unknown_connection_are_ignored() -> None:
    harness = Harness()

    assert harness.put(BytesFlushed(((99, 5),))) == []


def test_stored_payload_is_relayed_byte_for_byte() -> None:
    harness = Harness()
    member = harness.client("africa")
    payload = '{ "big":123456789012345678901234567890, "f":1.0e+2,"u":"\\u00e9\\/"}'
    member.send('{"type":"chat","room":"africa","payload":' + payload + "}")
    text = bytes(member.out)

    assert payload.encode() in text
    assert json.loads(payload) == member.messages()[0]["payload"]


def test_bytes_of_a_catch_up_are_those_of_the_live_message() -> None:
    harness = Harness(SMALL)
    live = harness.client("africa")
    publish(harness, 3)
    late = harness.client()
    late.join("africa", since={"ep": EPOCH, "off": 0})
    pages = [e.data for e in harness.effects(SendBytes) if e.conn == late.conn and b'"chat"' in e.data]

    assert b"".join(pages) == b"".join(e.data for e in harness.effects(Broadcast))
    assert offsets(live.messages()) == [1, 2, 3]


def test_a_floor_that_a_page_told_is_told_to_the_next_newcomer() -> None:
    harness = Harness(SMALL, log=filled(count=6))
    harness.store_held = True
    member = harness.client()
    member.send({"type": "$join", "ref": "7", "room": "africa", "payload": {"since": {"ep": EPOCH, "off": 0}}})
    harness.deliver()  # The position: nothing was trimmed yet.
    harness.log.trim("africa", 2)
    harness.deliver_all()
    gap = next(message for message in member.messages() if message["type"] == "$gap")
    newcomer = harness.client()
    newcomer.send({"type": "$join", "ref": "8", "room": "africa"})
    joined = next(message for message in newcomer.messages() if message["type"] == "$joined")

    assert gap["payload"] == {"from": 1, "to": 2, "id": f"{2:020d}"}
    assert joined["payload"]["floor"] == 2
