"""What one turn of a driver may do at most, so that no connection keeps the others waiting."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import groupby
from time import monotonic
from typing import Any

import anyio
import pytest

from vixws_anyio.server.admission import Admission, AdmissionLimits
from vixws_anyio.transport.driver import Driver
from vixws_anyio.transport.interface import Watched
from vixws_anyio.transport.loops import driver_for
from vixws_anyio.transport.pieces import Piece
from vixws_anyio.transport.socket import SocketTransport
from vixws_anyio.transport.turns import LITTLE_BYTES, READS_MAX, Turns
from vixws_core.effects import Broadcast
from vixws_core.inputs import BytesFlushed, BytesReceived, Disconnected, Input, TimePassed
from vixws_core.pump import Pump

from .rig import PATIENCE_S


class Record(list[Input]):
    """A door that asks for nothing and keeps what it is told."""

    def handle(self, input: Input, now: float, /) -> list[Any]:
        self.append(input)
        return []

    def next_deadline(self) -> float | None:
        return None


class StillDriver(Driver):
    """A driver without a loop: the test does what a loop would, and sees what the driver asks of it."""

    def __init__(self) -> None:
        super().__init__(Admission(AdmissionLimits(), monotonic), 1.0, 0)
        self.told = Record()
        self.attach(Pump(self.told, monotonic))
        self.ticks_asked = 0
        self.wait_for_room: list[int] = []

    def _schedule(self) -> None:
        self.ticks_asked += 1

    def _arm(self, deadline: float) -> None:
        assert deadline > 0

    def watch_readable(self, link: Watched) -> None:
        pass  # The tests read when they want to.

    def unwatch_readable(self, link: Watched) -> None:
        pass  # The tests read when they want to.

    def watch_writable(self, link: Watched) -> None:
        self.wait_for_room.append(link.conn)

    def unwatch_writable(self, link: Watched) -> None:
        self.wait_for_room.remove(link.conn)

    def forget(self, link: Watched) -> None:
        pass

    def listen(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        raise AssertionError("the tests accept themselves")

    def stop_listening(self) -> None:
        raise AssertionError("the tests accept themselves")

    def close(self) -> None:
        for link in list(self.links.values()):
            self.lost(link, "closed")

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        raise AssertionError("the tests have one thread")


class MemoryTransport:
    """A transport whose peer takes everything at once."""

    def __init__(self, driver: Driver, conn: int) -> None:
        self.driver = driver
        self.conn = conn
        self.peer = "192.0.2.1:9"
        self.pieces: list[Piece] = []
        self.dirty = False

    def flush(self) -> bool:
        self.driver.flushed.append((self.conn, sum(map(len, self.pieces))))
        self.pieces.clear()
        return False

    def pause(self) -> None:
        raise AssertionError("nothing asks for it")

    resume = finish = close = pause

    def abort(self, reason: str) -> None:
        raise AssertionError(reason)


class MeasuredSocket(socket.socket):
    """A socket whose kernel takes so many bytes of each `sendmsg` in turn, and then none."""

    def __init__(self, sock: socket.socket, takes: Iterable[int]) -> None:
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self.takes = list(takes)
        self.buffers: list[int] = []

    def sendmsg(self, buffers: Iterable[Any], *arguments: Any) -> int:
        pieces = list(buffers)
        self.buffers.append(len(pieces))
        if not self.takes:
            raise BlockingIOError
        return self.send(b"".join(pieces)[: self.takes.pop(0)])


@contextmanager
def linked(takes: Iterable[int] = ()) -> Generator[tuple[StillDriver, SocketTransport, socket.socket]]:
    """A driver with one connection, and the peer's end of it."""
    ours, theirs = socket.socketpair()
    driver = StillDriver()
    with theirs:
        link = SocketTransport(driver, MeasuredSocket(ours, takes), 1, "192.0.2.1:9")
        driver.links[1] = link
        link.resume()
        try:
            yield driver, link, theirs
        finally:
            driver.close()


def measured(link: SocketTransport) -> MeasuredSocket:
    assert isinstance(link.sock, MeasuredSocket)
    return link.sock


def receive_all(sock: socket.socket, size: int) -> bytes:
    sock.settimeout(PATIENCE_S)
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more
        data += more
    return data


# ---- ending -------------------------------------------------------------------------------------


def test_a_peer_that_writes_on_behind_our_end_is_cut_off_over_64_kib() -> None:
    with linked() as (driver, link, peer):
        link.finish()
        link.flush()
        peer.sendall(b"x" * 65_536)
        for _ in range(8):
            link.receive()
        stays = 1 in driver.links
        peer.sendall(b"x")
        link.receive()
        driver.tick()

        assert stays
        assert list(driver.told) == [Disconnected(1, "closed")]


# ---- ticks --------------------------------------------------------------------------------------


def test_a_tick_flushes_500_outboxes_and_asks_for_the_next() -> None:
    driver = StillDriver()
    conns = tuple(range(600))
    driver.links.update((conn, MemoryTransport(driver, conn)) for conn in conns)
    driver.see(0.0, TimePassed(), [Broadcast(conns, b"hello")])
    asked = [driver.ticks_asked]
    for _ in range(2):
        driver.tick()
        asked.append(driver.ticks_asked)
    told = [input.flushed for input in driver.told if isinstance(input, BytesFlushed)]

    assert [len(flushed) for flushed in told] == [500, 100]
    assert [conn for flushed in told for conn, _ in flushed] == list(conns)
    assert asked == [1, 2, 2]


def test_one_wake_up_accepts_64_connections() -> None:
    driver = StillDriver()
    taken: list[socket.socket] = []
    counts: list[int] = []
    peers: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)
        try:
            peers += [socket.create_connection(listener.getsockname()) for _ in range(70)]
            for _ in range(2):
                assert driver.accept(listener, lambda sock, peer: taken.append(sock)) == 0.0
                counts.append(len(taken))
        finally:
            for sock in (*peers, *taken):
                sock.close()

    assert counts == [64, 70]


# ---- reading ------------------------------------------------------------------------------------


class Toil(Record):
    """A door that takes as many milliseconds for each read as it has bytes."""

    now = 0.0

    def handle(self, input: Input, now: float, /) -> list[Any]:
        if isinstance(input, BytesReceived):
            self.now += len(input.data) / 1_000
        return super().handle(input, now)


MUCH = b"x" * (LITTLE_BYTES + 1)
"""A read of which it is looked at how long it took."""


@contextmanager
def sending(sizes: Iterable[int]) -> Generator[tuple[StillDriver, list[SocketTransport], list[socket.socket]]]:
    """A driver with connections whose peers have sent so many bytes each, which were read."""
    driver, door = StillDriver(), Toil()
    driver.told = door
    driver.attach(Pump(door, monotonic))
    driver.turns = Turns(driver.wake, lambda: door.now)
    peers: list[socket.socket] = []
    links: list[SocketTransport] = []
    try:
        for conn, size in enumerate(sizes):
            ours, theirs = socket.socketpair()
            peers.append(theirs)
            ours.setblocking(False)
            link = SocketTransport(driver, ours, conn, "192.0.2.1:9")
            links.append(link)
            driver.links[conn] = link
            link.resume()
            theirs.sendall(b"x" * size)
            link.receive()
        driver.tick()
        yield driver, links, peers
    finally:
        driver.close()
        for peer in peers:
            peer.close()


def turn(driver: StillDriver, links: Sequence[SocketTransport]) -> list[int]:
    """One turn of a loop in which all are readable; returns who was read."""
    driver.told.clear()
    for link in links:
        link.receive()
    read = [input.conn for input in driver.told if isinstance(input, BytesReceived)]
    driver.tick()
    return read


def test_of_those_who_make_much_work_so_many_are_read_in_a_turn_and_each_in_its_turn() -> None:
    with sending([len(MUCH)] * 20) as (driver, links, peers):
        turns: list[list[int]] = []
        for _ in range(20):
            for peer, link in zip(peers, links, strict=True):
                if not turns or link.conn in turns[-1]:
                    peer.sendall(MUCH)
            turns.append(turn(driver, links))

        assert {len(read) for read in turns} == {READS_MAX}
        rounds = -(-20 // READS_MAX)
        for at in range(20 - rounds):
            assert {conn for read in turns[at : at + rounds] for conn in read} == set(range(20))


def test_who_makes_little_work_is_read_at_once_and_who_did_as_well_next_time() -> None:
    with sending([len(MUCH)] * 20 + [0] * 5) as (driver, links, peers):
        driver.turns.clock = lambda: 0.0  # From here on nothing takes any time.
        for peer in peers:
            peer.sendall(MUCH)
        assert turn(driver, links) == [0, 1, 2, 20, 21, 22, 23, 24]
        for peer in peers[:3]:
            peer.sendall(MUCH)
        assert turn(driver, links) == [0, 1, 2, 3, 4, 5]


def test_a_read_of_few_bytes_has_no_turn_to_wait_for() -> None:
    with sending([LITTLE_BYTES] * 20) as (driver, links, peers):
        for peer in peers:
            peer.sendall(b"x" * LITTLE_BYTES)
        assert turn(driver, links) == list(range(20))


def test_who_waits_for_a_turn_has_the_loop_asked_for_it_and_loses_it_when_it_is_not_read() -> None:
    with sending([len(MUCH)] * (READS_MAX + 2)) as (driver, links, peers):
        for peer in peers:
            peer.sendall(MUCH)
        asked = driver.ticks_asked
        for link in links:
            link.receive()
        assert driver.ticks_asked == asked + 1
        driver.tick()
        for peer in peers[:READS_MAX]:
            peer.sendall(MUCH)
        # The two whose turn it is are not read: paused, perhaps, or gone.
        assert turn(driver, links[:READS_MAX]) == [0]
        assert turn(driver, links[:READS_MAX]) == [1, 2]


# ---- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("takes", "left"),
    [
        ([75_000], [15_000]),
        ([60_000], [30_000]),
        ([90_000], []),
        ([15_000, 15_000, 40_000], [20_000]),
        ([30_000, 60_000], []),
    ],
)
def test_whole_pieces_that_the_kernel_took_are_gone_and_the_rest_comes_in_order(
    takes: list[int], left: list[int]
) -> None:
    pieces = [letter * 30_000 for letter in (b"a", b"b", b"c")]
    with linked(takes) as (driver, link, peer):
        link.pieces += pieces
        link.flush()
        waiting = [len(piece) for piece in link.pieces]
        asked = list(driver.wait_for_room)
        first = list(driver.flushed)
        if asked:
            measured(link).takes.append(90_000)
            link.writable()
        told = receive_all(peer, 90_000)

        assert waiting == left
        assert asked == ([1] if left else [])
        assert first == [(1, sum(takes))]
        assert told == b"".join(pieces)
        assert not link.pieces
        assert not driver.wait_for_room


def test_one_write_has_64_buffers_and_the_next_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_anyio.transport.pieces.JOIN_MAX", 100)
    monkeypatch.setattr("vixws_anyio.transport.socket.JOIN_MAX", 100)
    monkeypatch.setattr("vixws_anyio.transport.pieces.PIECE_MAX", 1)
    pieces = [b"%02d" % (number % 100) for number in range(150)]
    with linked([300, 300, 300]) as (driver, link, peer):
        link.pieces += pieces
        link.flush()

        assert measured(link).buffers == [64, 64, 22]
        assert driver.flushed == [(1, 300)]
        assert receive_all(peer, 300) == b"".join(pieces)


# ---- reading ------------------------------------------------------------------------------------


def runs(inputs: Sequence[Input]) -> list[int]:
    """How many reads came from one connection in a row, each time."""
    conns = [input.conn for input in inputs if isinstance(input, BytesReceived)]
    return [len(list(group)) for _, group in groupby(conns)]


@pytest.mark.anyio
async def test_a_connection_with_much_to_read_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_anyio.transport.socket.READ_BYTES", 512)
    told = Record()
    ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
    async with driver_for(Admission(AdmissionLimits(), monotonic), 1.0, 0) as driver:
        driver.attach(Pump(told, monotonic))
        for sock, peer in zip(ours, theirs, strict=True):
            peer.sendall(b"x" * 512 * 20)
            sock.setblocking(False)
            driver.serve_socket(sock, "")
        with anyio.fail_after(PATIENCE_S):
            while sum(runs(told)) < 40:
                await anyio.lowlevel.checkpoint()
        for link in list(driver.links.values()):
            driver.lost(link, "closed")
        for peer in theirs:
            peer.close()

    # Trio shuffles those that are ready at once, so that two turns of four may come in a row.
    assert max(runs(told)) <= 2 * 4
