"""Why somebody did, or did not, get a message: each case is driven through a hub, written down, replayed and asked."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tests.core.harness import EPOCH, Harness, Peer, close_frame, upgrade_request
from tests.core.tracing import explain
from vixws_core import HubConfig
from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.config import Policy
from vixws_core.effects import Authorize, FindPosition, ReadStore
from vixws_core.errors import BadRoom
from vixws_core.inputs import (
    Accept,
    Authorized,
    Close,
    Connected,
    Input,
    Join,
    Leave,
    Publish,
    Respond,
    Revoke,
    RoomAdvanced,
    Send,
    Shutdown,
    StoreFailed,
    StoreRead,
)
from vixws_core.message import StoredMessage

ROOM = "africa"
SMALL = HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000, tail_bytes_room=1)
ASKING = Policy(authorized=True)


def publish(harness: Harness, count: int, size: int = 10) -> None:
    for _ in range(count):
        harness.put(Publish(ROOM, "chat", b'{"text":"%b"}' % (b"x" * size)))


def member(harness: Harness, **since: object) -> Peer:
    """A client that said `$hello` and joined."""
    peer = harness.client()
    peer.join(ROOM, **since)
    return peer


def first(harness: Harness, conn: int, off: int, policy: Policy | None = None) -> str:
    """The answer itself."""
    return explain(harness, conn, ROOM, off, policy)[0]


# ---- it was sent ----------------------------------------------------------------------------------


def test_who_was_sent_it_is_told_when_and_that_it_was_flushed() -> None:
    harness = Harness()
    peer = member(harness)
    publish(harness, 2)

    lines = explain(harness, peer.conn, ROOM, 2)

    assert lines[0].startswith(f"Yes: connection {peer.conn} was sent offset 2 of room 'africa' at step ")
    assert "all its bytes were handed to the operating system" in lines[0]
    assert any("type chat, id 00000000000000000002" in line for line in lines)


def test_who_was_sent_it_and_took_no_bytes_is_told_apart() -> None:
    harness = Harness()
    peer = member(harness)
    peer.takes = False
    publish(harness, 1)
    waits = first(harness, peer.conn, 1)
    peer.vanish("reset by peer")
    lost = first(harness, peer.conn, 1)

    assert "were not handed to the operating system: the trace ends before they were" in waits
    assert "the client did not get them all" in lost


def test_bytes_that_were_flushed_of_another_message_do_not_count() -> None:
    harness = Harness()
    peer = member(harness)
    peer.takes = False
    publish(harness, 2)
    peer.flush(peer.unflushed // 2)

    assert "and all its bytes were handed" in first(harness, peer.conn, 1)
    assert "were not handed" in first(harness, peer.conn, 2)


def test_what_was_read_from_the_log_or_came_in_a_page_of_history_is_told_apart() -> None:
    harness = Harness(SMALL)
    publish(harness, 5)
    reader = member(harness, since={"ep": EPOCH, "off": 0})
    asker = member(harness)
    asker.send({"type": "$history", "ref": "h", "room": ROOM, "payload": {"limit": 5}})

    assert "was sent offset 3 of room 'africa', read from the log, at" in first(harness, reader.conn, 3)
    assert first(harness, asker.conn, 3).startswith("Only as an answer to its $history")


# ---- it was no member -----------------------------------------------------------------------------


def test_who_never_joined_never_was_a_member() -> None:
    harness = Harness()
    peer = harness.client()
    publish(harness, 1)

    assert first(harness, peer.conn, 1).endswith("for it never was a member of the room.")


def test_a_connection_that_is_not_in_the_trace_is_named_with_those_that_are() -> None:
    harness = Harness()
    member(harness)
    member(harness)

    assert first(harness, 99, 1) == "No: there is no connection 99 in this trace; they go from 1 to 2."


def test_who_joined_later_is_told_its_later_position() -> None:
    harness = Harness()
    publish(harness, 3)
    peer = member(harness)
    publish(harness, 1)

    assert "with a later position, behind offset 3 (it joined without a position" in first(harness, peer.conn, 2)


def test_who_came_back_with_a_position_of_another_log_is_told_so() -> None:
    harness = Harness()
    publish(harness, 3)
    peer = member(harness, since={"ep": "other", "off": 1})

    assert "the position that it came with is of another log (epoch)" in first(harness, peer.conn, 2)


def test_a_client_that_never_said_hello_has_its_place_told_as_well() -> None:
    harness = Harness()
    publish(harness, 3)
    peer = harness.connect()
    harness.put(Join(peer.conn, ROOM, last=1))

    assert "with a later position, behind offset 2" in first(harness, peer.conn, 1)
    assert first(harness, peer.conn, 3).startswith("Yes: ")


@pytest.mark.parametrize("by", ["client", "application"])
def test_who_left_before_is_told_who_took_it_out(by: str) -> None:
    harness = Harness()
    peer = member(harness)
    if by == "client":
        peer.send({"type": "$leave", "ref": "l", "room": ROOM})
    else:
        harness.put(Leave(peer.conn, ROOM))
    publish(harness, 1)

    words = {"client": "it left, by $leave", "application": "the application took it out of the room"}[by]
    assert "its membership had ended before, at step " in first(harness, peer.conn, 1)
    assert words in first(harness, peer.conn, 1)


def test_who_joined_again_behind_it_is_told_of_both_memberships() -> None:
    harness = Harness(SMALL)
    peer = member(harness)
    peer.send({"type": "$leave", "ref": "l", "room": ROOM})
    publish(harness, 2)
    peer.join(ROOM)

    lines = explain(harness, peer.conn, ROOM, 1)

    assert "with a later position, behind offset 2" in lines[0]
    assert len([line for line in lines if line.startswith("a member at step")]) == 2


# ---- its connection was over ----------------------------------------------------------------------


def test_who_closed_before_is_told_how() -> None:
    harness = Harness()
    ends: dict[int, str] = {}
    peer = member(harness)
    peer.raw(close_frame(1000))
    ends[peer.conn] = "its client closed it with 1000 (done)"
    peer = member(harness)
    peer.vanish("reset by peer")
    ends[peer.conn] = "its transport ended, reset by peer"
    peer = member(harness)
    harness.put(Close(peer.conn, 4500, "bye"))
    ends[peer.conn] = "the application closed it with 4500, bye"
    peer = member(harness)
    peer.raw(b"\xff\xff\xff")
    ends[peer.conn] = "as its client broke a rule (protocol_error"
    publish(harness, 1)

    for conn, words in ends.items():
        assert words in first(harness, conn, 1)


def test_whose_session_was_taken_over_is_told_by_whom() -> None:
    harness = Harness()
    old = harness.client()
    token = harness.connect().answer({"type": "$hello", "payload": {"v": [1]}})["payload"]["session"]
    mine = max(harness.peers)
    harness.peers[mine].join(ROOM)
    new = harness.connect()
    new.send({"type": "$hello", "payload": {"v": [1], "session": token}})
    publish(harness, 1)

    assert f"connection {new.conn} took its session over; it was closed with 4009" in first(harness, mine, 1)
    assert first(harness, old.conn, 1).endswith("for it never was a member of the room.")


def test_who_was_drained_or_idle_is_told_by_what() -> None:
    harness = Harness(HubConfig(idle_timeout_s=5, ping_interval_s=0))
    idle = member(harness)
    harness.run_until(harness.now + 6)
    drained = member(harness)
    harness.put(Shutdown(2.0))
    harness.put(RoomAdvanced(ROOM, EPOCH, 1, ()))

    assert "the server closed it with 1001" in first(harness, idle.conn, 1)
    harness.run_until(harness.now + 3)
    publish(harness, 1)
    assert "the server closed it with 4200" in explain(harness, drained.conn, ROOM, 1)[0]


def test_who_never_was_let_in_is_told_the_status() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    harness.put(Respond(peer.conn, 403))
    harness.accepting = True
    member(harness)
    publish(harness, 1)

    assert "for it never was open: its request was answered with HTTP 403" in first(harness, peer.conn, 1)


# ---- it waits -------------------------------------------------------------------------------------


def test_a_slow_reader_is_told_that_it_took_nothing() -> None:
    harness = Harness(SMALL)
    peer = member(harness)
    peer.takes = False
    publish(harness, 20, 1_000)

    assert "at the end of the trace it still waits: it did not take what it was sent" in first(harness, peer.conn, 20)
    peer.vanish()
    assert "its membership ended at step" in first(harness, peer.conn, 20)
    assert "while it waited: it did not take what it was sent" in first(harness, peer.conn, 20)


def test_whose_room_cannot_be_read_is_told_how_the_store_failed() -> None:
    harness = Harness(SMALL)
    publish(harness, 5)
    harness.store_held = True
    peer = harness.client()
    peer.join(ROOM, since={"ep": EPOCH, "off": 0})
    harness.deliver()
    (ask,) = harness.asks
    harness.asks = []
    assert isinstance(ask, ReadStore)
    assert "a page of the log was asked for, and had not come" in first(harness, peer.conn, 1)
    harness.put(StoreFailed(ask.request, STORE_UNAVAILABLE))

    assert f"the log could not be read ({STORE_UNAVAILABLE} at step" in first(harness, peer.conn, 1)


def test_whose_position_is_asked_for_is_told_so_and_a_refused_join_its_code() -> None:
    harness = Harness()
    publish(harness, 1)
    other = member(harness)
    harness.store_held = True
    peer = harness.client()
    peer.join(ROOM, last=1)
    (ask,) = harness.asks
    harness.asks = []
    assert isinstance(ask, FindPosition)
    assert "its position was being asked of the log" in first(harness, peer.conn, 1)
    harness.put(StoreFailed(ask.request, STORE_UNAVAILABLE))

    assert f"its join was refused with $err {STORE_UNAVAILABLE}" in first(harness, peer.conn, 1)
    assert other.conn != peer.conn


# ---- it was told of a gap, or of another log --------------------------------------------------------


def reading(count: int = 6) -> tuple[Harness, Peer, int]:
    """A member whose first read of a room is under way; the number of the question."""
    harness = Harness(SMALL)
    publish(harness, count)
    harness.store_held = True
    peer = harness.client()
    peer.join(ROOM, since={"ep": EPOCH, "off": 0})
    harness.deliver()
    (ask,) = harness.asks
    assert isinstance(ask, ReadStore)
    return harness, peer, ask.request


def row(off: int, payload: bytes = b"{}") -> StoredMessage:
    return StoredMessage(f"{off:020d}", "event", ROOM, "chat", "", payload, EPOCH, off)


def test_what_was_trimmed_is_told_with_the_gap() -> None:
    harness, peer, _ = reading()
    harness.log.trim(ROOM, 4)
    harness.deliver_all()

    assert "it was trimmed: the log begins behind 4 by now; it was told $gap from 1 to 4" in first(
        harness, peer.conn, 3
    )
    assert first(harness, peer.conn, 5).startswith("Yes: ")


def test_what_is_damaged_and_what_nobody_can_read_are_told_apart() -> None:
    harness, peer, request = reading()
    harness.put(StoreRead(request, EPOCH, 0, 6, (row(1), row(3, b"no json"), row(4), row(5), row(6))))

    assert "the log has no such entry any more: it is damaged, or was lost; it was told $gap" in first(
        harness, peer.conn, 2
    )
    assert "the log has it, but no client could read it" in first(harness, peer.conn, 3)


def test_who_was_told_reset_is_told_why() -> None:
    harness = Harness(SMALL)
    publish(harness, 2)
    backup = deepcopy(harness.log)
    publish(harness, 2)
    peer = member(harness, since={"ep": EPOCH, "off": 4})
    peer.takes = False
    publish(harness, 12, 1_000)
    harness.log = deepcopy(backup)
    harness.put(RoomAdvanced(ROOM, "e2", 20, (), None))

    answer = first(harness, peer.conn, 16)

    assert "the room has another log now (epoch): it was told $reset, and goes on behind 20" in answer
    assert any("epochs: ep1 at step" in line for line in explain(harness, peer.conn, ROOM, 16))


# ---- rights ---------------------------------------------------------------------------------------


def asking() -> tuple[Harness, Peer]:
    """A hub that asks what is allowed, and a client, ada, who wants to join."""
    harness = Harness(policy=ASKING)
    harness.accepting = False
    peer = harness.connect()
    harness.put(Accept(peer.conn, user="ada"))
    peer.hello()
    peer.join(ROOM)
    return harness, peer


def grant(harness: Harness, *actions: str) -> None:
    harness.put(Authorized(harness.effects(Authorize)[-1].request, actions))


def test_who_was_not_granted_it_is_told_so() -> None:
    harness, peer = asking()
    publish(harness, 1)
    assert "the application was asked whether it may join, and has not answered" in first(harness, peer.conn, 1, ASKING)
    grant(harness)

    lines = explain(harness, peer.conn, ROOM, 1, ASKING)

    assert "never was a member of the room: at step" in lines[0]
    assert "it was answered $err denied" in lines[0]
    assert any("the application did not grant join" in line for line in lines)


def test_who_was_held_or_kicked_is_told_so() -> None:
    harness, peer = asking()
    grant(harness, "join")
    harness.put(Revoke("ada", ROOM))
    publish(harness, 1)
    assert "it still waits: whether it may stay was being asked" in first(harness, peer.conn, 1, ASKING)
    grant(harness)

    answer = first(harness, peer.conn, 1, ASKING)

    assert "it was put out ($kicked, revoked): its right to be there was over" in answer
    assert "while it waited: whether it may stay was being asked of the application" in answer


def test_a_join_of_the_application_that_failed_is_told() -> None:
    harness = Harness()
    peer = harness.client()
    asked: Input = Join(peer.conn, "@user/eve")
    with pytest.raises(BadRoom):
        harness.put(asked)
    harness.steps.append((harness.now, asked, "BadRoom"))  # type: ignore[arg-type]  # as a trace has it
    harness.put(RoomAdvanced("@user/eve", EPOCH, 1, ()))

    assert "the application's join failed: BadRoom" in explain(harness, peer.conn, "@user/eve", 1)[0]


# ---- there is no such message ----------------------------------------------------------------------


def test_an_offset_that_never_was_is_told_with_the_repeats() -> None:
    harness = Harness()
    peer = member(harness)
    peer.publish(ROOM, mid="m1")
    peer.publish(ROOM, mid="m1")

    lines = explain(harness, peer.conn, ROOM, 2)

    assert "for the hub was never told of it: the log ends with 1" in lines[0]
    assert "(mid m1) was a repeat of offset 1, and got none" in lines[0]
    assert any("published again at step" in line for line in explain(harness, peer.conn, ROOM, 1))


def test_what_the_store_refused_is_told() -> None:
    harness = Harness()
    peer = member(harness)
    peer.publish(ROOM, mid="m1")
    peer.publish(ROOM, "another", mid="m1")

    assert "the store refused what was published" in first(harness, peer.conn, 2)


def test_a_room_that_is_not_stored_has_no_offsets() -> None:
    harness = Harness(HubConfig(unstored_rooms=("tmp.*",)))
    peer = harness.client("tmp.x")

    assert explain(harness, peer.conn, "tmp.x", 1)[0].startswith("Room 'tmp.x' is not stored")


def test_a_connection_without_an_address_is_from_somewhere() -> None:
    harness = Harness()
    harness.put(Connected(7))
    publish(harness, 1)
    harness.put(RoomAdvanced(ROOM, EPOCH, 1, ()))

    assert any("connection 7: from somewhere" in line for line in explain(harness, 7, ROOM, 1))


# ---- what is rarer ---------------------------------------------------------------------------------


def test_a_member_without_hello_is_told_that_it_heard_nothing_of_another_log() -> None:
    harness = Harness(SMALL)
    peer = harness.connect()
    harness.put(Join(peer.conn, ROOM))
    publish(harness, 1)
    harness.put(RoomAdvanced(ROOM, "e2", 5, (), None))

    answer = first(harness, peer.conn, 4)

    assert "the room has another log now (epoch e2); it was told nothing, for it never said $hello" in answer


def test_a_member_without_hello_that_jumps_over_a_fork_is_told_so() -> None:
    harness = Harness(SMALL)
    publish(harness, 3)
    harness.store_held = True
    peer = harness.connect()
    harness.put(Join(peer.conn, ROOM, last=2))
    harness.deliver()
    (ask,) = harness.asks
    assert isinstance(ask, ReadStore)
    harness.put(StoreRead(ask.request, EPOCH, 0, 3, (row(2), row(3)), id_at="other", head_id=row(3).id))

    assert "the log has other messages than it had (fork); it was told nothing" in first(harness, peer.conn, 2)


def test_a_member_without_hello_whose_right_is_over_is_told_so() -> None:
    policy = Policy(authenticated=True)
    harness = Harness(policy=policy)
    harness.accepting = False
    peer = harness.connect()
    harness.put(Accept(peer.conn, user="ada"), Join(peer.conn, ROOM), Revoke("ada", ROOM))
    publish(harness, 1)

    assert "its right to be there was over (revoked)" in first(harness, peer.conn, 1, policy)


def test_who_took_too_little_of_what_came_before_is_told_so_and_who_waits_for_entries() -> None:
    harness = Harness(SMALL)
    publish(harness, 20, 400)
    peer = member(harness, since={"ep": EPOCH, "off": 0})
    slow = harness.client()
    slow.takes = False
    slow.join(ROOM, since={"ep": EPOCH, "off": 0})
    ahead = harness.client()
    ahead.join(ROOM, since={"ep": EPOCH, "off": 20})
    harness.store_held = True
    harness.put(RoomAdvanced(ROOM, EPOCH, 22, (row(22),)))

    assert "it had not taken enough of what it was sent before (unsentLow)" in first(harness, slow.conn, 20)
    assert first(harness, peer.conn, 20).startswith("Yes: ")
    assert "a page of the log was asked for" in first(harness, ahead.conn, 22)


def test_a_room_of_which_nothing_was_told_has_no_end() -> None:
    harness = Harness()
    peer = harness.client()

    assert "nothing was read from or written to the room's log" in first(harness, peer.conn, 1)


def test_a_time_that_no_calendar_has_is_told_as_a_number() -> None:
    harness = Harness()
    peer = harness.client(ROOM)
    publish(harness, 1)

    assert "(Unix time 1e+300)" in explain(harness, peer.conn, ROOM, 1, wall=1e300)[0]


def test_what_is_sent_as_it_is_or_compressed_is_read_as_well() -> None:
    harness = Harness(HubConfig(deflate=True))
    peer = harness.connect(request=upgrade_request("Sec-WebSocket-Extensions: permessage-deflate"))
    harness.put(Join(peer.conn, ROOM), Send(peer.conn, b"\x00", binary=True), Send(peer.conn, b"no json"))
    publish(harness, 1, 2_000)

    assert first(harness, peer.conn, 1).startswith("Yes: ")
