"""A client on one blocking socket, and a server to measure: what the figures are taken with."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.adversaries.frames import REQUEST, text
from benchmarks.contestants import Running, serving
from vixws_core.wire.frames import CloseReceived, FrameFailed, FrameReader

__all__ = ["Memory", "Peer", "PeerError", "rss_kib", "served"]

WAIT_S: Final = 60.0


class PeerError(Exception):
    """A server did not do what was expected; the text is for the user."""


class Peer:
    """One connection; everything blocks, 60 s at most."""

    def __init__(self, port: int, received_bytes: int = 0) -> None:
        self.sock = socket.socket()
        if received_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(REQUEST)
        self._reader = FrameReader(client=True, message_bytes_max=1 << 24)
        self._messages: deque[dict[str, Any]] = deque()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise PeerError(f"answered {head[:80]!r}")

    def send(self, *messages: dict[str, Any]) -> None:
        """Sends messages, in one piece."""
        self.sock.sendall(b"".join(map(text, messages)))

    def receive(self) -> dict[str, Any]:
        """The next message. Raises: `PeerError` where the connection ends."""
        while not self._messages:
            data = self.sock.recv(1 << 18)
            if not data:
                raise PeerError("the server ended a connection")
            for item in self._reader.feed(data):
                if isinstance(item, str):
                    self._messages.append(json.loads(item))
                elif isinstance(item, CloseReceived | FrameFailed):
                    raise PeerError(f"closed: {item}")
        return self._messages.popleft()

    def until(self, kind: str) -> dict[str, Any]:
        """The next message of a type; others are dropped. Raises: `PeerError` where an error comes."""
        while (message := self.receive())["type"] != kind:
            if message["type"] in ("$err", "$gap", "$reset"):
                raise PeerError(f"expected {kind}, got {message!r:.300}")
        return message

    def close(self) -> None:
        """Hangs up."""
        self.sock.close()


@contextmanager
def served(backend: str, file: Path, *flags: str, **variables: str) -> Iterator[Running]:
    """A server on a file, with `DURABLE_` variables of `apps.durable`."""
    wanted = {"DURABLE_FILE": str(file), **variables}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    command = [sys.executable, "-m", "vixws_anyio", "serve", "--app", "benchmarks.apps.durable:server"]
    try:
        with serving([*command, "--backend", backend, "--port", "0", "--metrics", "off", *flags]) as running:
            yield running
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def rss_kib(pid: int) -> int:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


class Memory:
    """Watches a process's memory during a block; `most` and `before` in KiB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.most = rss_kib(pid)

    @property
    def grown(self) -> int:
        """By how much it was larger at most, KiB."""
        return self.most - self.before

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.most = max(self.most, rss_kib(self._pid))
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            self.most = max(self.most, rss_kib(self._pid))
            time.sleep(0.005)
