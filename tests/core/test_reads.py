"""What is read of rooms' logs: bounded for all sessions together, in turns, and only for those who take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.effects import ReadStore
from vixws_core.hub.rooms.pages import READS_MAX
from vixws_core.inputs import PositionKnown, Publish, StoreFailed
from vixws_core.message import encode_json

from .harness import Harness, Peer
from .test_costs import lines

ROWS = 500
MOST = READS_MAX + ROWS
"""Rows under way: as many as start no further read, and one page that was asked for below that."""


def full(**more: Any) -> Harness:
    """A hub whose store is held, and two rooms with more than a page that no tail covers."""
    harness = Harness(HubConfig(**{"asks_per_s": 0, "tail_bytes_room": 1, **more}))
    for number in range(ROWS + 100):
        harness.put(*(Publish(room, "chat", encode_json({"n": number})) for room in ("africa", "asia")))
    harness.store_held = True
    return harness


def history(limit: int = ROWS, ref: str = "h", room: str = "africa") -> dict[str, object]:
    return {"type": "$history", "room": room, "ref": ref, "payload": {"limit": limit}}


def reads(harness: Harness) -> list[ReadStore]:
    """The reads that the store was asked for and has not answered."""
    return [ask for ask in harness.asks if isinstance(ask, ReadStore)]


def clients(harness: Harness, count: int) -> list[Peer]:
    return [harness.client() for _ in range(count)]


def answered(peers: Sequence[Peer]) -> list[int]:
    """How many pages each has got since the last look."""
    return [peer.types().count("$page") for peer in peers]


@pytest.mark.threat(32)
def test_row_32_what_all_sessions_read_of_logs_at_once_is_bounded() -> None:
    harness = full()
    for peer in clients(harness, 50):
        peer.send(*(history(ref=str(number)) for number in range(16)))
    most = 0
    while reads(harness):
        most = max(most, sum(ask.rows_max for ask in reads(harness)))
        harness.deliver()

    assert 0 < most <= MOST
    assert sum(answered(list(harness.peers.values()))) == 50 * 16


@pytest.mark.threat(32)
def test_row_32_small_questions_go_together_and_large_rows_do_not() -> None:
    small = full()
    for peer in clients(small, 50):
        peer.send(history(limit=1))
    large = full(message_bytes_max=2 << 20)
    for peer in clients(large, 50):
        peer.send(history(limit=1))

    assert len(reads(small)) == 50
    assert sum(ask.bytes_max for ask in reads(large)) <= 6 << 20


@pytest.mark.threat(32)
def test_row_32_who_asks_once_waits_for_one_page_of_each_other_and_not_for_all_they_asked() -> None:
    harness = full()
    greedy = clients(harness, 5)
    for peer in greedy:
        peer.send(*(history(ref=str(number)) for number in range(16)))
    (modest,) = clients(harness, 1)
    modest.send(history())
    rounds = 0
    while not answered([modest])[0]:
        harness.deliver()
        rounds += 1

    assert rounds <= 4
    turns = answered(greedy)
    assert min(turns) >= 1 and max(turns) <= 3, "the first two reads were of who came first"


@pytest.mark.threat(32)
def test_row_32_catching_up_has_every_second_turn() -> None:
    harness = full()
    for peer in clients(harness, 20):
        peer.send(*(history(ref=str(number)) for number in range(16)))
    reader = harness.client()
    reader.send({"type": "$join", "room": "asia", "ref": "j", "payload": {"last": 200}})
    rounds = 0
    while "$live" not in reader.types():
        harness.deliver()
        rounds += 1

    assert rounds <= 4


@pytest.mark.threat(32)
def test_row_32_who_takes_nothing_asks_for_nothing_until_it_does() -> None:
    harness = full(unsent_bytes_low=20_000, unsent_bytes_high=40_000)
    peer, other = clients(harness, 2)
    peer.takes = False
    peer.send(*(history(ref=str(number)) for number in range(16)))
    while reads(harness):
        harness.deliver()
    held = harness.hub.unsent_bytes_of(peer.conn)
    got = answered([peer])[0]
    other.send(history())
    harness.deliver_all()
    assert answered([other]) == [1]

    assert 0 < got <= 3
    assert held <= 40_000 + 2 * 65_536
    for _ in range(100):
        peer.flush()
        harness.settle()
        harness.deliver_all()
    assert got + answered([peer])[0] == 16, "none is lost"


def test_what_a_session_asked_before_it_went_is_not_read() -> None:
    harness = full()
    gone, stays = clients(harness, 2)
    gone.send(*(history(ref=str(number)) for number in range(16)))
    stays.send(history())
    before = len(harness.effects(ReadStore))
    gone.vanish()
    harness.deliver_all()

    assert len(harness.effects(ReadStore)) - before == 1
    assert answered([stays]) == [1]
    assert harness.hub.connections == 1


def test_a_page_that_waits_for_nobody_any_more_is_not_read() -> None:
    harness = full()
    (busy,) = clients(harness, 1)
    gone = [harness.client() for _ in range(3)]
    busy.send(*(history(ref=str(number)) for number in range(4)))
    for number, peer in enumerate(gone):
        peer.send({"type": "$join", "room": "asia", "payload": {"last": 300 + number}})
    answers = harness.run_store()
    harness.deliver([answer for answer in answers if isinstance(answer, PositionKnown)])
    for peer in gone:
        peer.vanish()
    before = len(harness.effects(ReadStore))
    again = harness.client()
    again.send({"type": "$join", "room": "asia", "payload": {"last": 300}})
    harness.deliver([answer for answer in answers if not isinstance(answer, PositionKnown)])
    harness.deliver_all()

    assert [ask.room for ask in harness.effects(ReadStore)[before:]].count("asia") <= 1
    assert again.types().count("chat") == 300


def test_reads_that_fail_make_room_for_others() -> None:
    harness = full()
    peers = clients(harness, 10)
    for peer in peers:
        peer.send(history())
    while reads(harness):
        asks, harness.asks = reads(harness), []
        harness.put(*(StoreFailed(ask.request, "store_unavailable", "locked", True) for ask in asks))

    assert [peer.types() for peer in peers] == [["$err"]] * 10
    peers[0].send(history())
    harness.deliver()
    assert answered(peers[:1]) == [1]


def shared_page(members: int) -> int:
    """Lines of the hub for the answer to a page that so many wait for."""
    harness = full()
    peers = clients(harness, members)
    for peer in peers:
        peer.send({"type": "$join", "room": "africa", "payload": {"since": {"ep": "ep1", "off": 100}}})
    harness.deliver()
    assert len(reads(harness)) == 1
    found = lines(harness.deliver)
    assert [peer.types().count("chat") for peer in peers] == [ROWS] * members
    return found


@pytest.mark.threat(32)
def test_row_32_a_page_that_many_share_is_encoded_once() -> None:
    one, many = shared_page(1), shared_page(51)

    assert many - one <= 50 * 100, "which is less than a line for a row of each"


def test_a_page_in_which_live_is_told_is_sent_around_it() -> None:
    """The head that was announced stands within the page: what came meanwhile is behind `$live`."""
    harness = full()
    reader = harness.client()
    reader.send(*({"type": "$join", "room": room, "payload": {"last": 50}} for room in ("asia", "africa")))
    harness.deliver()
    assert [ask.room for ask in reads(harness)] == ["asia"], "a session reads one page at a time"
    asia = harness.run_store()
    harness.store_held = False
    for number in range(10):
        harness.put(Publish("africa", "late", encode_json({"n": number})))
    harness.store_held = True
    harness.deliver(asia)
    (ask,) = reads(harness)
    harness.deliver_all()
    types = [message["type"] for message in reader.messages() if message.get("room") == "africa"]

    assert (ask.after, ask.until) == (ROWS + 50, ROWS + 110)
    assert types == ["$joined", *["chat"] * 50, "$live", *["late"] * 10]
