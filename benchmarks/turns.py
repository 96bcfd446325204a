"""A client that drives `counted.server` in turns, from outside: what it does is not counted."""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.counted.loads import REQUEST, Load, frames_in

__all__ = ["ROUNDS_MAX", "ROUNDS_MIN", "WARM_TURNS", "TurnError", "drive"]

WARM_TURNS = 6
"""Turns before the counted ones."""

ROUNDS_MIN, ROUNDS_MAX = 3, 200
"""Rounds of the loop that a turn gets, and in which it has to be answered. asyncio needs three, trio two or three, by
the toss of a coin with which it orders what is ready: so all turns get three."""

_SETTLE_ROUNDS = 20
_READ_BYTES = 1 << 20
_ANSWER_S = 300.0


class TurnError(Exception):
    """A server did not answer a turn, or not in time; the text is for the user."""


class _Peers:
    """All connections, and what came on them."""

    def __init__(self, load: Load, port: int) -> None:
        self.load = load
        self.socks: list[socket.socket] = []
        self.texts: list[bytearray] = []
        self.missing = 0
        for _ in range(load.conns):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.socks.append(sock)
            self.texts.append(bytearray())

    def send(self, conn: int, data: bytes) -> None:
        """Sends for a connection, numbered from 1."""
        if self.socks[conn - 1].send(data) != len(data):
            raise TurnError(f"the kernel did not take {len(data)} bytes")

    def take(self) -> None:
        """Takes what has come."""
        for sock, text in zip(self.socks, self.texts, strict=True):
            with contextlib.suppress(BlockingIOError):
                if not (data := sock.recv(_READ_BYTES)):
                    raise TurnError("the server ended a connection")
                text += data

    def are_open(self) -> bool:
        """Whether every handshake is answered; the answers are dropped then."""
        self.take()
        if not all(b"\r\n\r\n" in text for text in self.texts):
            return False
        for text in self.texts:
            del text[: text.index(b"\r\n\r\n") + 4]
        return True

    def expect(self, count: int) -> None:
        """From now on that many messages are to come; those before are dropped."""
        for text in self.texts:
            text.clear()
        self.missing = count

    def are_answered(self) -> bool:
        """Whether they have all come."""
        self.take()
        for text in self.texts:
            count, size = frames_in(bytes(text))
            del text[:size]
            self.missing -= count
        if self.missing < 0:
            raise TurnError(f"{-self.missing} messages more than expected")
        return self.missing == 0

    def close(self) -> None:
        """Closes all."""
        for sock in self.socks:
            sock.close()


class _Loop:
    """The server's loop, which goes round when it is told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._asks, self._answers = process.stdin, process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)

    def line(self) -> bytes:
        """What it says next; empty where it has ended."""
        if not self._selector.select(_ANSWER_S):
            raise TurnError(f"the server said nothing for {_ANSWER_S:g} s")
        return self._answers.readline()

    def tell(self, word: bytes) -> None:
        """Tells it one byte, and waits until that is done."""
        with contextlib.suppress(BrokenPipeError):
            self._asks.write(word)
        if self.line() != b".\n":
            raise TurnError("the server ended, expected another round of its loop")

    def until(self, done: Callable[[], bool]) -> None:
        """Goes round until something holds."""
        for number in range(1, ROUNDS_MAX + 1):
            self.tell(b"g")
            if done() and number >= ROUNDS_MIN:
                return
        raise TurnError(f"a turn was not answered in {ROUNDS_MAX} rounds of the loop")

    def end(self) -> None:
        """Ends the process."""
        self._asks.write(b"q")
        self._selector.close()


def drive(command: Sequence[str], tree: Path, environment: Mapping[str, str], load: Load, times: int) -> None:
    """Start a server, open all connections, and run the load's turns `times` times; `command` ends with what is to
    be run, such as `counted.server` under valgrind.

    Raises: TurnError.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.PIPE, bufsize=0
    )
    with process:
        try:
            _turns(_Loop(process), load, times)
            process.wait(_ANSWER_S)
        except (TurnError, OSError, subprocess.TimeoutExpired) as error:
            process.kill()
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip()
            raise TurnError(f"{load.name}: {error}" + (f"\n{said[-2_000:]}" if said else "")) from None
        except BaseException:
            process.kill()
            raise


def _turns(loop: _Loop, load: Load, times: int) -> None:
    if not (said := loop.line()).strip().isdigit():
        raise TurnError(f"first line {said!r}, expected a port")
    peers = _Peers(load, int(said))
    try:
        for conn in range(1, load.conns + 1):
            peers.send(conn, REQUEST)
        loop.until(peers.are_open)
        for conn in range(1, load.conns + 1):
            if first := load.first(conn):
                peers.send(conn, first)
        for _ in range(_SETTLE_ROUNDS):
            loop.tell(b"g")
        peers.take()  # greetings, and answers to joins
        for turn in range(WARM_TURNS + times * load.turns):
            if turn == WARM_TURNS:
                loop.tell(b"f")
            for conn, data in load.sent(turn).items():
                peers.send(conn, data)
            peers.expect(load.answers)
            loop.until(peers.are_answered)
        loop.end()
    finally:
        peers.close()
