"""The life of a connection: its turn with the application, its closing, and every way it can end."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig, LocalError
from vixws_core.effects import (
    AppMessage,
    Broadcast,
    Closed,
    CloseTransport,
    Closing,
    Joined,
    Left,
    MessageReceived,
    Opened,
    PauseReading,
    PeerMisbehaved,
    ReadStore,
    ResumeReading,
    SendBytes,
    StoreAppend,
)
from vixws_core.hub.sessions.lifecycle import DISCARDED_MAX
from vixws_core.inputs import (
    Accept,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    HandlerFinished,
    Join,
    Publish,
    Send,
    SendToAll,
    TimePassed,
)
from vixws_core.message import encode_json
from vixws_core.wire.frames import (
    BINARY,
    PING,
    PONG,
    SKIMMED_MAX,
    TEXT,
    CloseReceived,
    PongReceived,
    encode_close,
    encode_frame,
)

from .harness import MASK, REQUEST, Harness, Peer, close_frame, text_frame, upgrade_request


def busy(harness: Harness | None = None) -> tuple[Harness, Peer]:
    """An open connection whose application has one message and does not finish."""
    harness = harness or Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "slow"})
    assert len(harness.records) == 1
    return harness, peer


def types(harness: Harness) -> list[str]:
    return [message.type for message in harness.received if isinstance(message, AppMessage)]


# ---- the application's turn ------------------------------------------------------------------------


def test_opening_is_told_once_and_messages_wait_for_the_application() -> None:
    harness = Harness()
    harness.finishing = False
    peer = harness.connect()
    peer.send({"type": "a"}, {"type": "b"})
    before = harness.received[:]
    harness.finish(peer)

    assert harness.effects(Opened) == [Opened(peer.conn, "/", None)]
    assert before == []
    assert types(harness) == ["a", "b"]


def test_messages_of_one_read_travel_in_one_record() -> None:
    harness = Harness()
    peer = harness.client()
    peer.send(*({"type": f"t{number}"} for number in range(20)))

    assert [len(record.messages) for record in harness.effects(MessageReceived)] == [20]


def test_messages_wait_while_a_handler_is_busy_and_come_in_order() -> None:
    harness, peer = busy()
    peer.send({"type": "a"}, {"type": "b"})
    peer.send({"type": "c"})
    before = types(harness)
    harness.finish(peer)

    assert before == ["slow"]
    assert types(harness) == ["slow", "a", "b", "c"]
    assert len(harness.records) == 2


def test_record_ends_before_a_publish() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "a"}, {"type": "chat", "room": "africa", "ref": "9"}, {"type": "b"})
    first = (types(harness), harness.effects(StoreAppend))
    harness.finish(peer)

    assert first == (["a"], [])
    assert len(harness.effects(StoreAppend)) == 1
    assert types(harness) == ["a", "b"]


@pytest.mark.parametrize("type", ["$join", "$leave", "$history", "$position", "$unknown"])
def test_record_ends_before_a_protocol_message(type: str) -> None:
    harness, peer = busy()
    peer.messages()
    peer.send({"type": type, "ref": "9", "room": "africa"})
    before = peer.messages()
    harness.finish(peer)

    assert before == []
    assert peer.messages()[0]["ref"] == "9"


def test_ping_overtakes_a_busy_handler() -> None:
    harness, peer = busy()
    peer.messages()
    peer.send({"type": "a"}, {"type": "$ping", "ref": "p"})

    assert peer.types() == ["$pong"]
    assert types(harness) == ["slow"]


def test_ping_behind_a_message_of_the_same_read_is_answered_at_once() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "a"}, {"type": "$ping"}, {"type": "b"})

    assert peer.types() == ["$pong"]
    assert types(harness) == ["a", "b"]


def test_publish_first_and_a_message_after_it_need_no_waiting() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "chat", "room": "africa"}, {"type": "a"}, {"type": "chat", "room": "africa"}, {"type": "b"})

    assert (len(harness.effects(StoreAppend)), types(harness)) == (1, ["a"])


def test_handlers_and_publishes_in_turn_keep_their_order() -> None:
    harness = Harness()
    peer = harness.client()
    order: list[str] = []
    harness.on_record = lambda record: order.extend(m.type for m in record.messages if isinstance(m, AppMessage))
    sent = [{"type": "a"}, {"type": "P", "room": "r"}, {"type": "b"}, {"type": "c"}, {"type": "P", "room": "r"}]
    peer.send(*sent)
    for _, _, effects in harness.steps:
        order += ["P" for effect in effects if isinstance(effect, StoreAppend)]
    steps = [
        effect
        for _, _, effects in harness.steps
        for effect in effects
        if isinstance(effect, StoreAppend | MessageReceived)
    ]

    assert [type(step).__name__ for step in steps] == [
        "MessageReceived",
        "StoreAppend",
        "MessageReceived",
        "StoreAppend",
    ]
    assert sorted(order) == ["P", "P", "a", "b", "c"]


def test_sixty_four_waiting_messages_pause_reading_and_an_idle_handler_resumes_it() -> None:
    harness, peer = busy()
    for _ in range(63):
        peer.send({"type": "a"})
    before = harness.effects(PauseReading)
    peer.send({"type": "a"})
    paused = harness.effects(PauseReading)
    harness.finish(peer)
    still = harness.effects(ResumeReading)
    harness.finish(peer)

    assert (before, still) == ([], [])
    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert len(harness.received) == 65


@pytest.mark.threat(7)
def test_row_7_messages_waiting_for_a_busy_handler_are_bounded() -> None:
    harness, peer = busy()
    peer.send(*({"type": "a"} for _ in range(1_000)))
    harness.settle()

    assert 0 < harness.hub.queued_messages_of(peer.conn) < 128
    harness.finishing = True
    harness.finish(peer)
    harness.settle()
    assert len(harness.received) == 1_001


@pytest.mark.threat(7)
def test_row_7_frames_of_a_sender_that_is_gone_wait_for_its_busy_handler_too() -> None:
    harness, peer = busy()
    peer.raw(text_frame({"type": "a"}) * 1_000)
    peer.vanish()
    harness.settle()

    assert 0 < harness.hub.queued_messages_of(peer.conn) < 128
    harness.finishing = True
    harness.finish(peer)
    harness.settle()
    assert len(harness.received) == 1_001
    assert harness.closes(peer) == [(1006, "reset")]


def test_after_a_failed_handler_nothing_more_is_handled_of_a_peer_that_is_gone() -> None:
    harness = Harness(HubConfig(pending_messages_max=4, events_per_step_max=4))
    peer = harness.client()
    harness.finishing = False
    peer.send(*({"type": f"m{number}"} for number in range(12)), {"type": "chat", "room": "africa"})
    harness.settle()
    peer.vanish()
    harness.finish(peer, failed=True)
    harness.settle()

    assert [message.type for message in harness.received if isinstance(message, AppMessage)] == ["m0", "m1", "m2", "m3"]
    assert harness.log.rooms() == []
    assert harness.hub.connections == 0


def test_a_connection_whose_close_is_awaited_is_read_whatever_is_unanswered() -> None:
    harness = Harness(HubConfig(publishes_max=2))
    harness.ending = False
    peer = harness.client()
    harness.store_held = True
    harness.put(Close(peer.conn))
    harness.put(*(Publish("africa", "chat", b"{}", conn=peer.conn) for _ in range(3)))
    assert harness.effects(PauseReading) == []
    peer.raw(close_frame())

    assert peer.closed
    assert not peer.aborted


def test_failed_handler_closes_1011_and_drops_what_waits() -> None:
    harness, peer = busy()
    peer.send({"type": "never"}, {"type": "chat", "room": "africa"})
    peer.frames()
    harness.finish(peer, failed=True)
    closing = peer.close_seen()
    peer.raw(close_frame(1011))

    assert closing == (1011, "a handler failed")
    assert types(harness) == ["slow"]
    assert harness.log.rooms() == []
    assert harness.closes(peer) == [(1011, "")]


@pytest.mark.threat(34)
def test_row_34_failed_handler_touches_nobody_else() -> None:
    harness = Harness()
    other = harness.client("africa")
    busy(harness)
    peer = harness.peers[2]
    peer.join("africa")
    harness.finish(peer, failed=True)
    other.publish("africa", ref="1")

    assert other.types() == ["chat", "$ack"]
    assert harness.hub.members("africa") == (other.conn,)
    assert not harness.hub.is_open(peer.conn)


def test_failed_opening_closes_1011() -> None:
    harness = Harness()
    harness.finishing = False
    peer = harness.connect()
    harness.finish(peer, failed=True)

    assert peer.close_seen() == (1011, "a handler failed")


def test_finish_that_nobody_waits_for_is_ignored() -> None:
    harness = Harness()
    peer = harness.client()

    assert harness.put(HandlerFinished(peer.conn), HandlerFinished(99), HandlerFinished(peer.conn, failed=True)) == []
    assert harness.hub.is_open(peer.conn)


# ---- many frames at once ----------------------------------------------------------------------------


@pytest.mark.threat(7)
def test_row_7_a_flood_of_tiny_frames_is_taken_64_a_step() -> None:
    harness = Harness()
    peer, other = harness.client(), harness.client()
    flood = encode_frame(TEXT, b"{}", MASK) * 5_000
    peer.raw(flood)
    other.send({"type": "other"})

    def answered() -> list[int]:
        """How many messages were answered in each step."""
        return [
            count
            for _, _, effects in harness.steps
            if (count := sum(isinstance(effect, PeerMisbehaved) for effect in effects))
        ]

    assert harness.hub.next_deadline() == harness.now
    assert answered() == [64]
    assert types(harness) == ["other"]  # It did not wait for the flood.
    harness.settle()
    assert max(answered()) == 64
    assert sum(answered()) == 5_000
    assert harness.hub.next_deadline() != harness.now


def test_bytes_that_wait_beyond_the_backlog_pause_reading() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(text_frame({"type": "a", "payload": {"x": "y" * 2_000}}) * 200)
    paused = harness.effects(PauseReading)
    harness.settle()

    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert len(harness.received) == 200


def test_connection_that_is_gone_still_has_its_waiting_frames_handled() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(text_frame({"type": "chat", "room": "africa"}) * 200)
    peer.vanish()
    early = harness.closes(peer)
    harness.settle()

    assert early == []
    assert harness.log.position("africa").head == 200
    assert harness.closes(peer) == [(1006, "reset")]
    assert harness.hub.connections == 0


@pytest.mark.threat(12)
def test_row_12_ping_flood_is_closed_with_1008() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(encode_frame(PING, b"x", MASK) * 51)

    assert (peer.close_seen() or (0,))[0] == 1008
    assert harness.effects(PeerMisbehaved)[-1].kind == "rate_limited"


@pytest.mark.threat(12)
def test_row_12_every_ping_of_a_read_is_answered_in_order() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(b"".join(encode_frame(PING, b"%d" % number, MASK) for number in range(50)))

    assert peer.frames() == [PongReceived(b"%d" % number) for number in range(50)]


@pytest.mark.threat(12)
def test_row_12_twenty_pings_a_second_are_fine_for_ever() -> None:
    harness = Harness()
    peer = harness.client()
    for _ in range(60):
        peer.raw(encode_frame(PING, b"", MASK) * 10 + encode_frame(PONG, b"", MASK) * 10)
        harness.pass_time(1.0)

    assert harness.hub.is_open(peer.conn)
    peer.raw(encode_frame(PONG, b"", MASK) * 71)
    assert not harness.hub.is_open(peer.conn)


@pytest.mark.threat(6)
def test_row_6_too_many_fragments_are_closed_with_1008() -> None:
    harness = Harness(HubConfig(fragments_max=3))
    peer = harness.client()
    first = bytes((TEXT, 0x80)) + MASK
    peer.raw(first + (bytes((0, 0x80)) + MASK) * 3)

    assert (peer.close_seen() or (0,))[0] == 1008
    assert harness.effects(PeerMisbehaved)[-1].kind == "too_many_fragments"


@pytest.mark.parametrize("declared", [65_537, 1 << 30, (1 << 63) - 1])
@pytest.mark.threat(3)
def test_row_3_message_over_the_limit_is_refused_from_its_header(declared: int) -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(bytes((0x80 | BINARY, 0xFF)) + declared.to_bytes(8, "big"))

    assert (peer.close_seen() or (0,))[0] == 1009
    assert harness.effects(PeerMisbehaved)[-1].kind == "too_large"


@pytest.mark.threat(3)
def test_row_3_message_of_the_largest_size_is_good() -> None:
    harness = Harness()
    peer = harness.client()
    peer.send_binary(b"x" * 65_536)
    peer.send({"type": "a", "payload": {"x": "y" * 65_000}})

    assert len(harness.received) == 2


@pytest.mark.parametrize(
    ("data", "code", "kind"),
    [
        (b"\x81\x02hi", 1002, "protocol_error"),
        (encode_frame(TEXT, b"\xff", MASK), 1007, "bad_utf8"),
        (encode_frame(TEXT, b"\xed\xa0\x80", MASK), 1007, "bad_utf8"),
        (encode_frame(3, b"", MASK), 1002, "protocol_error"),
        (encode_frame(0, b"", MASK), 1002, "protocol_error"),
        (b"\xc1\x80" + MASK, 1002, "protocol_error"),
        (encode_frame(8, b"\x03", MASK), 1002, "protocol_error"),
        (encode_frame(8, b"\x03\xed", MASK), 1002, "protocol_error"),
        (encode_frame(8, b"\x03\xe8\xff", MASK), 1007, "bad_utf8"),
    ],
    ids=["unmasked", "utf8", "surrogate", "opcode", "continuation", "rsv", "short close", "close 1005", "close utf8"],
)
@pytest.mark.threat(15)
def test_row_15_broken_frames_are_closed_with_the_right_code(data: bytes, code: int, kind: str) -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(text_frame({"type": "before"}) + data + text_frame({"type": "after"}))

    assert (peer.close_seen() or (0,))[0] == code
    assert harness.effects(PeerMisbehaved)[-1].kind == kind
    assert types(harness) == ["before"]
    assert [end[0] for end in harness.closes(peer)] == [code]


# ---- sending ---------------------------------------------------------------------------------------


def test_sent_messages_arrive_as_text_or_binary() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Send(peer.conn, "é".encode()), Send(peer.conn, b"\x00", True))

    assert peer.frames() == ["é", b"\x00"]


def test_message_to_all_goes_to_every_open_connection_but_one() -> None:
    harness = Harness()
    one, two, three = harness.client(), harness.client(), harness.client()
    harness.accepting = False
    asked = harness.connect()
    harness.put(SendToAll(b"hi", but=two.conn), SendToAll(b"\x01", True))
    shared = harness.effects(Broadcast)

    assert [peer.frames() for peer in (one, two, three)] == [["hi", b"\x01"], [b"\x01"], ["hi", b"\x01"]]
    assert asked.out == b""
    assert [effect.conns for effect in shared] == [(one.conn, three.conn), (one.conn, two.conn, three.conn)]


def test_message_to_all_of_nobody_is_nothing() -> None:
    harness = Harness()
    peer = harness.client()

    assert harness.put(SendToAll(b"hi", but=peer.conn)) == []
    peer.vanish()
    assert harness.put(SendToAll(b"hi")) == []


@pytest.mark.threat(13)
def test_row_13_directed_send_is_refused_above_the_mark() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=1_000))
    peer = harness.client()
    peer.takes = False
    harness.put(*(Send(peer.conn, b"x" * 90) for _ in range(12)))
    refused = harness.put(Send(peer.conn, b"y"))
    all_refused = harness.put(SendToAll(b"z"))
    peer.flush()
    taken = harness.put(Send(peer.conn, b"y"))

    assert (refused, all_refused) == ([], [])
    assert [type(effect) for effect in taken] == [SendBytes]


@pytest.mark.threat(13)
def test_row_13_message_to_all_parks_whom_it_fills() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=1_000))
    slow, quick = harness.client(), harness.client()
    slow.takes = False
    for _ in range(5):
        harness.put(SendToAll(b"x" * 300))

    assert len(slow.frames()) == 4
    assert len(quick.frames()) == 5
    assert harness.effects(PauseReading) == [PauseReading(slow.conn)]


@pytest.mark.threat(13)
def test_row_13_budget_of_all_connections_parks_at_the_low_mark() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=10_000, unsent_bytes_total=1_000))
    slow = [harness.client() for _ in range(10)]
    for peer in slow:
        peer.takes = False
    harness.put(*(SendToAll(b"x" * 30) for _ in range(100)))

    assert harness.hub.unsent_bytes < 1_000 + 10 * 100
    for peer in slow:
        peer.flush()
    assert harness.hub.unsent_bytes == 0
    assert len(harness.effects(ResumeReading)) == len(harness.effects(PauseReading)) > 0


def test_answers_of_the_protocol_are_sent_above_the_mark() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.client()
    peer.takes = False
    peer.raw(text_frame({"type": "$ping"}) * 20)

    assert peer.types() == ["$pong"] * 20


def test_parked_connection_is_not_read_until_it_takes_what_it_was_sent() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.connect()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 300))
    paused = harness.effects(PauseReading)
    peer.flush(203)
    early = harness.effects(ResumeReading)
    peer.flush(2)

    assert (paused, early) == ([PauseReading(peer.conn)], [])
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]


def test_commands_about_connections_just_gone_are_ignored() -> None:
    harness = Harness()
    peer = harness.client()
    peer.vanish()

    assert harness.put(Send(peer.conn, b"x"), Close(peer.conn), Accept(peer.conn), BytesReceived(peer.conn, b"x")) == []
    assert harness.put(Disconnected(peer.conn)) == []


@pytest.mark.threat(32)
def test_row_32_peer_that_reads_nothing_cannot_ask_for_more_and_more() -> None:
    harness = Harness(HubConfig(asks_per_s=0))
    for _ in range(20):
        harness.put(Publish("africa", "chat", encode_json({"x": "y" * 60_000})))
    peer = harness.client()
    peer.takes = False
    ask = text_frame('{"type":"$history","room":"africa"}')
    highest = 0
    for _ in range(4):
        peer.raw(ask * 200)
        harness.settle()
        highest = max(highest, harness.hub.unsent_bytes)
    asked = len(harness.effects(ReadStore))
    while peer.unflushed:
        peer.flush(100_000)
        harness.settle()
        highest = max(highest, harness.hub.unsent_bytes)

    assert asked <= 64
    assert highest < 6_000_000
    assert len(harness.effects(ReadStore)) == 800  # All the same, every one is answered in the end.
    assert peer.types() == ["$page"] * 800


@pytest.mark.threat(32)
def test_row_32_history_that_is_not_answered_yet_is_bounded() -> None:
    harness = Harness(HubConfig(asks_per_s=0))
    harness.store_held = True
    peer = harness.client()
    peer.raw(text_frame('{"type":"$history","room":"africa"}') * 1_000)
    harness.settle()
    asked = [len(harness.asks)]
    while harness.asks:
        harness.deliver()
        harness.settle()
        asked.append(len(harness.asks))

    assert max(asked) <= 64
    assert len(harness.effects(ReadStore)) == 1_000


def test_frames_of_a_connection_that_takes_nothing_wait() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.connect()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 300))
    peer.send({"type": "a"})
    peer.raw(text_frame({"type": "b"}) + close_frame(1000))
    before = types(harness)
    peer.flush()
    harness.settle()

    assert before == []
    assert types(harness) == ["a", "b"]
    assert harness.closes(peer) == [(1000, "")]


def test_frames_that_wait_are_handled_though_their_sender_is_gone() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.connect()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 300))
    peer.publish("africa")
    peer.vanish()
    harness.settle()

    assert harness.log.position("africa").head == 1
    assert harness.closes(peer) == [(1006, "reset")]
    assert harness.hub.connections == 0


def test_bytes_that_waited_behind_a_mark_are_read_like_any_others() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.connect()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 300))
    peer.raw(text_frame({"type": "a"}) * 10_000)
    peer.takes = True
    peer.flush()
    harness.settle()

    assert len(harness.received) == 10_000
    assert len(harness.effects(PauseReading)) == len(harness.effects(ResumeReading)) == 2


# ---- closing ----------------------------------------------------------------------------------------


def test_peer_closes_first() -> None:
    harness = Harness()
    peer = harness.client("africa")
    peer.raw(close_frame(1001, "bye"))

    assert peer.close_seen() == (1001, "")
    assert harness.closes(peer) == [(1001, "bye")]
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn)]
    assert harness.hub.rooms() == []


def test_peer_closes_first_without_a_code() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(encode_frame(8, b"", MASK))

    assert peer.close_seen() == (1005, "")
    assert harness.closes(peer) == [(1005, "")]


def test_we_close_first() -> None:
    harness = Harness()
    peer = harness.client("africa")
    harness.put(Close(peer.conn, 4001, "why"))
    first = peer.close_seen()
    waiting = harness.closes(peer)
    peer.raw(close_frame(4001, "why"))

    assert first == (4001, "why")
    assert waiting == []
    assert harness.closes(peer) == [(4001, "why")]
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn)]


def test_both_close_at_once() -> None:
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    harness.put(Close(peer.conn, 1000))
    peer.raw(close_frame(1001))
    peer.vanish()

    assert harness.closes(peer) == [(1001, "")]


def test_peer_that_does_not_answer_the_close_is_cut_off() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Close(peer.conn, 1000, "bye"))
    harness.run_until(harness.now + 4.9)
    before = harness.effects(CloseTransport)
    harness.run_until(harness.now + 0.2)

    assert before == []
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, True)]
    assert harness.closes(peer) == [(1006, "bye")]


def test_transport_that_does_not_end_is_cut_off() -> None:
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    peer.raw(close_frame())
    harness.run_until(harness.now + 6)

    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn), CloseTransport(peer.conn, True)]
    assert harness.closes(peer) == []
    peer.vanish()
    assert harness.closes(peer) == [(1000, "")]


def test_everything_behind_our_close_is_discarded() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Close(peer.conn))
    effects = peer.send({"type": "a"}, {"type": "chat", "room": "africa"}, {"type": "$ping"})
    peer.raw(encode_frame(PING, b"", MASK))

    assert effects == []
    assert harness.received == []
    peer.raw(text_frame({"type": "b"}) + close_frame())
    assert harness.closes(peer) == [(1000, "")]


@pytest.mark.threat(12)
def test_row_12_a_flood_behind_our_close_is_cut_after_a_budget() -> None:
    """It is looked through for the peer's close and not parsed; what may be under way has room."""
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    harness.put(Close(peer.conn, 1008, "enough"))
    flood = encode_frame(BINARY, b"x" * 60_000, MASK)
    sent = 0
    while not peer.closed and sent < 3 * DISCARDED_MAX:
        peer.raw(flood)
        sent += len(flood)

    assert peer.aborted
    assert DISCARDED_MAX < sent <= DISCARDED_MAX + len(flood)
    assert "$pong" not in peer.types()


@pytest.mark.threat(12)
def test_row_12_tiny_frames_behind_our_close_are_cut_after_as_many_as_cost_little() -> None:
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    harness.put(Close(peer.conn, 1008, "enough"))
    peer.raw(encode_frame(TEXT, b"", MASK) * SKIMMED_MAX)
    assert not peer.closed, "so many may be under way"
    peer.raw(encode_frame(TEXT, b"", MASK) * 10_000)

    assert peer.closed


def test_everything_behind_the_peers_close_is_discarded() -> None:
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    peer.raw(close_frame() + text_frame({"type": "a"}))
    late = peer.send({"type": "b"})

    assert late == []
    assert harness.received == []


def test_broken_frame_behind_our_close_ends_the_transport() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Close(peer.conn, 1000))
    peer.raw(b"\xff\xff\xff")

    assert harness.closes(peer) == [(1006, "")]
    assert not peer.aborted


def test_peers_close_that_waits_behind_our_handler_is_answered_after_it() -> None:
    harness, peer = busy()
    peer.frames()
    peer.raw(text_frame({"type": "last"}) + close_frame(1000, "done"))
    before = peer.close_seen()
    harness.finish(peer)
    between = peer.close_seen()
    harness.finish(peer)

    assert (before, between) == (None, None)
    assert peer.close_seen() == (1000, "")
    assert types(harness) == ["slow", "last"]
    assert harness.closes(peer) == [(1000, "done")]


def test_application_still_reaches_a_peer_whose_close_waits() -> None:
    harness, peer = busy()
    peer.frames()
    peer.raw(close_frame())
    harness.put(Send(peer.conn, b"bye"))
    harness.finish(peer)

    assert peer.frames() == ["bye", CloseReceived(1000, "")]


def test_application_closes_while_the_peers_close_waits() -> None:
    harness, peer = busy()
    peer.frames()
    peer.raw(close_frame(1000))
    harness.put(Close(peer.conn, 4000))

    assert peer.close_seen() == (4000, "")
    assert harness.closes(peer) == []
    harness.finish(peer)
    assert harness.closes(peer) == [(1000, "")]


def test_handler_that_hangs_does_not_hold_up_the_answer_to_a_close() -> None:
    harness, peer = busy()
    peer.frames()
    peer.raw(close_frame(1000))
    harness.run_until(harness.now + 5.1)

    assert peer.close_seen() == (1000, "")
    assert harness.closes(peer) == []  # The end is told after the handler, never during it.
    harness.finish(peer)
    assert harness.closes(peer) == [(1000, "")]


def test_frame_error_that_waits_behind_a_handler_is_answered_after_it() -> None:
    harness, peer = busy()
    peer.frames()
    peer.raw(b"\xff\xff")
    harness.finish(peer)

    assert (peer.close_seen() or (0,))[0] == 1002
    assert harness.closes(peer)[0][0] == 1002


def test_closing_twice_sends_one_close_frame() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Close(peer.conn, 4000), Close(peer.conn, 4001))

    assert [frame for frame in peer.frames() if isinstance(frame, CloseReceived)] == [CloseReceived(4000, "")]


def test_closing_in_the_middle_of_a_message_waits_for_the_peers_close_all_the_same() -> None:
    harness = Harness()
    peer = harness.client()
    frame = text_frame({"type": "a"})
    peer.raw(frame[:5])
    harness.put(Close(peer.conn))
    peer.raw(frame[5:] + close_frame(1000))

    assert harness.closes(peer) == [(1000, "")]


def test_close_reads_the_peers_close_among_bytes_that_wait() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(text_frame({"type": "chat", "room": "africa"}) * 100 + close_frame(1000, "done"))
    harness.put(Close(peer.conn, 4000))

    assert harness.closes(peer) == [(1000, "done")]


def test_close_of_a_paused_connection_reads_on() -> None:
    harness, peer = busy()
    for _ in range(64):
        peer.send({"type": "a"})
    harness.put(Close(peer.conn, 4000))
    peer.raw(close_frame(4000))

    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert harness.closes(peer) == []
    harness.finish(peer)
    assert harness.closes(peer) == [(4000, "")]
    assert types(harness) == ["slow"]


@pytest.mark.parametrize("code", [-1, 0, 999, 5000, 1 << 20])
def test_close_code_that_cannot_be_sent_is_the_callers_fault(code: int) -> None:
    harness = Harness()
    peer = harness.client()
    with pytest.raises(LocalError, match="close code"):
        harness.put(Close(peer.conn, code))

    assert harness.hub.is_open(peer.conn)


def test_close_of_a_request_that_was_not_answered_is_ignored() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()

    assert harness.put(Close(peer.conn)) == []


def test_messages_behind_a_handler_that_hangs_are_dropped_after_the_answered_close() -> None:
    harness, peer = busy()
    harness.ending = False
    peer.raw(text_frame({"type": "a"}) + text_frame({"type": "chat", "room": "africa"}) + close_frame(1000))
    harness.run_until(harness.now + 5.1)
    effects = harness.finish(peer)
    peer.vanish()

    assert effects == []
    assert types(harness) == ["slow"]
    assert harness.log.rooms() == []
    assert harness.closes(peer) == [(1000, "")]


def test_nothing_is_answered_behind_our_close() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="9")
    harness.put(Close(peer.conn))
    harness.deliver()

    assert peer.frames() == [CloseReceived(1000, "")]


# ---- every way to end --------------------------------------------------------------------------------


def end_by_peers_close(harness: Harness, peer: Peer) -> None:
    peer.raw(close_frame())


def end_by_our_close(harness: Harness, peer: Peer) -> None:
    harness.put(Close(peer.conn, 1000))
    peer.raw(close_frame())


def end_by_unanswered_close(harness: Harness, peer: Peer) -> None:
    harness.put(Close(peer.conn, 1000))
    harness.run_until(harness.now + 10)


def end_by_vanishing(harness: Harness, peer: Peer) -> None:
    peer.vanish()


def end_by_vanishing_while_closing(harness: Harness, peer: Peer) -> None:
    harness.put(Close(peer.conn, 1000))
    peer.vanish()


def end_by_garbage(harness: Harness, peer: Peer) -> None:
    peer.raw(b"\xff" * 100)


def end_by_size(harness: Harness, peer: Peer) -> None:
    peer.send_binary(b"x" * 100_000)


def end_by_failure(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.send({"type": "a"})
    harness.finish(peer, failed=True)
    peer.vanish()


def end_by_failure_after_vanishing(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.send({"type": "a"})
    peer.send({"type": "b"})
    peer.vanish()
    harness.finish(peer, failed=True)


def end_by_hanging_then_finishing(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.send({"type": "a"})
    peer.vanish()
    harness.finish(peer)


def end_by_idleness(harness: Harness, peer: Peer) -> None:
    for _ in range(70):
        peer.raw(encode_frame(PONG, b"", MASK))
        harness.run_until(harness.now + 10)


def end_by_unanswered_ping(harness: Harness, peer: Peer) -> None:
    harness.run_until(harness.now + 51)


def end_by_slow_message(harness: Harness, peer: Peer) -> None:
    peer.raw(text_frame({"type": "a"})[:4])
    harness.run_until(harness.now + 40)


def end_by_taking_nothing(harness: Harness, peer: Peer) -> None:
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 2_000_000))
    harness.run_until(harness.now + 31)


def end_by_second_hello(harness: Harness, peer: Peer) -> None:
    peer.send({"type": "$hello"})
    peer.raw(close_frame(4002))


def end_by_ping_flood(harness: Harness, peer: Peer) -> None:
    peer.raw(encode_frame(PING, b"", MASK) * 60)
    peer.raw(close_frame(1008))


def end_with_a_join_under_way(harness: Harness, peer: Peer) -> None:
    harness.store_held = True
    peer.send({"type": "$join", "room": "asia"})
    peer.vanish()
    harness.deliver()


def end_with_a_join_behind_a_handler(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.send({"type": "a"})
    peer.send({"type": "$join", "room": "asia"}, {"type": "$history", "room": "asia"}, {"type": "$hello"})
    peer.vanish()
    harness.finish(peer)


def end_while_the_application_joins(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.send({"type": "a"})
    peer.vanish()
    harness.put(Join(peer.conn, "asia"))
    harness.finish(peer)


def end_with_frames_waiting(harness: Harness, peer: Peer) -> None:
    peer.raw(text_frame({"type": "$join", "room": "asia"}) * 200)
    peer.vanish()
    harness.settle()


def end_paused_with_frames_waiting(harness: Harness, peer: Peer) -> None:
    harness.finishing = False
    peer.raw(text_frame({"type": "a"}) * 300)
    harness.settle()
    peer.vanish()
    harness.finishing = True
    harness.finish(peer)
    harness.settle()


ENDS = [value for name, value in list(globals().items()) if name.startswith("end_")]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("transports_end", [True, False], ids=["prompt", "late"])
def test_every_way_to_end_leaves_nothing_and_tells_the_end_once(end: Any, transports_end: bool) -> None:
    harness = Harness()
    harness.ending = transports_end
    other = harness.client("africa", "europe")
    peer = harness.client("africa", "asia")
    end(harness, peer)
    if not harness.closes(peer):
        harness.put(Disconnected(peer.conn))
    if harness.hub.is_open(other.conn):
        other.vanish()
    else:
        harness.put(Disconnected(other.conn))

    assert len(harness.closes(peer)) == 1
    assert len(harness.effects(Opened)) == len(harness.effects(Closed)) == 2
    assert (harness.hub.sessions, harness.hub.connections, harness.hub.unsent_bytes) == (0, 0, 0)
    assert harness.hub.rooms() == []
    assert len(harness.effects(Joined)) == len(harness.effects(Left))
    assert harness.hub.next_deadline() is None


def test_publish_then_immediate_disconnect_is_stored() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(
        BytesReceived(peer.conn, text_frame({"type": "chat", "room": "africa", "ref": "1"})), Disconnected(peer.conn)
    )

    assert harness.log.position("africa").head == 1
    assert harness.closes(peer) == [(1006, "")]


def test_publish_behind_a_handler_is_stored_though_its_sender_is_gone() -> None:
    harness, peer = busy()
    peer.send({"type": "chat", "room": "africa"}, {"type": "then"})
    peer.vanish()
    harness.finish(peer)

    assert harness.log.position("africa").head == 1
    assert types(harness) == ["slow", "then"]
    assert harness.closes(peer) == []
    harness.finish(peer)
    assert harness.closes(peer) == [(1006, "reset")]


def test_end_comes_after_the_bytes_and_the_leaving() -> None:
    harness = Harness()
    peer = harness.client("africa")
    effects = peer.raw(close_frame())

    assert [type(effect) for effect in effects] == [Closing, SendBytes, Left, CloseTransport, Closed]


def test_requests_that_are_never_accepted_are_no_sessions() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    half = harness.connect(request=REQUEST[:20])
    peer.vanish()
    half.vanish()

    assert harness.effects(Closed) == []
    assert harness.hub.connections == 0
    assert harness.put(Accept(peer.conn)) == []


def test_connection_number_of_another_connection_is_not_touched() -> None:
    harness = Harness()
    one, two = harness.client("africa"), harness.client("africa")
    one.vanish()
    harness.put(Publish("africa", "chat", encode_json({})))

    assert two.types() == ["chat"]
    assert harness.hub.members("africa") == (two.conn,)


def test_frames_in_the_same_read_as_the_request_reach_the_application() -> None:
    harness = Harness()
    peer = harness.connect(request=REQUEST + text_frame({"type": "a"}) + encode_frame(PING, b"p", MASK))

    assert types(harness) == ["a"]
    assert peer.frames() == [PongReceived(b"p")]


def test_frames_that_come_before_the_accept_reach_the_application() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    peer.send({"type": "a"})
    peer.send({"type": "b"})
    harness.put(Accept(peer.conn))

    assert types(harness) == ["a", "b"]


def test_too_many_bytes_before_the_accept_pause_reading() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    frame = encode_frame(BINARY, b"x" * 50_000, MASK)
    peer.raw(frame)
    peer.raw(frame)
    before = harness.effects(PauseReading)
    peer.raw(frame)
    paused = harness.effects(PauseReading)
    harness.put(Accept(peer.conn))

    assert before == []
    assert paused == [PauseReading(peer.conn)]
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert [len(message) for message in harness.received if isinstance(message, bytes)] == [50_000] * 3


def test_accept_that_cannot_be_is_the_callers_fault_and_changes_nothing() -> None:
    harness = Harness()
    harness.accepting = False
    page = harness.connect(request=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    socket = harness.connect(request=upgrade_request("Sec-WebSocket-Protocol: chat, superchat"))
    with pytest.raises(LocalError, match="asked for no WebSocket"):
        harness.put(Accept(page.conn))
    with pytest.raises(LocalError, match="was not offered"):
        harness.put(Accept(socket.conn, "other"))
    harness.put(Accept(socket.conn, "superchat"))

    assert b"Sec-WebSocket-Protocol: superchat\r\n" in socket.out
    assert harness.effects(Opened) == [Opened(socket.conn, "/", "superchat")]


def test_second_accept_is_ignored() -> None:
    harness = Harness()
    peer = harness.client()

    assert harness.put(Accept(peer.conn)) == []


def test_connection_is_known_from_its_first_byte_to_its_last() -> None:
    harness = Harness()
    seen = [harness.hub.connections]
    harness.put(Connected(1, "10.0.0.1:5"))
    seen.append(harness.hub.connections)
    harness.put(Disconnected(1))

    assert [*seen, harness.hub.connections] == [0, 1, 0]


def test_early_and_repeated_time_is_harmless() -> None:
    harness = Harness()
    harness.client("africa")

    assert harness.put(TimePassed(), TimePassed()) == []


def test_close_frame_of_ours_carries_code_and_reason() -> None:
    assert encode_close(4000, "é" * 100)[:4] == bytes((0x88, 2 + 122, 0x0F, 0xA0))


def test_unread_ping_and_pong_are_no_messages() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(encode_frame(PONG, b"unasked", MASK))

    assert peer.frames() == []
    assert harness.hub.is_open(peer.conn)
