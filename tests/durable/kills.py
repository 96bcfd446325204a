"""Kills: the shipped server is ended by SIGKILL while clients publish, again and again, and starts on the same file.

Clients speak the protocol over sockets of their own, keep several publishes in flight, and one of them in each room is
a member: what is acknowledged, and what is delivered, was told. After each kill the file is judged, then the server
starts again, what was not answered is sent again, and everything is judged once more.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio

from benchmarks.adversaries.frames import REQUEST, text
from tests.serving import Served, serving
from vixws_core.wire.frames import CloseReceived, FrameFailed, FrameReader
from vixws_store import SqliteMessageStore

from .ledger import Entry, Held, Ledger, Place, payload_of
from .power import read_rooms
from .writer import ROOMS

__all__ = ["Killed", "kills"]

CLIENTS, IN_FLIGHT = 6, 8
ACKS_MIN: Final = 200
PHASE_S_MAX: Final = 30.0
PUB: Final = "one who publishes"


class Killed:
    """What came of some kills."""

    def __init__(self) -> None:
        self.kills = self.acked = self.acks_least = self.unanswered = self.open_kills = self.delivered = 0
        self.wrong: list[str] = []

    def add(self, more: Killed) -> None:
        """Adds the counts and the faults of some more."""
        for name in ("kills", "acked", "unanswered", "open_kills", "delivered"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.acks_least = min(self.acks_least or more.acks_least, more.acks_least or self.acks_least)
        self.wrong += more.wrong

    def text(self) -> str:
        """The counts, for a person."""
        part = 100 * self.open_kills / max(1, self.kills)
        return (
            f"{self.kills} kills, {self.acked} acknowledged, at least {self.acks_least} before each, {self.delivered} "
            f"delivered, {part:.0f} % of the kills with publishes unanswered ({self.unanswered} in all); "
            f"{len(self.wrong)} wrong"
        )


class _Client:
    """A publisher, and a member of its room where it is one of the first."""

    def __init__(self, number: int, port: int, ledger: Ledger) -> None:
        self.room = ROOMS[number % len(ROOMS)]
        self.ledger = ledger
        self.waiting: set[str] = set()
        self.ended = False
        self.is_in = False
        self.is_member = number < len(ROOMS)
        self.acks = self.delivered = 0
        self._reader = FrameReader(client=True, message_bytes_max=1 << 24)
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(REQUEST)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        self._send({"type": "$hello", "payload": {"v": [1], "pub": PUB}})
        if self.is_member:
            self._send({"type": "$join", "ref": "j", "room": self.room})
        else:
            self._send({"type": "$ping", "ref": "p"})

    def publish(self, mid: str, room: str) -> None:
        """Publishes, and counts as sent from before the first byte."""
        self.ledger.send(room, mid)
        self.waiting.add(f"{room} {mid}")
        payload = json.loads(payload_of(mid))
        self._send({"type": "note", "room": room, "ref": f"{room} {mid}", "mid": mid, "payload": payload})

    def read(self) -> None:
        """Takes in what has come."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionResetError, TimeoutError):
            data = b""
        if not data:
            self.ended = True
        for item in self._reader.feed(data):
            if isinstance(item, str):
                self._take(json.loads(item))
            elif isinstance(item, CloseReceived | FrameFailed):
                self.ledger.wrong.append(f"the server closed: {item}")

    def _take(self, message: dict[str, Any]) -> None:
        kind, payload = message["type"], message.get("payload", {})
        if kind == "note":
            place = Place(message["ep"], message["off"], int(message["id"]))
            self.ledger.told(message["room"], payload["mid"], place, fresh=True)
            self.delivered += 1
        elif kind == "$ack":
            place = Place(payload["ep"], payload["off"], int(payload["id"]))
            self.ledger.ack(message["room"], payload["mid"], place, bool(payload.get("dup")))
            self.waiting.discard(message["ref"])
            self.acks += 1
        elif kind in ("$joined", "$pong"):
            self.is_in = True
        elif kind not in ("$welcome", "$live"):
            self.ledger.wrong.append(f"was told {message!r:.200}")

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.sock.sendall(text(message))
        except OSError:
            self.ended = True


class _Crowd:
    """All clients of one life of the server."""

    def __init__(self, port: int, ledger: Ledger, prefix: str) -> None:
        self.clients = [_Client(number, port, ledger) for number in range(CLIENTS)]
        self._selector = selectors.DefaultSelector()
        self._prefix = prefix
        self._number = 0
        for client in self.clients:
            self._selector.register(client.sock, selectors.EVENT_READ, client)
        self._until(lambda: all(client.is_in for client in self.clients))

    @property
    def acks(self) -> int:
        """Publishes that were acknowledged."""
        return sum(client.acks for client in self.clients)

    def again(self, keys: list[tuple[str, str]]) -> None:
        """Sends again what nobody answered, and waits for the answers."""
        for number, (room, mid) in enumerate(keys):
            self.clients[number % CLIENTS].publish(mid, room)
        self._until(lambda: not any(client.waiting for client in self.clients))

    def talk(self, acks: int, more_s: float) -> None:
        """Publishes until so many are acknowledged, and for a while longer."""
        until, already = 0.0, self.acks

        def done() -> bool:
            nonlocal until
            for client in self.clients:
                while len(client.waiting) < IN_FLIGHT:
                    self._number += 1
                    client.publish(f"{self._prefix}-{self._number}", client.room)
            if self.acks - already < acks:
                return False
            until = until or time.monotonic() + more_s
            return time.monotonic() >= until

        self._until(done)

    def drain(self) -> None:
        """Takes in all that was sent to the clients before the server ended."""
        self._until(lambda: all(client.ended for client in self.clients), is_over=True)

    def _until(self, done: Any, is_over: bool = False) -> None:
        end = time.monotonic() + PHASE_S_MAX
        while not done():
            if time.monotonic() > end:
                raise TimeoutError("the server did not answer in time")
            for key, _ in self._selector.select(0.005):
                key.data.read()
                if key.data.ended:
                    self._selector.unregister(key.fileobj)
                    if not is_over:
                        raise ConnectionError("the server ended a connection")

    def close(self) -> None:
        """Hangs up."""
        self._selector.close()
        for client in self.clients:
            client.sock.close()


def kills(seed: str, synchronous: str, backend: str, count: int, found: Killed) -> None:
    """Kills one server after another on one file; counts and faults go to `found`."""
    random, ledger = Random(seed), Ledger()
    with tempfile.TemporaryDirectory(prefix="vixws-kills-") as name:
        folder = Path(name)
        flags = ("--backend", backend, "--app", "benchmarks.apps.durable:server")
        variables = {"DURABLE_FILE": f"{folder}/a.db", "DURABLE_SYNCHRONOUS": synchronous}
        for number in range(count):
            with serving(folder, *flags, variables=variables) as served:
                _life(served, ledger, f"{number}", random, found)
            anyio.run(_judge, folder / "a.db", synchronous, ledger, number % 2 == 1)
        with serving(folder, *flags, variables=variables) as served:
            _after(served, ledger, found)
        anyio.run(_judge, folder / "a.db", synchronous, ledger, False)
        if ledger.unanswered():
            ledger.wrong.append(f"{ledger.unanswered()} publishes were never answered")
    found.wrong += [f"{seed} {synchronous} {backend}: {each}" for each in dict.fromkeys(ledger.wrong)]


def _life(served: Served, ledger: Ledger, prefix: str, random: Random, found: Killed) -> None:
    """One life of a server, to its kill."""
    ledger.begin()
    crowd = _Crowd(int(served.ws.rsplit(":", 1)[1].split("/")[0]), ledger, prefix)
    crowd.again(sorted(ledger.sent - ledger.acked))
    again = crowd.acks
    crowd.talk(ACKS_MIN, random.random() * 0.2)
    served.process.kill()
    crowd.drain()
    crowd.close()
    acks = crowd.acks - again
    found.kills += 1
    found.acked += crowd.acks
    found.acks_least = min(acks, found.acks_least or acks)
    found.delivered += sum(client.delivered for client in crowd.clients)
    found.unanswered += ledger.unanswered()
    found.open_kills += ledger.unanswered() > 0


def _after(served: Served, ledger: Ledger, found: Killed) -> None:
    """The last life, which ends in good order: what was not answered is answered now."""
    ledger.begin()
    crowd = _Crowd(int(served.ws.rsplit(":", 1)[1].split("/")[0]), ledger, "last")
    crowd.again(sorted(ledger.sent - ledger.acked))
    found.acked += crowd.acks
    crowd.close()
    if served.stop():
        ledger.wrong.append("the server did not end in good order")


async def _judge(path: Path, synchronous: str, ledger: Ledger, by_sql: bool) -> None:
    """Reads what is stored by the store, or by SQL alone, of a copy: then the server is the first to open the file."""
    logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
    if by_sql:
        with tempfile.TemporaryDirectory() as folder:
            copied = Path(folder) / "a.db"
            for suffix in ("", "-wal"):
                if Path(f"{path}{suffix}").exists():
                    Path(f"{copied}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
            ledger.judge(_by_sql(copied))
        return
    store = SqliteMessageStore(path, synchronous=synchronous)
    async with store.run():
        held = await read_rooms(store)
        ledger.judge(held)
        ledger.read(held)


def _by_sql(path: Path) -> dict[str, Held]:
    found: dict[str, Held] = {}
    with closing(sqlite3.connect(path)) as db:
        for room, ep, floor in db.execute("SELECT room, ep, floor FROM ws_rooms").fetchall():
            query = "SELECT off, id, mid, payload_json FROM ws_messages WHERE room = ? ORDER BY off"
            rows = tuple(
                Entry(off, id, ep, mid, text.encode()) for off, id, mid, text in db.execute(query, (room,)).fetchall()
            )
            found[room] = Held(ep, floor, rows[-1].off if rows else floor, rows)
    return found
