"""Time: handshakes, pings, idleness, slow messages, slow readers, and the drain."""

from __future__ import annotations

import pytest

from vixws_core import HubConfig
from vixws_core.effects import (
    AppMessage,
    Closed,
    CloseTransport,
    Drained,
    Opened,
    PeerMisbehaved,
    Published,
    Requested,
    ResumeReading,
)
from vixws_core.hub import ConnectionState
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    Close,
    Connected,
    Disconnected,
    ListHistory,
    Publish,
    Respond,
    Send,
    SendToAll,
    Shutdown,
    StoreFailed,
    TimePassed,
)
from vixws_core.wire.frames import PONG, TEXT, CloseReceived, PingReceived, encode_frame, mask_bytes

from .harness import MASK, REQUEST, Harness, Peer, close_frame, text_frame

QUIET = HubConfig(ping_interval_s=0, idle_timeout_s=0)
"""No pings and no idleness, so that nothing else is due."""


def when_closed(harness: Harness, peer: Peer, limit: float) -> float:
    """Lets time pass until the peer's close frame or its end; returns the seconds that took."""
    start = harness.now
    while (
        harness.now < start + limit
        and not peer.closed
        and (
            harness.hub.is_open(peer.conn)
            or harness.hub.state_of(peer.conn) in (ConnectionState.HEAD, ConnectionState.ASKED)
        )
    ):
        due = harness.hub.next_deadline()
        assert due is not None
        harness.run_until(due)
    return harness.now - start


def kinds(harness: Harness) -> list[str]:
    return [wrong.kind for wrong in harness.effects(PeerMisbehaved)]


# ---- handshake ---------------------------------------------------------------------------------------


@pytest.mark.threat(8)
def test_row_8_handshake_has_ten_seconds_in_all_however_busy_it_is() -> None:
    harness = Harness()
    peer = harness.connect(request=b"")
    for at in range(40):
        peer.raw(REQUEST[at : at + 1])
        harness.run_until(harness.now + 0.25)

    assert peer.out.startswith(b"HTTP/1.1 408 ")
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn)]
    assert kinds(harness) == ["handshake_timeout"]
    assert harness.now == 1010.0


@pytest.mark.parametrize(("waited_s", "due"), [(0.0, 1010.0), (8.5, 1001.5), (9.99, 1000.01)])
def test_what_tls_took_of_the_time_for_the_handshake_is_gone(waited_s: float, due: float) -> None:
    harness = Harness()
    harness.peers[1] = Peer(harness, 1)
    harness.put(Connected(1, secure=True, waited_s=waited_s))
    harness.run_until(due - 0.001)
    before = kinds(harness)
    harness.run_until(due)

    assert (before, kinds(harness)) == ([], ["handshake_timeout"])


def test_request_that_the_application_does_not_answer_is_503() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    harness.run_until(harness.now + 9.9)
    before = bytes(peer.out)
    harness.run_until(harness.now + 0.2)

    assert before == b""
    assert peer.out.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in peer.out


def test_handshake_in_time_leaves_no_deadline_behind() -> None:
    harness = Harness(QUIET)
    peer = harness.connect()
    harness.run_until(harness.now + 1_000)

    assert harness.hub.is_open(peer.conn)
    assert harness.hub.next_deadline() is None


def test_deadline_of_a_connection_that_is_gone_is_forgotten() -> None:
    harness = Harness()
    for _ in range(10):
        harness.connect(request=b"").vanish()

    assert harness.hub.next_deadline() is None


# ---- pings and idleness ------------------------------------------------------------------------------


@pytest.mark.threat(14)
def test_silent_peer_is_pinged_after_thirty_seconds_and_closed_after_fifty() -> None:
    harness = Harness()
    peer = harness.client()
    harness.run_until(harness.now + 29.9)
    quiet = peer.frames()
    harness.run_until(harness.now + 0.2)
    pinged = peer.frames()
    harness.run_until(harness.now + 19.7)
    waiting = peer.frames()
    harness.run_until(harness.now + 0.3)

    assert (quiet, pinged, waiting) == ([], [PingReceived(b"")], [])
    assert peer.frames() == [CloseReceived(1011, "ping unanswered")]
    assert harness.closes(peer) == [(1006, "ping unanswered")]
    assert kinds(harness) == ["ping_timeout"]


@pytest.mark.parametrize(
    "answer", [encode_frame(PONG, b"", MASK), encode_frame(PONG, b"other", MASK), text_frame("{}"), b"\x81"], ids=repr
)
def test_any_byte_answers_a_ping(answer: bytes) -> None:
    harness = Harness(HubConfig(idle_timeout_s=0, message_timeout_s=1_000))
    peer = harness.client()
    harness.run_until(harness.now + 31)
    peer.raw(answer)
    harness.run_until(harness.now + 29)

    assert harness.hub.is_open(peer.conn)


def test_pings_go_on_as_long_as_they_are_answered() -> None:
    harness = Harness(HubConfig(idle_timeout_s=0))
    peer = harness.client()
    pings = 0
    for _ in range(20):
        harness.run_until(harness.now + 30)
        found = len(peer.frames())
        pings += found
        if found:
            peer.raw(encode_frame(PONG, b"", MASK))

    assert pings == 20
    assert harness.hub.is_open(peer.conn)


def test_idle_connection_is_closed_1001_though_it_answers_pings() -> None:
    harness = Harness()
    peer = harness.client()
    for _ in range(61):
        harness.run_until(harness.now + 10)
        if harness.hub.is_open(peer.conn):
            peer.raw(encode_frame(PONG, b"", MASK))
    closes = [frame for frame in peer.frames() if isinstance(frame, CloseReceived)]

    assert closes == [CloseReceived(1001, "idle")]


def test_message_either_way_keeps_a_connection_from_being_idle() -> None:
    harness = Harness(HubConfig(ping_interval_s=0))
    peer = harness.client()
    for _ in range(5):
        harness.run_until(harness.now + 500)
        peer.send({"type": "a"})
        harness.run_until(harness.now + 500)
        harness.put(Send(peer.conn, b"b"))

    assert harness.hub.is_open(peer.conn)
    assert when_closed(harness, peer, 1_000) == 600


@pytest.mark.threat(6)
def test_message_must_be_complete_in_thirty_seconds() -> None:
    harness = Harness()
    peer = harness.client()
    frame = text_frame({"type": "a", "payload": {"x": "y" * 1_000}})
    for at in range(31):
        if harness.hub.is_open(peer.conn):
            peer.raw(frame[at : at + 1])
            harness.run_until(harness.now + 1)

    assert peer.close_seen() == (1008, "message not complete in time")
    assert kinds(harness) == ["message_timeout"]


@pytest.mark.threat(6)
def test_row_6_pings_between_fragments_do_not_stretch_the_time_of_a_message() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(bytes((TEXT, 0x81)) + MASK + mask_bytes(b"a", MASK))
    for _ in range(31):
        if harness.hub.is_open(peer.conn):
            peer.raw(encode_frame(PONG, b"", MASK) + bytes((0, 0x81)) + MASK + mask_bytes(b"a", MASK))
            harness.run_until(harness.now + 1)

    assert peer.close_seen() == (1008, "message not complete in time")


def test_next_message_has_its_own_time() -> None:
    harness = Harness()
    peer = harness.client()
    frame = text_frame({"type": "a"})
    peer.raw(frame[:5])
    for _ in range(10):
        harness.run_until(harness.now + 20)
        peer.raw(frame[5:] + frame[:5])

    assert harness.hub.is_open(peer.conn)
    assert len(harness.received) == 10


# ---- pauses -----------------------------------------------------------------------------------------


@pytest.mark.threat(14)
def test_row_14_deadlines_are_suspended_while_a_handler_is_not_read_for() -> None:
    harness = Harness(HubConfig(pending_messages_max=2))
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "slow"})
    harness.run_until(harness.now + 30)  # A ping is sent.
    peer.raw(text_frame({"type": "a"}) * 2 + b"\x81")
    peer.frames()
    harness.run_until(harness.now + 10_000)
    open_still = harness.hub.is_open(peer.conn)
    quiet = peer.frames()
    harness.finish(peer)
    harness.finish(peer)

    assert open_still
    assert quiet == []
    assert harness.effects(ResumeReading) == [ResumeReading(peer.conn)]
    assert when_closed(harness, peer, 100) == 30  # The message that began has its whole time again.


@pytest.mark.threat(14)
def test_row_14_parked_connection_is_closed_only_when_it_takes_no_byte() -> None:
    harness = Harness()
    peer = harness.client()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 2_000_000))
    for _ in range(100):
        harness.run_until(harness.now + 29)
        peer.flush(10)
    alive = harness.hub.is_open(peer.conn)
    harness.run_until(harness.now + 29.9)
    still = harness.hub.is_open(peer.conn)
    harness.run_until(harness.now + 0.2)

    assert (alive, still) == (True, True)
    assert kinds(harness) == ["slow"]
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, True)]
    assert harness.closes(peer) == [(1006, "took no byte in time")]
    assert peer.close_seen() == (4108, "slow")


def test_slow_connection_below_its_mark_is_left_alone() -> None:
    harness = Harness(QUIET)
    peer = harness.client()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 1_000_000))
    harness.run_until(harness.now + 10_000)

    assert harness.hub.is_open(peer.conn)


# ---- the drain ----------------------------------------------------------------------------------------


@pytest.mark.threat(30)
def test_row_30_drain_tells_every_client_its_slot_and_closes() -> None:
    harness = Harness(HubConfig(handshakes_per_s=10))
    one, plain, two = harness.client(), harness.connect(), harness.client()
    harness.put(Shutdown(8))

    assert one.frames() == [
        '{"type":"$drain","payload":{"reconnect_in_ms":500,"close_in_ms":0}}',
        CloseReceived(4200, "the server shuts down"),
    ]
    assert two.frames() == [
        '{"type":"$drain","payload":{"reconnect_in_ms":625,"close_in_ms":0}}',
        CloseReceived(4200, "the server shuts down"),
    ]
    assert plain.frames() == [CloseReceived(1012, "the server shuts down")]
    assert harness.effects(Drained) == []
    for peer in (one, plain, two):
        peer.raw(close_frame(4200))
    assert harness.effects(Drained) == [Drained()]
    assert harness.hub.draining


def test_drain_without_connections_is_done_at_once() -> None:
    harness = Harness()

    assert harness.put(Shutdown(8)) == [Drained()]
    assert harness.put(TimePassed()) == []
    assert harness.hub.next_deadline() is None


@pytest.mark.threat(30)
def test_drain_waits_for_appends() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="1")
    harness.put(Publish("africa", "chat", b"{}", request=1))
    harness.put(Shutdown(8))
    open_still = harness.hub.is_open(peer.conn)
    harness.deliver()
    peer.raw(close_frame(4200))

    assert open_still
    assert [type(frame) for frame in peer.frames()] == [str, str, CloseReceived]
    assert [done.off for done in harness.effects(Published)] == [2]
    assert harness.effects(Drained) == [Drained()]


def test_drain_goes_on_when_an_append_fails() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="1")
    harness.put(Shutdown(8))
    harness.put(StoreFailed(harness.asks[0].request, "store_unavailable"))

    assert [type(frame) for frame in peer.frames()] == [str, str, CloseReceived]


@pytest.mark.parametrize("type", ["$history", "$position"])
@pytest.mark.parametrize("fails", [False, True])
def test_drain_answers_questions_first(type: str, fails: bool) -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.send({"type": type, "ref": "1", "room": "africa"})
    harness.put(Shutdown(8))
    open_still = harness.hub.is_open(peer.conn)
    if fails:
        harness.put(StoreFailed(harness.asks[0].request, "store_unavailable"))
    else:
        harness.deliver()

    assert open_still
    assert peer.types()[-1] == ("$err" if fails else {"$history": "$page"}.get(type, type))
    assert not harness.hub.is_open(peer.conn)


def test_drain_lets_handlers_finish_what_was_received() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "slow"}, {"type": "chat", "room": "africa"}, {"type": "last"})
    harness.put(Shutdown(8))
    harness.finish(peer)
    open_still = harness.hub.is_open(peer.conn)
    harness.finish(peer)

    assert open_still
    assert len(harness.received) == 2
    assert harness.log.position("africa").head == 1
    assert not harness.hub.is_open(peer.conn)


def test_drain_handles_frames_that_wait() -> None:
    harness = Harness()
    peer = harness.client()
    peer.raw(text_frame({"type": "$ping"}) * 200)
    harness.put(Shutdown(8))
    harness.settle()
    frames = peer.frames()

    assert len(frames) == 202
    assert isinstance(frames[-1], CloseReceived)


@pytest.mark.threat(30)
@pytest.mark.parametrize(("drain_s", "close_in_s"), [(8.0, 7.0), (9.0, 8.0), (0.8, 0.7)])
@pytest.mark.parametrize(("hello", "code"), [(True, 4200), (False, 1012)])
def test_whoever_is_busy_is_closed_when_it_was_told_and_cut_at_the_end(
    drain_s: float, close_in_s: float, hello: bool, code: int
) -> None:
    harness = Harness()
    peer = harness.client() if hello else harness.connect()
    harness.finishing = False
    peer.send({"type": "hangs"})
    peer.send({"type": "never handled"})
    began = harness.now
    harness.put(Shutdown(drain_s))
    told = [message["payload"]["close_in_ms"] for message in peer.messages()]
    due = harness.hub.next_deadline()
    harness.run_until(began + close_in_s - 0.001)
    early = peer.frames()
    harness.run_until(began + close_in_s + 0.001)
    closed, cut = peer.close_seen(), harness.effects(CloseTransport)
    harness.run_until(began + drain_s)

    assert told == ([round(close_in_s * 1000)] if hello else [])
    assert due == pytest.approx(began + close_in_s, abs=1e-6)
    assert early == []
    assert (closed, cut) == ((code, "the server shuts down"), [])
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, True)]
    assert harness.effects(Drained) == [Drained()]  # Though the handler hangs.
    assert harness.closes(peer) == []
    harness.finish(peer)
    assert harness.closes(peer) == [(1006, "the server shuts down")]
    assert types_received(harness) == ["hangs"]
    assert harness.effects(Drained) == [Drained()]


def types_received(harness: Harness) -> list[str]:
    """What the application was given."""
    return [message.type for message in harness.received if isinstance(message, AppMessage)]


def test_a_peer_that_answers_the_close_of_a_drain_ends_before_its_end() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="1")
    harness.put(Shutdown(8))
    harness.run_until(harness.now + 7)
    seen = peer.close_seen()
    peer.raw(close_frame(4200))

    assert seen == (4200, "the server shuts down")
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, False)]
    assert harness.effects(Drained) == []  # The append is not answered.
    harness.run_until(harness.now + 1)
    assert harness.effects(Drained) == [Drained()]


def test_a_peer_that_began_its_close_gets_its_own_code_at_the_end_of_a_drain() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "hangs"})
    harness.put(Shutdown(8))
    harness.run_until(harness.now + 6)
    peer.raw(close_frame(1000))
    harness.run_until(harness.now + 1)

    assert peer.close_seen() == (1000, "")


def test_a_drain_that_is_hurried_closes_earlier_and_never_twice() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "hangs"})
    harness.put(Shutdown(80))
    peer.frames()
    harness.put(Shutdown(8))
    due = harness.hub.next_deadline()
    harness.run_until(harness.now + 7)
    seen = peer.close_seen()
    harness.put(Shutdown(0.5))
    harness.run_until(harness.now + 0.5)

    assert due == 1007.0
    assert seen == (4200, "the server shuts down")
    assert peer.frames() == []
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, True)]


def test_overdue_drain_does_not_wait_for_the_store() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.publish("africa", ref="1")
    harness.put(Shutdown(2))
    harness.run_until(harness.now + 2)

    assert harness.effects(Drained) == [Drained()]


def test_overdue_drain_waits_for_transports_to_end() -> None:
    harness = Harness()
    harness.ending = False
    peer = harness.client()
    harness.put(Shutdown(2))
    harness.run_until(harness.now + 2)
    before = harness.effects(Drained)
    peer.vanish()

    assert before == []
    assert harness.effects(Drained) == [Drained()]


def test_overdue_drain_tells_the_end_of_a_connection_with_frames_waiting() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "a"})
    harness.put(Shutdown(2))
    harness.now += 2
    peer.raw(text_frame({"type": "$ping"}) * 500)
    harness.put(TimePassed())
    harness.finish(peer)
    harness.settle()

    assert harness.closes(peer) == [(1006, "")]
    assert harness.hub.connections == 0


@pytest.mark.threat(30)
def test_row_30_second_shutdown_shortens_the_drain_and_never_stretches_it() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "hangs"})
    harness.put(Shutdown(8))
    peer.frames()
    harness.put(Shutdown(100))
    unchanged = harness.hub.next_deadline()
    harness.put(Shutdown(0))
    now = harness.hub.next_deadline()
    harness.settle()

    assert (unchanged, now) == (1007.0, 1000.0)
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn, True)]
    assert [frame for frame in peer.frames() if isinstance(frame, str)] == []


def test_shutdown_during_handshakes_answers_503() -> None:
    harness = Harness()
    harness.accepting = False
    half, asked = harness.connect(request=REQUEST[:30]), harness.connect()
    harness.put(Shutdown(8))

    assert half.out.startswith(b"HTTP/1.1 503 ")
    assert asked.out.startswith(b"HTTP/1.1 503 ")
    assert harness.put(Accept(asked.conn), Respond(asked.conn, 200)) == []
    assert harness.effects(Drained) == [Drained()]
    assert (harness.effects(Closed), harness.effects(Opened)) == ([], [])


def test_connection_during_a_drain_is_cut_off() -> None:
    harness = Harness()
    stays = harness.client()
    harness.ending = False
    harness.put(Shutdown(8))
    late = harness.connect(conn=50)

    assert late.aborted
    assert late.out == b""
    assert len(harness.effects(Requested)) == 1
    stays.raw(close_frame(4200))
    harness.put(Disconnected(stays.conn))
    assert harness.effects(Drained) == []
    late.vanish()
    assert harness.effects(Drained) == [Drained()]


def test_peer_that_closes_during_a_drain_is_answered() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "slow"})
    peer.raw(close_frame(1000))
    harness.put(Shutdown(8))
    harness.finish(peer)

    assert peer.close_seen() == (1000, "")
    assert harness.effects(Drained) == [Drained()]


def test_parked_connection_is_drained_too() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=100, unsent_bytes_high=200))
    peer = harness.client()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 300))
    harness.put(Shutdown(8))
    effects = harness.put(BytesFlushed(((peer.conn, peer.unflushed),)))

    assert effects == []
    assert peer.close_seen() == (4200, "the server shuts down")


def test_connection_that_is_gone_has_no_deadlines_while_its_handler_hangs() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "hangs"})
    peer.vanish()
    effects = harness.run_until(harness.now + 1_000)

    assert effects == []
    assert harness.hub.next_deadline() is None
    assert harness.hub.connections == 1


def test_connection_that_is_gone_is_not_cut_off_by_an_overdue_drain() -> None:
    harness = Harness()
    peer = harness.client()
    harness.finishing = False
    peer.send({"type": "hangs"})
    peer.vanish()
    harness.put(Shutdown(2))
    harness.run_until(harness.now + 2)

    assert harness.effects(CloseTransport) == []
    assert harness.effects(Drained) == [Drained()]


def test_connection_that_is_closing_is_told_nothing_by_a_drain() -> None:
    harness = Harness()
    peer = harness.client()
    harness.put(Close(peer.conn, 4000))
    peer.frames()
    harness.put(Shutdown(8))
    peer.raw(close_frame(4000))

    assert peer.frames() == []
    assert harness.effects(Drained) == [Drained()]


def test_drain_lets_the_application_answer_from_its_history() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    harness.put(ListHistory(1, "africa", 5, conn=peer.conn))
    harness.put(Shutdown(8))
    open_still = harness.hub.is_open(peer.conn)
    harness.deliver()
    harness.put(Send(peer.conn, b"the history"))
    harness.settle()

    assert open_still
    assert peer.frames()[1:] == ["the history", CloseReceived(4200, "the server shuts down")]


def test_drain_goes_on_though_who_asked_for_history_is_closing() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    harness.put(ListHistory(1, "africa", 5, conn=peer.conn), Close(peer.conn))
    harness.put(Shutdown(8))
    harness.deliver()
    peer.raw(close_frame())

    assert harness.effects(Drained) == [Drained()]


def test_close_shortly_before_another_deadline_has_its_whole_time() -> None:
    harness = Harness()
    peer = harness.client()
    harness.run_until(harness.now + 28)
    harness.put(Close(peer.conn))
    harness.run_until(harness.now + 4.9)
    before = peer.closed
    harness.run_until(harness.now + 0.2)

    assert (before, peer.aborted) == (False, True)


def test_message_that_was_complete_has_no_deadline_left() -> None:
    harness = Harness(QUIET)
    peer = harness.client()
    frame = text_frame({"type": "a"})
    peer.raw(frame[:5])
    harness.run_until(harness.now + 29)
    peer.raw(frame[5:])
    harness.run_until(harness.now + 1_000)

    assert harness.hub.is_open(peer.conn)
    assert harness.hub.next_deadline() is None


def test_message_has_a_deadline_of_its_own() -> None:
    harness = Harness(QUIET)
    peer = harness.client()
    peer.raw(b"\x81")

    assert when_closed(harness, peer, 100) == 30


def test_broadcasts_keep_their_receivers_from_being_idle() -> None:
    harness = Harness(HubConfig(ping_interval_s=0))
    member, other = harness.client("africa"), harness.client()
    harness.run_until(harness.now + 500)
    harness.put(Publish("africa", "chat", b"{}"))
    harness.run_until(harness.now + 500)

    assert harness.hub.is_open(member.conn)
    assert not harness.hub.is_open(other.conn)
    harness.put(SendToAll(b"x"))
    harness.run_until(harness.now + 599)
    assert harness.hub.is_open(member.conn)


def test_time_without_a_byte_taken_counts_from_when_a_connection_was_parked() -> None:
    harness = Harness(QUIET)
    peer = harness.client()
    harness.run_until(harness.now + 1_000)
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 2_000_000))
    harness.run_until(harness.now + 29)

    assert harness.hub.is_open(peer.conn)
    assert when_closed(harness, peer, 10) == 1


@pytest.mark.threat(13)
def test_row_13_a_reader_that_reads_slowly_is_no_dead_one() -> None:
    """Our ping stands behind what waits for it: bytes that it takes count as life."""
    harness = Harness(HubConfig(ping_interval_s=10, pong_timeout_s=5, idle_timeout_s=0))
    peer = harness.client()
    peer.takes = False
    harness.put(Send(peer.conn, b"x" * 60_000))
    for _ in range(50):
        harness.run_until(harness.now + 4)
        peer.flush(1_000)
    assert harness.hub.is_open(peer.conn)

    assert when_closed(harness, peer, 60) <= 15


@pytest.mark.threat(14)
def test_row_14_a_peer_that_takes_all_and_says_nothing_is_dead() -> None:
    harness = Harness(HubConfig(ping_interval_s=10, pong_timeout_s=5, idle_timeout_s=0))
    peer = harness.client()
    peer.takes = False
    for _ in range(15):
        harness.run_until(harness.now + 1)
        harness.put(Send(peer.conn, b"x"))
        peer.flush()

    assert not harness.hub.is_open(peer.conn)
