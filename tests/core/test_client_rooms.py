"""The client's rooms and publishes: positions, recovery, slow handlers, answers, and the real hub in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.client_rig import Rig, entry
from vixws_core.client import (
    MOVES,
    ClientCancel,
    ClientClosed,
    ClientConfig,
    ClientJoin,
    ClientLeave,
    ClientMessage,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientStart,
    ClientState,
    ClientStop,
    MessageHandled,
    PublishSettled,
    RequestSettled,
    RoomGap,
    RoomJoined,
    RoomLeft,
    RoomLive,
    RoomReset,
    ServerRefused,
)
from vixws_core.effects import CloseTransport, MessageSkipped, PauseReading, PeerMisbehaved, ResumeReading
from vixws_core.errors import LocalError
from vixws_core.inputs import Disconnected, Since
from vixws_core.wire.frames import BINARY, CLOSE, TEXT, CloseReceived, encode_close, encode_frame


def id_of(off: int) -> str:
    return f"{off:020}"


def offsets(rig: Rig, room: str = "r") -> list[int]:
    """The offsets told of a room, in order."""
    return [message.off for message in rig.of(ClientMessage) if message.room == room]


def error(ref: str, code: str, **more: Any) -> dict[str, Any]:
    return {"type": "$err", "ref": ref, "payload": {"code": code, "msg": "because", **more}}


# ---- joining ------------------------------------------------------------------------------------


def test_a_join_asks_what_it_was_given() -> None:
    rig = Rig()
    rig.open()
    rig.put(
        ClientJoin("fresh"),
        ClientJoin("last", last=50),
        ClientJoin("since", Since("e1", 7, id_of(7)), last=9, from_floor=True),
        ClientJoin("@user/ada", Since("e1", 7)),
    )

    assert [
        {},
        {"last": 50},
        {"since": {"ep": "e1", "off": 7, "id": id_of(7)}, "on_fail": "floor"},
        {"since": {"ep": "e1", "off": 7}},
    ] == [ask["payload"] for ask in rig.sent("$join")]
    assert rig.machine.rooms == ("fresh", "last", "since", "@user/ada")


def test_the_answer_to_a_join_is_told_with_its_position() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientJoin("r", last=2))
    rig.joined("r", 5, head=7, floor=3)
    rig.say(entry("r", 6), entry("r", 7), {"type": "$live", "room": "r", "payload": {"off": 7}})

    assert [RoomJoined("r", "e1", 5, 7, 3, False, "fresh", True)] == rig.of(RoomJoined)
    assert [RoomLive("r", 7)] == rig.of(RoomLive)
    assert offsets(rig) == [6, 7]


@pytest.mark.parametrize("name", ["", "a\x00", "x" * 129, "\u202e", "@", "@\x00"])
def test_a_bad_room_name_is_a_local_error(name: str) -> None:
    rig = Rig()
    for ask in (ClientJoin(name), ClientPublish(1, name, "t"), ClientRequest(1, "$position", name)):
        with pytest.raises(LocalError):
            rig.put(ask)

    assert rig.machine.rooms == ()
    assert rig.machine.publishes_pending == 0


def test_a_second_join_and_a_room_too_many_are_local_errors() -> None:
    rig = Rig(config=ClientConfig(rooms_max=2))
    rig.put(ClientJoin("a"), ClientJoin("b"))
    with pytest.raises(LocalError, match="joined already"):
        rig.put(ClientJoin("a"))
    with pytest.raises(LocalError, match="at most 2"):
        rig.put(ClientJoin("c"))
    rig.put(ClientLeave("a"), ClientLeave("none"), ClientJoin("c"))

    assert rig.machine.rooms == ("b", "c")


def test_a_refused_join_ends_the_wish_and_a_retry_asks_again_later() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientJoin("r"), ClientJoin("busy"))
    rig.put(ClientJoin("later"), ClientRequest(5, "$any"))
    rig.say(error("~j1", "denied"), error("~j2", "rate_limited", retry=True, after_ms=2000))
    rig.say(error("~j3", "internal", retry=True))
    rig.pass_time(0.5)
    assert len(rig.sent("$join", "later")) == 2
    rig.put(ClientLeave("later"))
    assert [RoomLeft("r", "denied", "because"), RoomLeft("later")] == rig.of(RoomLeft)
    assert rig.machine.rooms == ("busy",)
    rig.pass_time(1.4)
    assert len(rig.sent("$join", "busy")) == 1
    rig.pass_time(0.7)

    assert len(rig.sent("$join", "busy")) == 2
    rig.joined("busy")
    assert [joined.room for joined in rig.of(RoomJoined)] == ["busy"]


def test_an_answer_to_an_older_join_is_ignored() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientJoin("r"), ClientLeave("r"), ClientJoin("r"))
    first = rig.sent("$join", "r")[0]["ref"]
    rig.say({"type": "$joined", "ref": first, "room": "r", "payload": {"ep": "e1", "from": 3}}, entry("r", 4))
    rig.say({"type": "$left", "room": "r"}, error(first, "denied"))
    assert rig.of(RoomJoined) == []
    rig.joined("r", 9)
    rig.say(entry("r", 10))

    assert offsets(rig) == [10]
    assert rig.machine.late_dropped == 1


def test_what_still_comes_after_a_leave_is_dropped_until_the_server_says_left() -> None:
    rig = Rig()
    rig.open()
    rig.join("r")
    rig.put(ClientLeave("r"), ClientJoin("r"), ClientLeave("r"))
    left = {"type": "$left", "room": "r"}
    rig.say(entry("r", 1), left, entry("r", 2), left, entry("r", 3), left)

    assert offsets(rig) == [3]
    assert rig.machine.late_dropped == 2
    assert [RoomLeft("r"), RoomLeft("r")] == rig.of(RoomLeft)
    assert rig.machine.positions == {}


def test_messages_of_rooms_the_server_put_us_into_are_told() -> None:
    rig = Rig()
    rig.open()
    rig.say(entry("theirs", 5), {"type": "x", "room": "theirs"})

    assert offsets(rig, "theirs") == [5, 0]
    assert rig.machine.positions == {}


def test_messages_before_the_welcome_are_told_once_open() -> None:
    rig = Rig()
    rig.put(ClientStart(), ClientJoin("r"))
    rig.connect()
    rig.bytes(rig.switching())
    rig.say({"type": "hi"}, "text", {"type": "$joined", "ref": "~j1", "room": "r"}, *(["more"] * 70))
    rig.bytes(encode_frame(BINARY, b"b"))
    assert rig.of(ClientMessage) == []
    rig.say({"type": "$welcome", "ref": "~hello"})

    assert [message.data for message in rig.of(ClientMessage)][:2] == ['{"type": "hi"}', "text"]
    assert len(rig.of(ClientMessage)) == 64
    assert len(rig.of(MessageSkipped)) == 9


def test_a_room_that_is_not_stored_has_no_position() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientJoin("u"))
    rig.say({"type": "$joined", "ref": "~j1", "room": "u", "payload": {"stored": False}})
    rig.say({"type": "x", "room": "u", "payload": {"a": 1}}, {"type": "$gap", "room": "u", "payload": {"dropped": 3}})

    assert [joined.stored for joined in rig.of(RoomJoined)] == [False]
    assert [message.payload for message in rig.of(ClientMessage)] == [b'{"a": 1}']
    assert [RoomGap("u", dropped=3)] == rig.of(RoomGap)
    assert rig.machine.positions == {}
    rig.put(Disconnected(1))
    rig.open()
    assert rig.sent("$join", "u")[-1]["payload"] == {}


# ---- recovery -----------------------------------------------------------------------------------


def test_after_a_loss_each_room_goes_on_from_its_own_cursor() -> None:
    rig = Rig()
    rig.open()
    rig.join("a", 10)
    rig.join("b", 20)
    rig.put(ClientJoin("c", Since("e9", 3, id_of(3))))
    rig.say(entry("a", 11), entry("a", 12))
    rig.put(Disconnected(1))
    rig.open()

    assert [
        {"since": {"ep": "e1", "off": 12, "id": id_of(12)}},
        {"since": {"ep": "e1", "off": 20}},
        {"since": {"ep": "e9", "off": 3, "id": id_of(3)}},
    ] == [ask["payload"] for ask in rig.sent("$join")[-3:]]
    rig.joined("a", 12, recovered=True, head=13, reason=None)
    rig.say(entry("a", 12), entry("a", 13))
    assert offsets(rig, "a") == [11, 12, 13]
    assert rig.machine.duplicates_dropped == 1
    assert rig.of(RoomJoined)[-1].recovered


@pytest.mark.parametrize("reason", ["epoch", "trimmed", "ahead", "fork"])
def test_a_room_that_was_not_recovered_goes_on_where_the_server_says(reason: str) -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say(entry("r", 6))
    rig.put(Disconnected(1))
    rig.open()
    rig.joined("r", 2, ep="e2", reason=reason)
    rig.say(entry("r", 3, ep="e2"))

    assert (False, reason) == (rig.of(RoomJoined)[-1].recovered, rig.of(RoomJoined)[-1].reason)
    assert offsets(rig) == [6, 3]
    assert {"r": ("e2", 3, id_of(3))} == rig.machine.cursors


def test_recovered_to_another_position_is_not_recovered() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.put(Disconnected(1))
    rig.open()
    rig.joined("r", 9, recovered=True)

    assert (rig.of(RoomJoined)[-1].recovered, rig.of(RoomJoined)[-1].reason) == (False, "fork")
    assert len(rig.of(PeerMisbehaved)) == 1


@pytest.mark.parametrize(
    "wrong", [entry("r", 8), entry("r", 7, ep="e2"), {"type": "$gap", "room": "r", "payload": {"from": 9, "to": 12}}]
)
def test_a_jump_without_a_word_is_asked_for(wrong: dict[str, Any]) -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say(entry("r", 6), wrong, entry("r", 9))
    assert {"since": {"ep": "e1", "off": 6, "id": id_of(6)}} == rig.sent("$join", "r")[-1]["payload"]
    assert rig.machine.jumps == 1
    rig.joined("r", 6, recovered=True)
    rig.say(entry("r", 7), entry("r", 8))

    assert offsets(rig) == [6, 7, 8]


def test_a_gap_advances_and_a_reset_replaces_the_cursor() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say(
        {"type": "$gap", "room": "r", "payload": {"from": 6, "to": 9}},
        {"type": "$gap", "room": "r", "payload": {"from": 3, "to": 8}},
        entry("r", 10),
        {"type": "$reset", "room": "r", "payload": {"ep": "e2", "from": 1, "head": 1, "floor": 0, "reason": "epoch"}},
        entry("r", 2, ep="e2"),
    )

    assert [RoomGap("r", 6, 9)] == rig.of(RoomGap)
    assert [RoomReset("r", "e2", 1, 1, 0, "epoch")] == rig.of(RoomReset)
    assert offsets(rig) == [10, 2]
    assert rig.machine.jumps == 0


def test_a_kick_ends_the_membership_until_the_application_joins_again() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say({"type": "$kicked", "room": "r", "payload": {"code": "revoked"}})
    rig.put(Disconnected(1))
    rig.open()

    assert [RoomLeft("r", "revoked")] == rig.of(RoomLeft)
    assert len(rig.sent("$join")) == 1


def test_words_about_rooms_we_are_not_in_are_ignored() -> None:
    rig = Rig()
    rig.open()
    rig.told.clear()
    for kind in ("$joined", "$live", "$gap", "$reset", "$kicked", "$left"):
        rig.say({"type": kind, "room": "x", "payload": {"code": "y"}}, {"type": kind})

    assert rig.told == []


# ---- handling -----------------------------------------------------------------------------------


def test_the_position_moves_when_messages_are_handled_and_all_before_them() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say(
        entry("r", 6), entry("r", 7), {"type": "$gap", "room": "r", "payload": {"from": 8, "to": 9}}, entry("r", 10)
    )
    six, seven, ten = (message.number for message in rig.of(ClientMessage))
    places = [rig.machine.positions["r"]]
    for number in (seven, six, six, ten, 999):
        rig.put(MessageHandled(number))
        places.append(rig.machine.positions["r"])

    assert [place[1] for place in places] == [5, 5, 9, 9, 10, 10]
    assert {"r": ("e1", 10, id_of(10))} == rig.machine.cursors


def test_words_without_messages_cost_no_memory_while_a_handler_is_slow() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.say(entry("r", 6))
    for off in range(1, 200):
        rig.say({"type": "$reset", "room": "r", "payload": {"ep": "e2", "from": off}})

    assert len(rig.machine._rooms._rooms["r"].ledger) == 2
    rig.handle_all()
    assert rig.machine.positions == {"r": ("e2", 199, None)}


def test_a_slow_handler_parks_its_stored_room_and_nothing_is_lost() -> None:
    rig = Rig(config=ClientConfig(room_unhandled_max=4))
    rig.open()
    rig.join("r")
    rig.say(*(entry("r", off) for off in range(1, 9)))
    assert offsets(rig) == [1, 2, 3, 4]
    assert len(rig.sent("$leave", "r")) == 1
    rig.say({"type": "direct"}, {"type": "$left", "room": "r"})
    assert rig.of(PauseReading) == []
    for message in rig.of(ClientMessage)[:2]:
        rig.put(MessageHandled(message.number))
    assert {"since": {"ep": "e1", "off": 4, "id": id_of(4)}} == rig.sent("$join", "r")[-1]["payload"]
    rig.joined("r", 4, recovered=True, head=8)
    rig.say(*(entry("r", off) for off in range(5, 7)))

    assert offsets(rig) == [1, 2, 3, 4, 5, 6]


def test_a_room_parked_over_a_loss_joins_when_it_is_handled() -> None:
    rig = Rig(config=ClientConfig(room_unhandled_bytes_max=1))
    rig.open()
    rig.join("r")
    rig.join("s")
    rig.say(entry("r", 1), entry("r", 2), entry("s", 1), entry("s", 2))
    rig.put(Disconnected(1))
    r, s = rig.of(ClientMessage)
    rig.put(MessageHandled(r.number))
    before = len(rig.sent("$join"))
    rig.open()
    assert [ask["room"] for ask in rig.sent("$join")[before:]] == ["r"]
    rig.put(MessageHandled(s.number))

    assert [ask["room"] for ask in rig.sent("$join")[before:]] == ["r", "s"]


def test_leaving_forgets_what_was_not_handled() -> None:
    rig = Rig(config=ClientConfig(room_unhandled_max=1))
    rig.open()
    rig.join("r")
    rig.say(entry("r", 1), entry("r", 2))
    rig.put(ClientLeave("r"))
    rig.handle_all()

    assert rig.machine._rooms._told == {}
    assert len(rig.sent("$leave", "r")) == 1


def test_other_messages_that_are_not_handled_pause_reading() -> None:
    rig = Rig(config=ClientConfig(unhandled_max=100))
    rig.open()
    rig.say(*(["m"] * 300))
    first = len(rig.of(ClientMessage))
    assert 100 <= first < 164
    assert [PauseReading(1)] == rig.of(PauseReading)
    rig.say("late")
    assert first == len(rig.of(ClientMessage))
    rig.handle_all()
    assert [ResumeReading(1)] == rig.of(ResumeReading)[:1]
    for _ in range(5):
        rig.handle_all()

    assert [message.data for message in rig.of(ClientMessage)] == ["m"] * 300 + ["late"]
    assert len(rig.of(PauseReading)) == len(rig.of(ResumeReading))


def test_while_reading_is_paused_no_byte_is_demanded() -> None:
    rig = Rig(config=ClientConfig(unhandled_bytes_max=1))
    rig.open()
    rig.pass_time(25)
    rig.say("m")
    rig.pass_time(500)
    assert ClientState.OPEN is rig.machine.state
    assert len(rig.sent("$ping")) == 21
    rig.handle_all()
    rig.pass_time(50)

    assert ClientState.OPEN is not rig.machine.state


def test_a_handler_that_waits_for_an_answer_is_read_for_up_to_a_limit() -> None:
    rig = Rig(config=ClientConfig(unhandled_max=10))
    rig.open()
    rig.put(ClientPublish(1, "r", "t"))
    rig.say(*(["m"] * 60))
    assert rig.of(PauseReading) == []
    assert len(rig.of(ClientMessage)) == 40
    assert len(rig.of(MessageSkipped)) == 20
    rig.say({"type": "$ack", "ref": "~p1", "payload": {}})

    assert [PauseReading(1)] == rig.of(PauseReading)
    assert [settled.ok for settled in rig.of(PublishSettled)] == [True]
    rig.put(ClientPublish(2, "r", "t"))
    assert [ResumeReading(1)] == rig.of(ResumeReading)


# ---- publishing ---------------------------------------------------------------------------------


def test_a_publish_is_answered_once_with_its_place() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t", b'{"a":1}', "note", "key"), ClientPublish(2, "u", "t"))
    first, second = rig.sent("t")
    assert first == {"type": "t", "room": "r", "ref": "~p1", "mid": "key", "kind": "note", "payload": {"a": 1}}
    ack = {"type": "$ack", "ref": "~p1", "payload": {"mid": "key", "ep": "e1", "off": 3, "id": "i", "dup": True}}
    rig.say(ack, ack, {"type": "$ack", "ref": "~p2", "payload": {"ep": None}}, {"type": "$ack", "ref": "~p9"})

    assert [
        PublishSettled(1, True, "key", "e1", 3, "i", True),
        PublishSettled(2, True, second["mid"]),
    ] == rig.of(PublishSettled)
    assert rig.machine.publishes_pending == 0


def test_publishes_without_an_answer_are_sent_again_in_order_with_their_keys() -> None:
    rig = Rig()
    rig.put(ClientPublish(1, "r", "t", b'{"n":1}'), ClientPublish(2, "r", "t", b'{"n":2}', mid="mine"))
    rig.open()
    rig.put(ClientPublish(3, "r", "t", b'{"n":3}'))
    rig.say({"type": "$ack", "ref": "~p2", "payload": {"off": 1}})
    rig.put(Disconnected(1))
    rig.open()

    sent = rig.sent("t")
    assert [item["payload"]["n"] for item in sent] == [1, 2, 3, 1, 3]
    assert sent[0] == sent[3]
    assert len({item["mid"] for item in sent} | {"mine", "x"}) == 4
    assert rig.machine.publishes_pending == 2


@pytest.mark.parametrize("code", ["denied", "mid_conflict", "bad_message", "too_large"])
def test_a_final_error_settles_a_publish(code: str) -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t", mid="k"))
    rig.say(error("~p1", code))

    assert [PublishSettled(1, False, "k", code=code, message="because")] == rig.of(PublishSettled)


def test_an_error_to_try_again_holds_up_what_follows_and_keeps_its_order() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t", b'{"n":1}'))
    rig.say(error("~p1", "rate_limited", retry=True, after_ms=1200))
    rig.put(ClientPublish(2, "r", "t", b'{"n":2}'))
    rig.pass_time(1.1)
    assert [item["payload"]["n"] for item in rig.sent("t")] == [1]
    rig.pass_time(0.7)

    assert [item["payload"]["n"] for item in rig.sent("t")] == [1, 1, 2]
    assert rig.machine.publishes_pending == 2


def test_what_is_in_flight_when_an_earlier_one_is_refused_is_not_sent_again() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t", b'{"n":1}'), ClientPublish(2, "r", "t", b'{"n":2}'))
    rig.say(error("~p1", "internal", retry=True))
    rig.pass_time(1)

    assert [item["payload"]["n"] for item in rig.sent("t")] == [1, 2, 1]


def test_the_pause_after_errors_grows_and_an_ack_ends_it() -> None:
    rig = Rig(config=ClientConfig(ping_interval_s=0))
    rig.open()
    rig.put(ClientPublish(1, "r", "t"))
    for _ in range(40):
        rig.say(error("~p1", "store_unavailable", retry=True))
        rig.wait()
    assert len(rig.sent("t")) == 41
    assert rig.now > 200
    rig.say({"type": "$ack", "ref": "~p1", "payload": {}})
    rig.put(ClientPublish(2, "r", "t"))
    rig.say(error("~p2", "store_full", retry=True), error("~p2", "store_full", retry=True))
    deadline = rig.machine.next_deadline()
    assert deadline is not None
    assert deadline - rig.now <= 0.5


def test_many_publishes_refused_together_count_as_one_failure() -> None:
    rig = Rig(config=ClientConfig(ping_interval_s=0))
    rig.open()
    for number in range(1, 101):
        rig.put(ClientPublish(number, "r", "t"))
    rig.say(*(error(f"~p{number}", "store_full", retry=True) for number in range(1, 101)))
    deadline = rig.machine.next_deadline()

    assert deadline is not None
    assert deadline - rig.now <= 0.5


def test_a_publish_answered_internal_five_times_has_failed_unless_others_succeed() -> None:
    rig = Rig(config=ClientConfig(ping_interval_s=0))
    rig.open()
    rig.put(ClientPublish(1, "r", "t", mid="k"))
    for turn in range(8):
        if turn == 3:
            rig.put(ClientPublish(2, "r", "t"))
            rig.say({"type": "$ack", "ref": "~p2", "payload": {}})
        rig.say(error("~p1", "internal", retry=True))
        if turn < 7:
            assert rig.machine.publishes_pending == 1
            rig.pass_time(30)

    assert [(settled.request, settled.ok) for settled in rig.of(PublishSettled)] == [(2, True), (1, False)]
    assert rig.of(PublishSettled)[-1].code == "internal"


@pytest.mark.parametrize(("code", "name"), [(1009, "too_large"), (1011, "internal")])
def test_the_oldest_publish_is_failed_after_the_server_closed_on_it_five_times(code: int, name: str) -> None:
    rig = Rig()
    rig.put(ClientPublish(1, "r", "t", mid="k"), ClientPublish(2, "r", "t"))
    for turn in range(5):
        assert rig.machine.publishes_pending == 2
        rig.open()
        rig.bytes(encode_close(code, "") if turn else encode_close(code))
    settled = rig.of(PublishSettled)[0]

    assert (1, False, name) == (settled.request, settled.ok, settled.code)
    assert rig.machine.publishes_pending == 1


def test_what_is_larger_than_the_server_takes_is_settled_here() -> None:
    rig = Rig()
    rig.put(ClientPublish(1, "r", "t", b'{"a":"%b"}' % (b"x" * 1000)), ClientPublish(2, "r", "t"))
    rig.open(limits={"message_bytes": 1000})

    assert [(settled.request, settled.code) for settled in rig.of(PublishSettled)] == [(1, "too_large")]
    assert len(rig.sent("t")) == 1
    with pytest.raises(LocalError, match="the server takes 1000"):
        rig.put(ClientSend(b"x" * 1001))


@pytest.mark.parametrize(
    "ask",
    [
        ClientPublish(9, "r", ""),
        ClientPublish(9, "r", "$ack"),
        ClientPublish(9, "r", "\ud800"),
        ClientPublish(9, "r", "t", mid=""),
        ClientPublish(9, "r", "t", mid="m" * 129),
        ClientPublish(1, "r", "t"),
        ClientRequest(1, "$position", "r"),
    ],
)
def test_a_bad_publish_or_request_is_a_local_error_and_changes_nothing(ask: Any) -> None:
    rig = Rig()
    rig.put(ClientPublish(1, "r", "t"), ClientRequest(1, "$position", "r"))
    with pytest.raises(LocalError):
        rig.put(ask)

    assert rig.machine.publishes_pending == 1


def test_the_outbox_is_bounded_in_count_bytes_and_requests() -> None:
    rig = Rig(config=ClientConfig(publishes_max=3, publish_bytes_max=500, requests_max=2))
    rig.put(ClientPublish(1, "r", "t"), ClientPublish(2, "r", "t"))
    with pytest.raises(LocalError, match="500 bytes"):
        rig.put(ClientPublish(3, "r", "t", b'{"a":"%b"}' % (b"x" * 500)))
    rig.put(ClientPublish(3, "r", "t"))
    with pytest.raises(LocalError, match="at most 3"):
        rig.put(ClientPublish(4, "r", "t"))
    rig.put(ClientRequest(1, "$position", "r"), ClientRequest(2, "$position", "r"))
    with pytest.raises(LocalError, match="2 requests"):
        rig.put(ClientRequest(3, "$position", "r"))
    rig.put(ClientCancel(1), ClientCancel(7), ClientRequest(3, "$position", "r"))
    rig.open()

    assert [ask["ref"] for ask in rig.sent("$position")] == ["~q2", "~q3"]


def test_requests_are_answered_once_and_sent_again_after_a_loss() -> None:
    rig = Rig()
    rig.put(ClientRequest(1, "$history", "r", b'{"limit":5}'), ClientRequest(2, "$position", "r"))
    rig.open()
    rig.put(Disconnected(1))
    rig.open()
    page = {"type": "$page", "ref": "~q1", "room": "r", "payload": {"messages": [], "more": False}}
    rig.say(page, page, error("~q2", "store_unavailable", retry=True))

    assert len(rig.sent("$history")) == 2
    assert [
        RequestSettled(1, True, "$page", b'{"messages": [], "more": false}'),
        RequestSettled(2, False, code="store_unavailable", message="because", retry=True),
    ] == rig.of(RequestSettled)
    assert len(rig.of(MessageSkipped)) == 1


def test_a_strange_answer_to_a_publish_is_the_servers_fault() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t"))
    rig.say({"type": "$page", "ref": "~p1"}, {"type": "$ack", "ref": "~p1", "payload": {"off": "x"}})

    assert len(rig.of(PeerMisbehaved)) == 2
    assert rig.machine.publishes_pending == 1


def test_an_error_without_a_question_is_told() -> None:
    rig = Rig()
    rig.open()
    rig.say(
        {"type": "$err", "payload": {"code": "bad_json", "msg": "no"}}, error("mine", "denied"), error("~hello", "x")
    )

    assert [ServerRefused("bad_json", "no"), ServerRefused("denied", "because", "mine")] == rig.of(ServerRefused)[:2]


# ---- the end ------------------------------------------------------------------------------------


def test_a_stop_closes_and_waits_for_the_server() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t"), ClientPublish(2, "r", "t"), ClientPublish(3, "r", "t"))
    rig.put(ClientStop(1000, "bye"), ClientStop())
    assert CloseReceived(1000, "bye") == rig.received[-1]
    ack = {"type": "$ack", "ref": "~p1", "payload": {"off": 1}}
    rig.say({"type": "x"}, {"type": "$ping"}, ack, error("~p2", "denied"))
    rig.bytes(encode_frame(0x9, b"ping") + encode_close(1000, ""))

    assert CloseReceived(1000, "bye") == rig.received[-1]
    assert [ClientClosed(1000, "", False)] == rig.of(ClientClosed)
    assert [(settled.request, settled.ok, settled.code) for settled in rig.of(PublishSettled)] == [
        (1, True, ""),
        (2, False, "denied"),
        (3, False, "closed"),
    ]
    assert rig.of(ClientMessage) == []
    assert CloseTransport(1) in rig.told
    assert rig.machine.next_deadline() is None


def test_a_stop_that_the_server_ignores_ends_after_five_seconds() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientStop(4000))
    assert rig.now + 5 == rig.machine.next_deadline()
    rig.wait()

    assert (rig.of(ClientClosed)[0].code, rig.of(ClientClosed)[0].reconnecting) == (1006, False)
    assert CloseTransport(1, True) in rig.told


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_stop_before_the_connection_is_open_is_at_once(steps: int) -> None:
    rig = Rig()
    if steps > 0:
        rig.put(ClientStart())
    if steps > 1:
        rig.connect()
    if steps > 2:
        rig.put(Disconnected(1))
    rig.put(ClientStop(), ClientStop())

    assert [ClientClosed(1000, "", False)] == rig.of(ClientClosed)[-1:]
    assert ClientState.STOPPED is rig.machine.state
    assert (steps in (1, 2)) == (CloseTransport(1, True) in rig.told)


def test_a_stop_while_greeting_says_goodbye() -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    rig.bytes(rig.switching())
    rig.put(ClientStop())
    rig.say({"type": "$welcome", "ref": "~hello"}, error("~hello", "denied"))
    rig.bytes(encode_close(1000))

    assert [ClientClosed(1000, "", False)] == rig.of(ClientClosed)


def test_a_stopped_client_can_be_started_again_and_knows_its_rooms() -> None:
    rig = Rig()
    rig.open()
    rig.join("r", 5)
    rig.put(ClientStop())
    rig.bytes(encode_close(1000))
    rig.open()

    assert rig.sent("$join", "r")[-1]["payload"] == {"since": {"ep": "e1", "off": 5}}


@pytest.mark.parametrize("code", [0, 999, 1002, 1005, 1006, 2000, 5000])
def test_a_close_code_that_may_not_be_sent_is_a_local_error(code: int) -> None:
    rig = Rig()
    rig.open()
    with pytest.raises(LocalError, match="close code"):
        rig.put(ClientStop(code))


def test_sending_is_possible_only_while_open() -> None:
    rig = Rig()
    with pytest.raises(LocalError, match="idle"):
        rig.put(ClientSend(b"x"))


@pytest.mark.parametrize(("retry", "state"), [(True, ClientState.WAITING), (False, ClientState.STOPPED)])
def test_a_refused_hello_ends_or_comes_back(retry: bool, state: ClientState) -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    rig.bytes(rig.switching())
    rig.say(error("~hello", "denied", retry=retry))

    assert state is rig.machine.state
    assert "$hello was refused: denied" in rig.of(ClientClosed)[0].reason


@pytest.mark.parametrize(
    "payload", [{"limits": 5}, {"session": 7}, {"reconnect_ms": -1}, {"limits": {"message_bytes": 0}}]
)
def test_a_bad_welcome_ends_in_back_off(payload: dict[str, Any]) -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    rig.bytes(rig.switching())
    rig.say({"type": "$welcome", "ref": "other"}, {"type": "$welcome", "ref": "~hello", "payload": payload})

    assert (rig.of(ClientClosed)[0].code, rig.of(ClientClosed)[0].reconnecting) == (1002, True)
    assert CloseReceived(1002, "a good $welcome is expected") == rig.received[-1]


def test_a_second_welcome_is_ignored() -> None:
    rig = Rig()
    rig.open()
    rig.told.clear()
    rig.say({"type": "$welcome", "ref": "~hello", "payload": {"limits": 5}})

    assert rig.told == []


def test_the_session_is_shown_at_the_next_connection() -> None:
    rig = Rig()
    rig.open(session="s_1")
    rig.put(Disconnected(1))
    rig.open(session="s_2", resumed=True)

    assert [hello["payload"]["session"] for hello in rig.sent("$hello")] == [None, "s_1"]


HOSTILE_FRAMES = {
    "masked": (b"\x81\x82\x00\x00\x00\x00hi", 1002),
    "reserved bit": (b"\xc1\x02hi", 1002),
    "reserved opcode": (b"\x83\x00", 1002),
    "long ping": (b"\x89\x7e\x00\x7e" + b"x" * 126, 1002),
    "fragmented close": (b"\x08\x00", 1002),
    "lone continuation": (b"\x80\x00", 1002),
    "not UTF-8": (b"\x81\x01\xff", 1007),
    "oversize by its header": (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
    "one byte over": (b"\x82\x7f" + (1_048_577).to_bytes(8, "big"), 1009),
    "over by fragments": (b"\x01\x7f" + (1_048_576).to_bytes(8, "big") + b"x" * 1_048_576 + b"\x80\x01x", 1009),
    "close code of one byte": (bytes((0x80 | CLOSE, 1, 3)), 1002),
    "close code 1005": (bytes((0x80 | CLOSE, 2)) + (1005).to_bytes(2, "big"), 1002),
}


@pytest.mark.parametrize("name", list(HOSTILE_FRAMES))
@pytest.mark.threat(36)
def test_row_36_a_broken_frame_closes_with_its_code_and_backs_off(name: str) -> None:
    data, code = HOSTILE_FRAMES[name]
    rig = Rig()
    rig.open()
    rig.bytes(data + encode_frame(TEXT, b"after"))

    assert (code, True) == (rig.of(ClientClosed)[0].code, rig.of(ClientClosed)[0].reconnecting)
    assert code == rig.received[-1].code
    assert rig.of(ClientMessage) == []


@pytest.mark.threat(36)
def test_row_36_deep_json_is_text_and_nothing_more() -> None:
    rig = Rig()
    rig.open()
    deep = '{"type":"x","payload":' + "[" * 100_000 + "]" * 100_000 + "}"
    rig.say(deep, '{"type":"x","payload":[1]}', '{"type":""}', '{"type":"x","off":-1}', "{", '{"type":"\\ud800"}')

    assert len(rig.of(ClientMessage)) == 6
    assert {""} == {message.type for message in rig.of(ClientMessage)}


def test_a_broken_frame_after_our_close_is_not_answered() -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientStop())
    rig.bytes(b"\xff\xff")

    assert [ClientClosed(1002, rig.of(ClientClosed)[0].reason, False)] == rig.of(ClientClosed)
    assert len([item for item in rig.received if isinstance(item, CloseReceived)]) == 1


def test_an_unasked_pong_is_only_a_byte() -> None:
    rig = Rig()
    rig.open()
    rig.told.clear()
    rig.bytes(encode_frame(0xA, b"x"))

    assert rig.told == []


def test_every_state_has_its_moves() -> None:
    assert set(ClientState) == set(MOVES)
    assert set(ClientState) - {ClientState.IDLE} == set().union(*MOVES.values())
