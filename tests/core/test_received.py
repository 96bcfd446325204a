"""One budget for what all connections have sent and nobody has handled yet."""

from __future__ import annotations

from vixws_core import HubConfig
from vixws_core.effects import PauseReading, ResumeReading
from vixws_core.wire.frames import TEXT, encode_frame

from .harness import MASK, Harness, Peer

KIB = 1_024
CONFIG = HubConfig(received_bytes_total=256 * KIB, message_timeout_s=30.0, ping_interval_s=0, idle_timeout_s=0)


def beginning(size: int, of: int = 64 * KIB) -> bytes:
    """So many bytes of a message that is larger."""
    return encode_frame(TEXT, b"x" * of, MASK)[: size + 14]


def reads(harness: Harness, peer: Peer) -> bool:
    told = [
        type(e)
        for _, _, effects in harness.steps
        for e in effects
        if isinstance(e, PauseReading | ResumeReading) and e.conn == peer.conn
    ]
    return not told or told[-1] is ResumeReading


def test_messages_that_are_not_complete_are_held_within_the_budget_and_end_in_time() -> None:
    harness = Harness(CONFIG)
    peers = [harness.client() for _ in range(12)]
    for peer in peers:
        peer.raw(beginning(40 * KIB))

    assert 256 * KIB < harness.hub.received_bytes < 256 * KIB + 12 * 64 * KIB
    assert [reads(harness, peer) for peer in peers] == [True] * 6 + [False] * 6
    quiet = harness.client()
    assert quiet.answer({"type": "$ping", "ref": "p"})["type"] == "$pong", "who holds nothing is read"

    harness.run_until(harness.now + 61)

    assert harness.hub.received_bytes == 0
    assert [peer.close_seen() for peer in peers] == [(1008, "message not complete in time")] * 12
    assert quiet.answer({"type": "$ping", "ref": "p"})["type"] == "$pong"


def test_who_was_not_read_is_again_when_the_others_are_done() -> None:
    harness = Harness(CONFIG)
    peers = [harness.client() for _ in range(8)]
    for peer in peers:
        peer.raw(beginning(40 * KIB))
    late = [peer for peer in peers if not reads(harness, peer)]
    assert late

    for peer in peers:
        if peer not in late:
            peer.vanish()

    assert all(reads(harness, peer) for peer in late)
    assert harness.hub.received_bytes == len(late) * 40 * KIB


def test_messages_that_wait_for_a_handler_count_and_are_let_go() -> None:
    harness = Harness(CONFIG)
    harness.finishing = False
    peers = [harness.connect() for _ in range(4)]
    for peer in peers:
        harness.finish(peer)
        for _ in range(6):
            peer.send({"type": "a", "payload": {"x": "y" * 30_000}})

    assert harness.hub.received_bytes > 256 * KIB
    assert not all(reads(harness, peer) for peer in peers)
    for _ in range(6):
        for peer in peers:
            harness.finish(peer)
            harness.settle()

    assert harness.hub.received_bytes == 0
    assert all(reads(harness, peer) for peer in peers)
    assert len(harness.received) == 24, "none is lost"


def test_every_way_to_end_lets_go_of_what_was_held() -> None:
    harness = Harness(CONFIG)
    harness.finishing = False
    for end in range(4):
        peer = harness.connect()
        harness.finish(peer)
        peer.send({"type": "a"})
        peer.send({"type": "a", "payload": {"x": "y" * 9_500}})
        peer.raw(beginning(9 * KIB))
        assert harness.hub.received_bytes >= 18_000
        if end == 0:
            peer.vanish()
            harness.finish(peer)
            harness.finish(peer)
        elif end == 1:
            harness.finish(peer, failed=True)
        elif end == 2:
            peer.raw(b"\xff\xff" * 40_000)
            harness.finish(peer)
            harness.finish(peer)
        else:
            harness.run_until(harness.now + 61)
        harness.run_until(harness.now + 10)

        assert harness.hub.received_bytes == 0, end
