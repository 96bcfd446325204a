"""What simulated worlds found in the hub, each in its smallest form at the hub's door."""

from __future__ import annotations

import json
from typing import Any

from vixws_core import Hub, HubConfig, StoredMessage
from vixws_core.effects import Broadcast, Effect, FindPosition, ReadStore, SendBytes, StoreAppend
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    HandlerFinished,
    Input,
    PositionKnown,
    RoomAdvanced,
    Send,
    StoreFailed,
    StoreRead,
)
from vixws_core.wire.frames import TEXT, FrameReader, encode_close, encode_frame

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Bench:
    """A hub, one step at a time; `hears` gathers what each connection is sent."""

    def __init__(self, **config: Any) -> None:
        self.hub = Hub(HubConfig(**config))
        self.effects: list[Effect] = []
        self.hears: dict[int, list[dict[str, Any]]] = {}

    def put(self, input: Input, now: float = 0.0) -> None:
        self.effects = self.hub.handle(input, now)
        for effect in self.effects:
            if isinstance(effect, SendBytes | Broadcast):
                for conn in effect.conns if isinstance(effect, Broadcast) else (effect.conn,):
                    if not effect.data.startswith(b"HTTP"):
                        items = FrameReader(client=True, message_bytes_max=1 << 30).feed(effect.data)
                        self.hears.setdefault(conn, []).extend(json.loads(i) for i in items if isinstance(i, str))

    def connect(self, conn: int) -> None:
        self.put(Connected(conn))
        self.put(BytesReceived(conn, REQUEST))
        self.put(Accept(conn))
        self.put(HandlerFinished(conn))

    def say(self, conn: int, type: str, room: str, ref: str, **payload: Any) -> None:
        text = json.dumps({"type": type, "room": room, "ref": ref, "payload": payload})
        self.put(BytesReceived(conn, encode_frame(TEXT, text.encode(), b"abcd")))

    def asked(self, kind: type[Any]) -> Any:
        """The one ask of that kind in the last step."""
        (found,) = [effect for effect in self.effects if isinstance(effect, kind)]
        return found

    def types(self, conn: int) -> list[str]:
        return [message["type"] for message in self.hears.get(conn, [])]

    def join_behind(self, conn: int, off: int, head: int, ref: str = "j") -> Any:
        """Joins room "a" at `off` of a log that ends at `head`; returns the read that follows."""
        self.say(conn, "$join", "a", ref, since={"ep": "e", "off": off})
        self.put(PositionKnown(self.asked(FindPosition).request, "e", 0, head, f"{head:020d}"))
        return self.asked(ReadStore)


def row(off: int) -> StoredMessage:
    return StoredMessage(f"{off:020d}", "event", "a", "note", "2030-01-01T00:00:00Z", b'{"n":%d}' % off, "e", off)


def advanced(*offs: int) -> RoomAdvanced:
    return RoomAdvanced("a", "e", offs[-1], tuple(row(off) for off in offs))


def test_a_page_read_before_the_newest_commit_is_no_sign_of_a_lost_log() -> None:
    bench = Bench()
    bench.connect(1)
    read = bench.join_behind(1, 1, 3)

    bench.put(advanced(4))  # Commits and reads are told in either order.
    bench.put(StoreRead(read.request, "e", 0, 3, (row(2), row(3))))

    assert bench.types(1) == ["$joined", "note", "note", "$live", "note"]


def test_an_empty_page_says_nothing_of_what_was_committed_after_it() -> None:
    bench = Bench()
    bench.connect(1)
    read = bench.join_behind(1, 1, 3)

    bench.put(advanced(4))
    bench.put(StoreRead(read.request, "e", 3, 3, ()))  # All was trimmed up to 3 when it was read.

    assert bench.types(1) == ["$joined", "$gap", "$live", "note"]
    assert bench.hears[1][1]["payload"] == {"from": 2, "to": 3, "id": ""}


def test_a_page_that_comes_to_a_parked_connection_waits_in_the_log() -> None:
    bench = Bench(unsent_bytes_low=500, unsent_bytes_high=1_000)
    bench.connect(1)
    read = bench.join_behind(1, 1, 3)
    bench.put(Send(1, b'{"type":"big","payload":"%s"}' % (b"x" * 1_000)))

    bench.put(StoreRead(read.request, "e", 0, 3, (row(2), row(3))))

    assert bench.types(1) == ["$joined", "big"]

    bench.put(BytesFlushed(((1, bench.hub.unsent_bytes_of(1)),)))
    bench.put(StoreRead(bench.asked(ReadStore).request, "e", 0, 3, (row(2), row(3))))

    assert bench.types(1) == ["$joined", "big", "note", "note", "$live"]


def test_live_is_told_before_what_is_newer_than_the_announced_head() -> None:
    bench = Bench(unsent_bytes_low=100)
    bench.connect(1)
    bench.say(1, "$join", "a", "j")  # Its answers fill the connection up to the low mark: nothing is read on.
    bench.put(PositionKnown(bench.asked(FindPosition).request, "e", 0, 3, f"{3:020d}"))
    bench.put(advanced(4))
    bench.put(BytesFlushed(((1, bench.hub.unsent_bytes_of(1)),)))

    assert bench.types(1) == ["$joined", "$live", "note"]


def test_a_join_that_was_left_before_its_answer_is_answered_once() -> None:
    bench = Bench()
    bench.connect(1)
    bench.say(1, "$join", "a", "j")
    find = bench.asked(FindPosition)
    bench.say(1, "$leave", "a", "l")
    bench.put(PositionKnown(find.request, "e", 0, 0, ""))

    assert [(message["type"], message["ref"]) for message in bench.hears[1]] == [("$err", "j"), ("$left", "l")]


def test_a_join_that_was_repeated_before_its_answer_is_answered_once() -> None:
    bench = Bench()
    bench.connect(1)
    bench.say(1, "$join", "a", "j1")
    first = bench.asked(FindPosition)
    bench.say(1, "$join", "a", "j2")
    second = bench.asked(FindPosition)
    for find in (first, second):
        bench.put(PositionKnown(find.request, "e", 0, 0, ""))

    assert [(message["type"], message.get("ref")) for message in bench.hears[1]] == [
        ("$err", "j1"),
        ("$joined", "j2"),
        ("$live", None),
    ]


def test_a_join_whose_position_cannot_be_had_is_answered_once() -> None:
    bench = Bench()
    bench.connect(1)
    bench.say(1, "$join", "a", "j")
    bench.put(StoreFailed(bench.asked(FindPosition).request, "store_unavailable"))

    assert [(message["type"], message["ref"]) for message in bench.hears[1]] == [("$err", "j")]


def test_nothing_follows_the_close_frame_of_a_connection_that_was_joining() -> None:
    bench = Bench()
    bench.connect(1)
    bench.say(1, "$join", "a", "j")
    bench.put(BytesReceived(1, encode_close(1000, "", b"abcd")))

    assert bench.types(1) == []


def test_a_publish_sent_again_to_another_run_of_the_server_has_the_same_key() -> None:
    keys = set()
    for seed in (b"one", b"two"):  # A server draws its seed at each start.
        bench = Bench()
        bench.hub = Hub(seed=seed)
        bench.connect(1)
        bench.put(BytesReceived(1, encode_frame(TEXT, b'{"type":"$hello","payload":{"pub":"p"}}', b"abcd")))
        text = b'{"type":"note","room":"a","mid":"m","payload":{}}'
        bench.put(BytesReceived(1, encode_frame(TEXT, text, b"abcd")))
        ask = bench.asked(StoreAppend)
        keys.add((ask.room, ask.scope, ask.mid))

    assert len(keys) == 1
