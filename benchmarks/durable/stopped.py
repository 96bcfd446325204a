"""A reader that is stopped by SIGSTOP while its room gets 200 MB: the server's memory, and what it reads after.

After 30 s the server drops a connection that takes nothing; the reader then comes back and reads on from its position.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.contestants import root
from benchmarks.report import progress

from .figures import BACKENDS, KIB_OF_4_MIB, Figure, Shape
from .peer import Memory, Peer, PeerError, served

__all__ = ["stopped"]

BYTES: Final = 50_000
"""Of one broadcast's text."""

IN_FLIGHT: Final = 8
WARM: Final = 400
"""Broadcasts before the reader is stopped, at most: tails, heads and pages of SQLite fill meanwhile."""

READ_S_MAX: Final = 90.0


def stopped(shape: Shape) -> list[Figure]:
    """Both times on both loops."""
    figures = []
    for backend in BACKENDS:
        for seconds in shape.stopped_s:
            figures += _stopped(shape, backend, seconds)
    return figures


def _stopped(shape: Shape, backend: str, seconds: float) -> list[Figure]:
    count = shape.broadcast_bytes // BYTES
    warm = min(WARM, count)
    with (
        tempfile.TemporaryDirectory(prefix="vixws-durable-", dir=shape.folder) as folder,
        served(backend, Path(folder) / "a.db") as server,
    ):
        arguments = (str(server.port), "room", str(warm + count))
        reader = subprocess.Popen(
            (sys.executable, "-m", "benchmarks.durable.reader", *arguments),
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert reader.stdout is not None
            if reader.stdout.readline() != "in\n":
                raise PeerError("the reader did not join")
            peer = Peer(server.port)
            _broadcast(peer, warm)
            progress(f"stopped: {backend}, {seconds:g} s")
            began = time.monotonic()
            with Memory(server.pid) as memory:
                reader.send_signal(signal.SIGSTOP)
                _broadcast(peer, count)
                took = time.monotonic() - began
                time.sleep(max(0.0, seconds - took))
            reader.send_signal(signal.SIGCONT)
            told, _ = reader.communicate(timeout=READ_S_MAX)
            peer.close()
        finally:
            if reader.poll() is None:
                reader.kill()
                reader.wait()
    received, last, broken, resets = map(int, told.split())
    missing = warm + count - received + broken + resets
    name = f"stopped for {max(seconds, took):.0f} s, {shape.broadcast_bytes // 10**6} MB, {backend}"
    note = f"broadcast in {took:.1f} s, {memory.before:,} KiB before"
    return [
        Figure(f"memory, a reader {name}", memory.grown, KIB_OF_4_MIB, "KiB", note=note),
        Figure(
            f"not delivered in order, {name}", missing, 0, "messages", note=f"{received:,} were, to offset {last:,}"
        ),
    ]


def _broadcast(peer: Peer, count: int) -> None:
    sent = answered = 0
    text = "x" * BYTES
    while answered < count:
        while sent < count and sent - answered < IN_FLIGHT:
            sent += 1
            peer.send({"type": "note", "room": "room", "ref": str(sent), "payload": {"text": text}})
        peer.until("$ack")
        answered += 1
