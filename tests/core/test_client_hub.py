"""The client's machine and the real hub, byte by byte in memory: two doors that face each other."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vixws_core.client import (
    ClientConfig,
    ClientJoin,
    ClientLeave,
    ClientMachine,
    ClientMessage,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientStart,
    ClientState,
    ClientStop,
    MessageHandled,
    OpenTransport,
    PublishSettled,
    RequestSettled,
    RoomJoined,
    RoomLive,
    TransportFailed,
    TransportOpened,
)
from vixws_core.config import HubConfig
from vixws_core.effects import AppMessage, Broadcast, CloseTransport, MessageReceived, Opened, Requested, SendBytes
from vixws_core.hub import Hub
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Send,
    TimePassed,
)
from vixws_core.log import LogExecutor, PureLog
from vixws_core.pump import Pump


class Loop:
    """A hub that echoes, clients, and perfect wires that cut what they carry into pieces of `size` bytes."""

    def __init__(self, size: int = 1 << 20, config: HubConfig | None = None) -> None:
        self.size = size
        self.now = 0.0
        self.up = True
        self.log = PureLog("e1")
        self.hub = Hub(config or HubConfig(), seed=b"hub")
        self.pump = Pump(self.hub, lambda: self.now, (LogExecutor(self.log, self._post, lambda: "t"), self))
        self.clients: dict[int, tuple[Side, int]] = {}
        self._conns = 0
        self._due: deque[Any] = deque()

    def _post(self, *inputs: Any) -> None:
        self.pump.put(*inputs)

    def see(self, now: float, input: object, effects: Sequence[Any]) -> None:
        """Carries out what the hub asks, and is its application: everything is accepted, `echo` is echoed."""
        for effect in effects:
            match effect:
                case SendBytes(conn, data):
                    self._down(conn, data)
                case Broadcast(conns, data):
                    for conn in conns:
                        self._down(conn, data)
                case CloseTransport(conn):
                    self.cut(conn)
                case Requested(conn=conn):
                    self._due.append(Accept(conn))
                case Opened(conn=conn):
                    self._due.append(HandlerFinished(conn))
                case MessageReceived(conn, messages):
                    for message in messages:
                        assert isinstance(message, AppMessage)
                        self._due.append(Send(conn, b'{"type":"echoed","payload":%b}' % message.payload))
                    self._due.append(HandlerFinished(conn))
                case _:
                    continue

    def _down(self, conn: int, data: bytes) -> None:
        self._due.append(BytesFlushed(((conn, len(data)),)))
        if conn in self.clients:
            side, own = self.clients[conn]
            for at in range(0, len(data), self.size):
                side.inbox.append(BytesReceived(own, data[at : at + self.size]))

    def cut(self, conn: int) -> None:
        """Ends a connection for both sides."""
        link = self.clients.pop(conn, None)
        if link is not None:
            side, own = link
            side.inbox.append(Disconnected(own))
            side.conns.pop(own, None)
            self._due.append(Disconnected(conn))

    def connect(self, side: Side, own: int) -> None:
        self._conns += 1
        self.clients[self._conns] = (side, own)
        side.conns[own] = self._conns
        self._due.append(Connected(self._conns))
        side.inbox.append(TransportOpened(own))

    def run(self, *sides: Side) -> None:
        """Until nothing is under way any more."""
        busy = True
        while busy:
            busy = False
            while self._due:
                self.pump.put(self._due.popleft())
                busy = True
            for side in sides:
                busy = side.turn() or busy

    def wait(self, *sides: Side, seconds: float) -> None:
        """Lets time pass, meeting every deadline."""
        end = self.now + seconds
        while True:
            doors: list[Hub | ClientMachine] = [self.hub, *(side.machine for side in sides)]
            deadlines = [at for door in doors if (at := door.next_deadline()) is not None and at <= end]
            self.now = max(self.now, min(deadlines, default=end))
            self._due.append(TimePassed())
            for side in sides:
                side.inbox.append(TimePassed())
            self.run(*sides)
            if not deadlines:
                return


class Side:
    """One client and its application, which handles what it is told at once unless it is `slow`."""

    def __init__(self, loop: Loop, name: str, **options: Any) -> None:
        self.loop = loop
        self.machine = ClientMachine("ws://hub/", seed=name.encode(), **options)
        self.inbox: deque[Any] = deque([ClientStart()])
        self.conns: dict[int, int] = {}
        self.told: list[Any] = []
        self.slow = False

    def do(self, *asks: Any) -> None:
        self.inbox.extend(asks)
        self.loop.run(self)

    def turn(self) -> bool:
        """Puts what waits; True where there was something."""
        if not self.inbox:
            return False
        for effect in self.machine.handle(self.inbox.popleft(), self.loop.now):
            self.told.append(effect)
            match effect:
                case OpenTransport(conn=own):
                    if self.loop.up:
                        self.loop.connect(self, own)
                    else:
                        self.inbox.append(TransportFailed(own, "down"))
                case SendBytes(own, data) if own in self.conns:
                    for at in range(0, len(data), self.loop.size):
                        self.loop._due.append(BytesReceived(self.conns[own], data[at : at + self.loop.size]))
                case CloseTransport(own) if own in self.conns:
                    self.loop.cut(self.conns[own])
                case ClientMessage(number=number) if not self.slow:
                    self.inbox.append(MessageHandled(number))
                case _:
                    continue
        return True

    def of(self, kind: type) -> list[Any]:
        return [effect for effect in self.told if type(effect) is kind]

    def offsets(self, room: str = "r") -> list[int]:
        return [message.off for message in self.of(ClientMessage) if message.room == room]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_everything_a_client_asks_the_hub_answers(size: int) -> None:
    loop = Loop(size)
    ada, bob = Side(loop, "ada"), Side(loop, "bob")
    loop.run(ada, bob)
    assert (ada.machine.state, bob.machine.state) == (ClientState.OPEN, ClientState.OPEN)
    ada.do(ClientJoin("r", last=5), ClientSend(b'{"type":"echo","payload":{"a":1}}'))
    bob.do(*(ClientPublish(n, "r", "chat", b'{"n":%d}' % n) for n in range(3)))
    ada.do(ClientRequest(1, "$position", "r"), ClientRequest(2, "$history", "r", b'{"limit":2}'))
    ada.do(ClientLeave("r"))
    bob.do(ClientPublish(9, "r", "chat"), ClientPublish(10, "@user/x", "chat"), ClientStop())
    loop.run(ada, bob)

    assert ada.offsets() == [1, 2, 3]
    assert [message.payload for message in ada.of(ClientMessage) if message.type == "echoed"] == [b'{"a":1}']
    assert [(joined.off, joined.reason) for joined in ada.of(RoomJoined)] == [(0, "fresh")]
    assert ada.of(RoomLive) == [RoomLive("r", 0)]
    position, history = ada.of(RequestSettled)
    assert json.loads(position.payload)["head"] == 3
    assert [row["off"] for row in json.loads(history.payload)["messages"]] == [3, 2]
    assert [settled.off for settled in bob.of(PublishSettled)][:4] == [1, 2, 3, 4]
    assert bob.machine.state is ClientState.STOPPED
    assert (ada.machine.duplicates_dropped, ada.machine.jumps, ada.machine.late_dropped) == (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["publish", "cut", "wait", "slow", "quick", "down"]), max_size=40),
    st.integers(1, 200),
    st.integers(1, 4),
)
def test_every_message_is_told_once_and_in_order_whatever_breaks(steps: list[str], size: int, most: int) -> None:
    loop = Loop(size)
    reader = Side(loop, "reader", config=ClientConfig(room_unhandled_max=most))
    writer = Side(loop, "writer")
    both = (reader, writer)
    reader.inbox.append(ClientJoin("r", last=1000))
    loop.run(*both)
    published = 0
    for step in steps:
        match step:
            case "publish":
                published += 1
                writer.inbox.append(ClientPublish(published, "r", "chat", b'{"n":%d}' % published))
                writer.turn()
            case "cut":
                for conn in tuple(loop.clients):
                    loop.cut(conn)
            case "down":
                loop.up = not loop.up
            case "slow" | "quick":
                reader.slow = step == "slow"
            case _:
                loop.wait(*both, seconds=0.7)
    loop.up = True
    reader.slow = False
    for message in reader.of(ClientMessage):
        reader.inbox.append(MessageHandled(message.number))
    loop.wait(*both, seconds=120)

    assert reader.offsets() == list(range(1, published + 1))
    assert [json.loads(row.payload_json)["n"] for row in loop.log.read("r", 0, 1000).rows] == list(
        range(1, published + 1)
    )
    assert all(settled.ok for settled in writer.of(PublishSettled))
    assert len(writer.of(PublishSettled)) == published
    if published:
        assert reader.machine.positions["r"][1] == published
