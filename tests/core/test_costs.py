"""What must not grow: heap entries with resumes, a retry with other sessions, a publish with one who is parked, a
head's bytes with those before them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import vixws_core
from vixws_core import HubConfig
from vixws_core.inputs import HandlerFinished, Publish, StoreFailed
from vixws_core.wire.http import HeadReader

from .harness import Harness, text_frame

CORE = str(Path(vixws_core.__file__).parent / "hub")
WIRE = str(Path(vixws_core.__file__).parent / "wire")


def lines(act: Callable[[], object], folder: str = CORE) -> int:
    """Lines of the hub, or of another folder, that run while `act` does."""
    count = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def test_2000_resumes_leave_one_entry_in_the_heap() -> None:
    harness = Harness(HubConfig(pending_messages_max=1))
    peer = harness.client()
    harness.finishing = False
    for number in range(2_000):
        harness.now += 0.001
        peer.raw(text_frame({"type": "a"}) + text_frame({"type": "b"}))
        harness.put(HandlerFinished(peer.conn))
        harness.put(HandlerFinished(peer.conn))
        assert harness.hub.timers == 1, f"after {number + 1} resumes"


def test_entries_that_were_replaced_are_bounded() -> None:
    """A connection at its rate is looked at early, again and again: each time with an entry before the ping's."""
    harness = Harness(HubConfig(messages_per_s=1_000, messages_burst=1, ping_interval_s=3_600))
    peer = harness.client()
    most = 0
    for _ in range(2_000):
        peer.raw(text_frame({"type": "a"}) * 3)
        most = max(most, harness.hub.timers)
        harness.pass_time(0.002)

    assert most <= 2 + 64


def failed_positions(sessions: int) -> tuple[Harness, list[int]]:
    """Sessions of the application's joins, whose positions could not be had."""
    harness = Harness()
    harness.store_held = True
    clients = [harness.client() for _ in range(sessions)]
    for client in clients:
        client.send({"type": "$join", "room": "africa"})
    for ask in tuple(harness.asks):
        harness.put(StoreFailed(ask.request, "store_unavailable", "held"))
    harness.asks.clear()
    return harness, [client.conn for client in clients]


def test_a_retry_costs_as_much_as_the_members_that_lack_an_answer() -> None:
    few, many = failed_positions(100)[0], failed_positions(200)[0]
    one = lines(lambda: few.pass_time(0.5))
    two = lines(lambda: many.pass_time(0.5))

    assert (len(few.asks), len(many.asks)) == (100, 200)
    assert two <= 2.2 * one


def publishing(parked: int, members: int = 200) -> int:
    """Lines of the hub for one publish into a room where so many of the members are parked."""
    harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000, tail_bytes_room=1))
    peers = [harness.client("africa") for _ in range(members)]
    for peer in peers[:parked]:
        peer.takes = False
    for _ in range(80):
        harness.put(Publish("africa", "chat", b'{"text":"' + b"x" * 100 + b'"}'))
    assert sum(harness.hub.unsent_bytes_of(peer.conn) > 6_000 for peer in peers) == parked
    return lines(lambda: harness.put(Publish("africa", "chat", b'{"text":"Hi"}')))


def test_one_who_is_parked_makes_no_publish_look_at_all_members() -> None:
    assert publishing(parked=1) <= publishing(parked=0) + 20


class Looked(bytearray):
    """A buffer that counts the bytes which are searched for the end of a head."""

    searched = 0

    def find(self, *arguments: Any) -> int:
        self.searched += len(self) - arguments[1]
        return super().find(*arguments)


def test_a_head_that_comes_byte_by_byte_is_looked_at_once() -> None:
    reader = HeadReader(8_192, 64)
    looked = reader._buffer = Looked()
    head = b"GET / HTTP/1.1\r\nHost: example.com\r\nX: " + b"x" * 4_000 + b"\r\n\r\n"
    steps = [lines(lambda at=at: reader.feed(head[at : at + 1]), WIRE) for at in range(len(head) - 1)]  # type: ignore[misc]

    assert looked.searched <= 4 * len(head)
    assert max(steps) - min(steps) <= 2, "the last byte costs as much as the first"
    assert reader.feed(head[-1:])[0] is not None
