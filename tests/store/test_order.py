"""A hub on a store: whoever joins and then publishes, in one read, gets the own message."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from tests.core.harness import text_frame, upgrade_request
from vixws_core import Hub, Pump
from vixws_core.effects import Broadcast, CloseTransport, Effect, FindPosition, Opened, Requested, SendBytes
from vixws_core.effects import StoreAppend as Append
from vixws_core.errors import StoreError
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    PositionKnown,
    RoomAdvanced,
    StoreAppended,
    StoreFailed,
    TimePassed,
)
from vixws_core.protocols import MessageStore
from vixws_core.wire.frames import FrameReader
from vixws_store import Limits, SqliteMessageStore

pytestmark = pytest.mark.anyio

TRIES = 200

READERS = 4
"""Tasks that read pages all the time."""


class Peers:
    """The other ends of a hub's connections: they take all that is sent, at once."""

    def __init__(self, store: MessageStore) -> None:
        self.out: dict[int, bytearray] = {}
        self._changed = anyio.Event()
        self.pump = Pump(
            Hub(),
            time.monotonic,
            [self, store.consumer],
            {
                Requested: lambda asked: self.pump.do(Accept(asked.conn, typed=True)),
                Opened: lambda opened: self.pump.put(HandlerFinished(opened.conn)),
            },
        )

    def see(self, now: float, input: Input, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendBytes | Broadcast):
                for conn in (effect.conn,) if isinstance(effect, SendBytes) else effect.conns:
                    self.out[conn] += effect.data
                    self.pump.put(BytesFlushed(((conn, len(effect.data)),)))
                self._changed.set()
            elif isinstance(effect, CloseTransport):
                self.pump.put(Disconnected(effect.conn))

    def send(self, conn: int, *messages: object) -> None:
        """Opens a connection and sends messages, all in one read."""
        self.out[conn] = bytearray()
        data = upgrade_request() + b"".join(map(text_frame, messages))
        self.pump.put(Connected(conn, "192.0.2.1:5000"), BytesReceived(conn, data))

    async def wait_texts(self, conn: int, part: str) -> list[str]:
        """Waits for a message that has this part; returns all that came up to then."""
        with anyio.fail_after(20):
            while True:
                frames = FrameReader(client=True, message_bytes_max=1 << 20).feed(
                    bytes(self.out[conn]).partition(b"\r\n\r\n")[2]
                )
                texts = [frame for frame in frames if isinstance(frame, str)]
                if any(part in text for text in texts):
                    return texts
                await self._changed.wait()
                self._changed = anyio.Event()


async def test_member_that_joins_and_publishes_at_once_gets_its_own_message(
    make_store: Callable[[], MessageStore],
) -> None:
    store = make_store()
    peers = Peers(store)
    async with store.run(peers.pump.put), anyio.create_task_group() as group:
        await store.append_batch(
            [Append(n, "big", "event", "note", b'{"x":"' + b"x" * 9_000 + b'"}') for n in range(99)]
        )
        for _ in range(READERS):
            group.start_soon(_read_beside, store)
        for conn in range(1, TRIES + 1):
            room = f"room{conn % 3}"
            peers.send(
                conn,
                {"type": "$join", "ref": "j", "room": room},
                {"type": "chat", "room": room, "ref": "p", "payload": {"n": conn}},
            )
            if conn % 4:  # Every fourth one's commit runs while the next one joins.
                await peers.wait_texts(conn, '"ref":"p"')
        for conn in range(1, TRIES + 1):
            texts = await peers.wait_texts(conn, f'"payload":{{"n": {conn}}}}}')
            types = [text.split('"')[3] for text in texts]

            assert types.count("$joined") == 1, texts
            assert types.index("$joined") < types.index("chat"), texts
        group.cancel_scope.cancel()


async def _read_beside(store: MessageStore) -> None:
    """Keeps whatever reads busy, so that a position that waits for it comes late."""
    while True:
        await store.read("big", 0, 99)


async def test_position_is_told_though_writing_fails(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", pages_max=60)
    posts: list[Input] = []
    failed = anyio.Event()

    def post(*inputs: Input) -> None:
        posts.extend(inputs)
        if any(isinstance(input, StoreFailed) for input in inputs):
            failed.set()

    async with store.run(post):
        await store.append("event", "room", "note", {})
        big = b'{"x":"' + b"x" * 500_000 + b'"}'
        store.consumer.see(0.0, TimePassed(), [FindPosition(1, "room"), Append(2, "room", "event", "note", big)])
        with anyio.fail_after(20):
            await failed.wait()

    told = [input for input in posts if not isinstance(input, RoomAdvanced)]
    first, second = told
    assert isinstance(first, PositionKnown)
    assert (first.request, first.head) == (1, 1)
    assert isinstance(second, StoreFailed)
    assert (second.request, second.code) == (2, "store_full")


async def test_store_that_fails_is_tried_though_positions_keep_coming(tmp_path: Path) -> None:
    limits = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)
    store = SqliteMessageStore(tmp_path / "a.db", limits=limits)
    posts: list[Input] = []
    async with store.run(lambda *inputs: posts.extend(inputs)):
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            await store.append("event", "room", "note", {})
        other.execute("ROLLBACK")
        other.close()
        assert not store.ready

        count = 0
        with anyio.fail_after(20):
            while not store.ready:
                store.consumer.see(0.0, TimePassed(), [FindPosition(count, "room")])
                count += 1
                await anyio.sleep(0.0005)  # Not as fast as can be: more than the queue holds would be refused.

    assert list(range(count)) == [input.request for input in posts if isinstance(input, PositionKnown)]


async def test_positions_that_wait_are_bounded(tmp_path: Path) -> None:
    posts: list[Input] = []
    store = SqliteMessageStore(tmp_path / "a.db", limits=Limits(queue_rows_max=3))
    async with store.run(lambda *inputs: posts.extend(inputs)):
        store.consumer.see(0.0, TimePassed(), [FindPosition(number, "room") for number in range(5)])
        refused = [(input.request, input.code) for input in posts if isinstance(input, StoreFailed)]

        assert refused == [(3, "store_unavailable"), (4, "store_unavailable")]

    assert [input.request for input in posts if isinstance(input, PositionKnown)] == [0, 1, 2]


async def test_more_positions_than_one_trip_takes_come_before_the_append(tmp_path: Path) -> None:
    posts: list[Input] = []
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run(lambda *inputs: posts.extend(inputs)):
        asks: list[Effect] = [FindPosition(number, f"room{number}") for number in range(2_500)]
        store.consumer.see(0.0, TimePassed(), [*asks, Append(2_500, "room7", "event", "note", b"{}")])

    assert list(range(2_500)) == [input.request for input in posts[:-2] if isinstance(input, PositionKnown)]
    assert [RoomAdvanced, StoreAppended] == [type(input) for input in posts[-2:]]
