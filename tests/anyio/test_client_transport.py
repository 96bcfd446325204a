"""The byte half of a client: attempts that are given up, marks that are kept, defects that are heard of."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import TaskGroup

from vixws_anyio.client.transport import ClientDriver
from vixws_core.client import OpenTransport, TransportFailed, TransportOpened
from vixws_core.effects import CloseTransport, SendBytes
from vixws_core.inputs import BytesReceived, Disconnected, TimePassed
from vixws_core.pump import Pump

from .rig import PATIENCE_S

pytestmark = pytest.mark.anyio


class Record(list[Any]):
    """A door that asks for what stands in `asks`, and keeps what it is told."""

    def __init__(self) -> None:
        self.asks: list[Any] = []

    def handle(self, input: Any, now: float, /) -> list[Any]:
        if isinstance(input, BytesReceived) and input.data == b"defect":
            raise RuntimeError("a defect")
        self.append(input)
        asks, self.asks = self.asks, []
        return asks

    def next_deadline(self) -> float | None:
        return None


class Rig:
    """A client's driver without a machine: the test asks in its place."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.driver = ClientDriver(tasks, ssl.create_default_context())
        self.told = Record()
        self.driver.attach(Pump(self.told, monotonic, (self.driver,)))

    def ask(self, *effects: Any) -> None:
        self.driver.see(monotonic(), TimePassed(), effects)

    async def wait_told(self, count: int) -> list[Any]:
        with anyio.fail_after(PATIENCE_S):
            while len(self.told) < count:
                await anyio.sleep(0.001)
        return list(self.told)


@asynccontextmanager
async def listening() -> AsyncGenerator[tuple[Rig, socket.socket, int]]:
    """A driver, and a listener with its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        async with anyio.create_task_group() as tasks:
            yield Rig(tasks), listener, listener.getsockname()[1]
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def accepted(listener: socket.socket) -> AsyncGenerator[socket.socket]:
    """The server's end of the next connection."""
    sock, _ = await anyio.to_thread.run_sync(listener.accept)
    with sock:
        sock.settimeout(PATIENCE_S)
        yield sock


async def received(sock: socket.socket) -> int:
    """Reads to the end; returns how much there was."""

    def read() -> int:
        count = 0
        while data := sock.recv(1 << 20):
            count += len(data)
        return count

    return await anyio.to_thread.run_sync(read)


async def test_an_attempt_is_given_up_in_the_middle_of_its_handshake() -> None:
    async with listening() as (rig, listener, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, True))
        async with accepted(listener) as peer:
            hello = await anyio.to_thread.run_sync(peer.recv, 16)
            rig.ask(CloseTransport(1, True))
            told = await rig.wait_told(1)
            await received(peer)

    assert len(hello) == 16
    assert told == [Disconnected(1, "closed")]


async def test_a_handshake_that_the_server_cuts_is_told_with_its_cause() -> None:
    async with listening() as (rig, listener, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, True))
        async with accepted(listener) as peer:
            await anyio.to_thread.run_sync(peer.recv, 1 << 16)
        told = await rig.wait_told(2)

    assert [type(input) for input in told] == [TransportFailed, Disconnected]
    assert re.fullmatch(rf"TLS with 127\.0\.0\.1:{port} failed: .+", told[0].reason)


@pytest.mark.parametrize("abort", [True, False])
async def test_an_attempt_is_given_up_before_it_has_begun(abort: bool) -> None:
    async with listening() as (rig, _, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, False), CloseTransport(1, abort))
        told = await rig.wait_told(1)

    assert told == [Disconnected(1, "closed")]


async def test_sends_wait_while_more_than_a_mebibyte_is_unsent() -> None:
    async with listening() as (rig, listener, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, False))
        async with accepted(listener) as peer:
            await rig.wait_told(1)
            await rig.driver.wait_sendable()
            rig.ask(*[SendBytes(1, bytes(4 << 20))] * 8)  # uvloop takes the first whatever the kernel says.
            with anyio.move_on_after(0.05) as waiting:
                await rig.driver.wait_sendable()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(received, peer)
                with anyio.fail_after(PATIENCE_S):
                    await rig.driver.wait_sendable()
                rig.ask(CloseTransport(1))

    assert waiting.cancelled_caught


async def test_sends_that_wait_go_on_where_the_connection_ends() -> None:
    async with listening() as (rig, _, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, False))
        await rig.wait_told(1)
        rig.ask(*[SendBytes(1, bytes(4 << 20))] * 8, CloseTransport(1, True))
        with anyio.fail_after(PATIENCE_S):
            await rig.driver.wait_sendable()
        told = await rig.wait_told(2)

    assert told == [TransportOpened(1), Disconnected(1, "aborted")]


async def test_what_was_sent_before_a_close_arrives() -> None:
    async with listening() as (rig, listener, port):
        rig.ask(OpenTransport(1, "127.0.0.1", port, False))
        async with accepted(listener) as peer:
            await rig.wait_told(1)
            rig.ask(*[SendBytes(1, bytes(size)) for size in (6, 100_000, 5)], CloseTransport(1))
            count = await received(peer)
        told = await rig.wait_told(2)

    assert count == 100_011
    assert [type(input) for input in told] == [TransportOpened, Disconnected]


async def test_a_defect_in_what_is_told_ends_the_client() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with listening() as (rig, listener, port):
            rig.ask(OpenTransport(1, "127.0.0.1", port, False))
            async with accepted(listener) as peer:
                await rig.wait_told(1)
                await anyio.to_thread.run_sync(peer.sendall, b"defect")
                with anyio.fail_after(PATIENCE_S):
                    await anyio.sleep_forever()

    assert caught.group_contains(RuntimeError, match="a defect")
