"""The rate of messages: over it a connection is not read, nothing is refused, and nobody else notices."""

from __future__ import annotations

import pytest

from vixws_core.config import HubConfig
from vixws_core.effects import PauseReading, PeerMisbehaved, ResumeReading
from vixws_core.inputs import Connected
from vixws_core.wire.frames import TEXT, encode_frame

from .harness import MASK, REQUEST, Harness, Peer

SLOW = HubConfig(messages_per_s=10.0, messages_burst=20)


def refs(peer: Peer) -> list[str]:
    return [message["ref"] for message in peer.messages()]


def ask(peer: Peer, *numbers: int) -> None:
    for number in numbers:
        peer.send({"type": "$ping", "ref": str(number)})


@pytest.mark.threat(7)
def test_row_7_over_its_rate_a_connection_is_not_read_until_its_messages_are_due() -> None:
    harness = Harness(SLOW)
    peer, other = harness.client(), harness.client()  # Its $hello is the first of the twenty.
    ask(peer, *range(19))
    assert harness.effects(PauseReading) == []
    ask(peer, 19, 20, 21)  # The bytes of the last two had left it already.

    assert [told.conn for told in harness.effects(PauseReading)] == [peer.conn]
    assert refs(peer) == [str(number) for number in range(20)]
    assert other.answer({"type": "$ping", "ref": "o"})["type"] == "$pong"

    harness.run_until(harness.now + 0.09)
    assert refs(peer) == []

    harness.run_until(harness.now + 0.02)
    assert refs(peer) == ["20", "21"]
    assert [told.conn for told in harness.effects(ResumeReading)] == [peer.conn]
    assert harness.effects(PeerMisbehaved) == []


@pytest.mark.threat(7)
def test_row_7_in_the_long_run_a_connection_gets_its_rate_and_loses_nothing() -> None:
    harness = Harness(SLOW)
    peer = harness.client()
    began = harness.now
    ask(peer, *range(300))
    taken: list[str] = []
    for second in range(1, 40):
        harness.run_until(began + second)
        taken += refs(peer)
        # Its burst, what is due by now, and at most the messages of one step more.
        assert len(taken) <= 20 + 10 * second + SLOW.events_per_step_max

    assert taken == [str(number) for number in range(300)]


@pytest.mark.threat(7)
def test_row_7_a_connection_that_is_not_limited_has_no_rate() -> None:
    harness = Harness(SLOW)
    peer = harness.peers[1] = Peer(harness, 1)
    harness.put(Connected(1, limited=False))
    peer.raw(REQUEST)
    ask(peer, *range(200))

    assert refs(peer) == [str(number) for number in range(200)]
    assert harness.effects(PauseReading) == []


@pytest.mark.threat(7)
def test_row_7_what_a_limited_connection_sent_before_it_went_is_handled() -> None:
    harness = Harness(SLOW)
    reader, peer = harness.client("africa"), harness.client()
    for _ in range(30):
        peer.publish("africa")
    peer.vanish()
    harness.settle()

    assert [message["off"] for message in reader.messages()] == list(range(1, 31))
    assert len(harness.closes(peer)) == 1


@pytest.mark.threat(7)
def test_row_7_fragments_cost_as_much_as_messages() -> None:
    harness = Harness(SLOW)
    peer = harness.client()
    peer.raw(encode_frame(TEXT, b"", MASK)[:1].replace(b"\x81", b"\x01") + encode_frame(TEXT, b"", MASK)[1:])
    peer.raw(b"".join(b"\x00" + encode_frame(TEXT, b"x", MASK)[1:] for _ in range(30)))

    assert [told.conn for told in harness.effects(PauseReading)] == [peer.conn]
