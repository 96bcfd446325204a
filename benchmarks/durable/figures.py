"""The figures: publishes, rooms of different sizes, large files, replays, slow readers, many rooms."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load import build, measure
from benchmarks.report import progress

from .filled import fill
from .peer import Memory, Peer, PeerError, served

__all__ = ["FIGURES", "Figure", "Shape"]

BACKENDS: Final = ("asyncio", "trio")
KIB_OF_4_MIB: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """How large all is; the defaults are the campaign's."""

    rounds: int = 3
    duration_s: float = 4.0
    small_rows: int = 1_000
    large_rows: int = 1_000_000
    file_rows: int = 10_000_000
    replay_rows: int = 100_000
    samples: int = 300
    slow_clients: int = 100
    rooms: int = 100_000
    broadcast_bytes: int = 200_000_000
    stopped_s: tuple[float, ...] = (15.0, 45.0)
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure beside what was asked of it."""

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether it is as it should be."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def text(self) -> str:
        """One line for a person."""
        sign = ">=" if self.at_least else "<="
        digits = 0 if self.value >= 100 else 2
        said = f"{self.value:,.{digits}f} {self.unit}".rstrip()
        note = f"  ({self.note})" if self.note else ""
        return f"  {'held    ' if self.held else 'NOT HELD'}  {self.name:<58} {said:>18}  {sign} {self.limit:,g}{note}"


@contextmanager
def _folder(shape: Shape) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vixws-durable-", dir=shape.folder) as name:
        yield Path(name)


def publishes(shape: Shape) -> list[Figure]:
    """16 clients with 16 publishes in flight each, FULL, beside a store that takes one row into each commit."""
    program = build()
    rates: dict[tuple[str, str], list[float]] = {(each, rows): [] for each in BACKENDS for rows in ("256", "1")}
    cpu: dict[tuple[str, str], list[float]] = {key: [] for key in rates}
    for number in range(shape.rounds):
        for backend, rows in rates if number % 2 == 0 else reversed(rates):
            progress(f"publishes: round {number + 1} of {shape.rounds}, {backend}, {rows} rows a commit")
            with _folder(shape) as folder, served(backend, folder / "a.db", DURABLE_ROWS=rows) as server:
                arguments = ["publish", "--port", str(server.port), "--pid", str(server.pid), "--conns", "16"]
                arguments += ["--depth", "16", "--duration", str(shape.duration_s), "--warmup", "2"]
                found = measure(program, arguments, 60)
                rates[backend, rows].append(found["publishes_per_s"])
                cpu[backend, rows].append(found["server"]["cpu_us_per_publish"])
    figures = []
    for backend, least in (("asyncio", 60_000), ("trio", 45_000)):
        many, one = rates[backend, "256"], rates[backend, "1"]
        ratio = statistics.median([mine / other for mine, other in zip(many, one, strict=True)])
        note = f"{min(many):,.0f} to {max(many):,.0f}, {statistics.median(cpu[backend, '256']):.1f} µs of CPU each"
        figures.append(Figure(f"publishes, FULL, 16x16, {backend}", statistics.median(many), least, "/s", True, note))
        note = f"{statistics.median(one):,.0f}/s with one row a commit"
        figures.append(Figure(f"beside one row a commit, {backend}", ratio, 6, "times", True, note))
    return figures


def sizes(shape: Shape) -> list[Figure]:
    """Publishes and joins in a small room and in a large one of the same file, in turns."""
    figures = []
    with _folder(shape) as folder:
        rooms = {"small": shape.small_rows, "large": shape.large_rows}
        fill(folder / "a.db", rooms, lambda text: progress(f"sizes: {text}"))
        for backend in BACKENDS:
            progress(f"sizes: {backend}")
            with served(backend, folder / "a.db") as server:
                peer = Peer(server.port)
                times: dict[tuple[str, str], list[float]] = {}
                for what, act in (("publish", _publish), ("join", _join), ("join of the newest 50", _join_last)):
                    for number in range(-20, shape.samples):
                        for room in rooms:
                            began = time.perf_counter()
                            act(peer, room, number)
                            if number >= 0:
                                times.setdefault((what, room), []).append(time.perf_counter() - began)
                    small, large = (statistics.median(times[what, room]) * 1e6 for room in rooms)
                    note = f"{large:.0f} µs, {small:.0f} µs in one of {shape.small_rows:,}"
                    name = f"{what} in a room of {shape.large_rows:,}, {backend}"
                    figures.append(Figure(name, large / small, 1.3, "times", note=note))
                peer.close()
    return figures


def _publish(peer: Peer, room: str, number: int) -> None:
    peer.send({"type": "note", "room": room, "ref": str(number), "payload": {"n": number}})
    peer.until("$ack")


def _join(peer: Peer, room: str, number: int, **asked: Any) -> None:
    peer.send({"type": "$join", "ref": str(number), "room": room, "payload": asked})
    peer.until("$live")
    peer.send({"type": "$leave", "ref": "l", "room": room})
    peer.until("$left")


def _join_last(peer: Peer, room: str, number: int) -> None:
    _join(peer, room, number, last=50)


OPENS: Final = """
import sys, time, anyio
from vixws_store import SqliteMessageStore
async def main():
    began = time.perf_counter()
    async with SqliteMessageStore(sys.argv[1]).run():
        print(time.perf_counter() - began)
anyio.run(main)
"""


def opening(shape: Shape) -> list[Figure]:
    """How long a large file takes to open, by a process that was just started."""
    with _folder(shape) as folder:
        each = shape.file_rows // 100
        fill(folder / "a.db", {f"room {number}": each for number in range(100)}, lambda text: progress(f"open: {text}"))
        size = (folder / "a.db").stat().st_size
        times = []
        for _ in range(shape.rounds + 1):
            command = (sys.executable, "-c", OPENS, str(folder / "a.db"))
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            times.append(float(done.stdout))
    note = f"slowest of {len(times)}, median {statistics.median(times):.3f} s; {size / 1e9:.1f} GB in 100 rooms"
    return [Figure(f"a file of {shape.file_rows:,} rows opens", max(times), 1.0, "s", note=note)]


def replays(shape: Shape) -> list[Figure]:
    """One client that reads a whole room, and many that ask for it and do not read."""
    program, figures = build(), []
    with _folder(shape) as folder:
        epoch = fill(folder / "a.db", {"r0": shape.replay_rows}, lambda text: progress(f"replay: {text}"))
        for backend in BACKENDS:
            rates, grown = [], []
            with served(backend, folder / "a.db") as server:
                for number in range(shape.rounds + 1):
                    progress(f"replay: {backend}, {number + 1} of {shape.rounds + 1}")
                    with Memory(server.pid) as memory:
                        command = ["replay", "--port", str(server.port), "--pid", str(server.pid), "--conns", "1"]
                        rates.append(measure(program, command, 60)["deliveries_per_s"])
                    grown.append(memory.grown)
            note = f"{min(rates):,.0f} to {max(rates):,.0f}"
            name = f"replay of {shape.replay_rows:,}, {backend}"
            figures.append(Figure(name, statistics.median(rates[1:]), 150_000, "/s", True, note))
            note = f"the first one after the start {grown[0]:,} KiB"
            figures.append(Figure(f"memory for it, {backend}", max(grown[1:]), KIB_OF_4_MIB, "KiB", note=note))
        for backend in BACKENDS:
            progress(f"slow clients: {backend}")
            with served(backend, folder / "a.db") as server:
                command = ["replay", "--port", str(server.port), "--pid", str(server.pid), "--conns", "1"]
                measure(program, command, 60)
                peers = [Peer(server.port, 4_096) for _ in range(shape.slow_clients)]
                with Memory(server.pid) as memory:
                    for peer in peers:
                        since = {"ep": epoch, "off": 0}
                        peer.send({"type": "$join", "ref": "j", "room": "r0", "payload": {"since": since}})
                    time.sleep(5)
                for peer in peers:
                    peer.close()
            name = f"each of {shape.slow_clients} clients that do not read, {backend}"
            figures.append(Figure(name, memory.grown / shape.slow_clients, 1.5 * 1024, "KiB"))
    return figures


def many_rooms(shape: Shape) -> list[Figure]:
    """Rooms with a member and a message each."""
    figures = []
    of_one = min(1_000, shape.rooms)
    for backend in BACKENDS:
        with _folder(shape) as folder, served(backend, folder / "a.db", "--max-rooms", str(of_one)) as server:
            first = Peer(server.port)
            _fill_rooms(first, 0, of_one)
            with Memory(server.pid) as memory:
                peers = []
                for number in range(1, shape.rooms // of_one + 1):
                    progress(f"rooms: {backend}, {number * of_one:,} of {shape.rooms:,}")
                    peers.append(Peer(server.port))
                    _fill_rooms(peers[-1], number, of_one)
            for peer in (first, *peers):
                peer.close()
        figures.append(Figure(f"each of {shape.rooms:,} rooms, {backend}", memory.grown / shape.rooms, 2.0, "KiB"))
    return figures


def _fill_rooms(peer: Peer, number: int, count: int) -> None:
    for start in range(0, count, 100):
        for at in range(start, min(start + 100, count)):
            room = f"room {number} {at}"
            peer.send(
                {"type": "$join", "ref": "j", "room": room},
                {"type": "note", "room": room, "ref": "p", "payload": {"n": at}},
            )
        kinds: dict[str, int] = {}
        while min(kinds.get("$ack", 0), kinds.get("note", 0)) < min(100, count - start):
            message = peer.receive()
            kinds[message["type"]] = kinds.get(message["type"], 0) + 1
            if message["type"] == "$err":
                raise PeerError(f"a room was refused: {message!r:.300}")


FIGURES: dict[str, Callable[[Shape], list[Figure]]] = {
    "publishes": publishes,
    "sizes": sizes,
    "opening": opening,
    "replays": replays,
    "rooms": many_rooms,
}
"""All of them, by name, but the one of `stopped`."""
