"""The counts behind the speed: writes, encodings, commits, and turns for others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from vixws_anyio import Server, SocketTransport
from vixws_core.effects import Broadcast, Effect, StoreAppend
from vixws_core.inputs import BytesFlushed, BytesReceived, Input, RoomAdvanced, StoreAppended
from vixws_store import SqliteMessageStore

from .rig import RawPeer, chat_server, frame, raw_peer, running

pytestmark = pytest.mark.anyio


class Steps:
    """A consumer that keeps every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[Input, list[Effect]]] = []

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        self.steps.append((input, list(effects)))

    def inputs(self, kind: type[Any]) -> list[Any]:
        return [input for input, _ in self.steps if type(input) is kind]

    def effects(self, kind: type[Any]) -> list[Any]:
        return [effect for _, effects in self.steps for effect in effects if type(effect) is kind]


class CountingSocket:
    """A socket that counts the calls that write."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.writes: list[int] = []

    def send(self, data: Any) -> int:
        count: int = self._sock.send(data)
        self.writes.append(count)
        return count

    def sendmsg(self, buffers: Any) -> int:
        count: int = self._sock.sendmsg(buffers)
        self.writes.append(count)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[CountingSocket]:
    """The sockets of the transports made from now on."""
    made: list[CountingSocket] = []
    begin = SocketTransport.__init__

    def count(self: SocketTransport, driver: Any, sock: Any, conn: int, peer: str) -> None:
        begin(self, driver, sock, conn, peer)
        made.append(CountingSocket(sock))
        self.sock = made[-1]  # type: ignore[assignment] # it does all that a socket does

    monkeypatch.setattr(SocketTransport, "__init__", count)
    return made


def echo_server(steps: Steps) -> Server:
    server = Server(port=0, metrics=steps)
    server.on_message(lambda session, message: session.send_text(message))
    return server


async def test_one_read_of_64_messages_costs_one_write(counting: list[CountingSocket]) -> None:
    steps = Steps()
    async with running(echo_server(steps)) as at, raw_peer(at.port) as peer:
        (sock,) = counting
        before = len(sock.writes)
        reads = len(steps.inputs(BytesReceived))
        await peer.stream.send(b"".join(frame(f"message {number}") for number in range(64)))
        told = [await peer.next() for _ in range(64)]

    assert told == [f"message {number}" for number in range(64)]
    assert len(steps.inputs(BytesReceived)) == reads + 1, "the kernel cut what the test needs in one read"
    assert len(sock.writes) == before + 1


async def test_many_connections_that_are_read_in_one_turn_are_told_flushed_in_one_record() -> None:
    steps = Steps()
    server = echo_server(steps)
    async with running(server) as at, raw_peer(at.port) as first, raw_peer(at.port) as second:
        before = len(steps.inputs(BytesFlushed))
        for session in server.sessions():
            session.send_text("to both")
        told = [await first.next(), await second.next()]
        flushed = steps.inputs(BytesFlushed)[before:]

    assert told == ["to both", "to both"]
    assert [len(record.flushed) for record in flushed] == [2]


async def test_a_room_broadcast_is_encoded_once() -> None:
    steps = Steps()
    server = chat_server(metrics=steps)
    server.route("/raw").on_open(lambda session: session.join("r"))
    async with running(server) as at, _members(at.port, 3) as peers:
        driver = server._running()._driver
        assert driver is not None
        server.broadcast_room_json("r", "note", {"n": 1})
        outboxes = [piece for link in driver.links.values() for piece in link.pieces]
        told = [await peer.receive() for peer in peers]

    (broadcast,) = steps.effects(Broadcast)
    assert len(broadcast.conns) == 3
    assert told[0] == told[1] == told[2]
    assert len(outboxes) == 3
    assert all(piece is broadcast.data for piece in outboxes)
    assert len(steps.effects(StoreAppend)) == 1


async def test_three_broadcasts_name_their_members_by_the_same_tuple() -> None:
    steps = Steps()
    server = chat_server(metrics=steps)
    server.route("/raw").on_open(lambda session: session.join("r"))
    async with running(server) as at, _members(at.port, 3) as peers:
        for number in range(3):
            await server.publish("r", "note", {"n": number})
        for peer in peers:
            for _ in range(3):
                await peer.receive()

    broadcasts = steps.effects(Broadcast)
    assert len(broadcasts) == 3
    assert {id(broadcast.conns) for broadcast in broadcasts} == {id(broadcasts[0].conns)}


async def test_256_publishes_in_flight_share_commits(tmp_path: Path) -> None:
    steps = Steps()
    server = chat_server(metrics=steps, store=SqliteMessageStore(tmp_path / "chat.db"))
    async with running(server) as at, raw_peer(at.port) as peer:
        await peer.receive()
        publishes = [frame({"type": "note", "room": "r", "ref": str(number)}) for number in range(256)]
        await peer.stream.send(b"".join(publishes))
        acks = [await peer.receive() for _ in range(256)]

    assert [ack["ref"] for ack in acks] == [str(number) for number in range(256)]
    assert [ack["payload"]["off"] for ack in acks] == list(range(1, 257))
    assert len(steps.inputs(StoreAppended)) == 256
    commits = steps.inputs(RoomAdvanced)
    assert sum(len(commit.entries) for commit in commits) == 256
    # Four steps of 64 messages bring the 256. Each may find the writer free, once; measured: 2 commits on each loop.
    assert len(commits) <= 8


@pytest.mark.threat(7)
async def test_row_7_a_flood_of_tiny_frames_leaves_others_their_turn() -> None:
    steps = Steps()
    server = Server(port=0, metrics=steps)
    server.on_message(lambda session, message: session.send_text("heard") if message == "ping me" else None)
    flood = frame("") * 9_000
    async with (
        running(server) as at,
        raw_peer(at.port) as attacker,
        raw_peer(at.port) as victim,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_flood, attacker, flood)
        for _ in range(20):
            await victim.stream.send(frame("ping me"))
            assert await victim.next() == "heard"
        tasks.cancel_scope.cancel()

    told = [effect for effect in _received(steps) if len(effect) > 1]
    assert told
    assert max(map(len, told)) <= 64


async def _flood(peer: RawPeer, data: bytes) -> None:
    while True:
        await peer.stream.send(data)


def _received(steps: Steps) -> list[tuple[Any, ...]]:
    return [effect.messages for _, effects in steps.steps for effect in effects if hasattr(effect, "messages")]


@asynccontextmanager
async def _members(port: int, count: int) -> AsyncGenerator[list[RawPeer]]:
    """So many raw peers, all in the room `r`."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(raw_peer(port, open=False)) for _ in range(count)]
        for peer in peers:
            await peer.open(target="/raw")
        yield peers
