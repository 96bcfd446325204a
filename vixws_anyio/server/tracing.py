"""Traces of a run: what reaches the hub's door is written into a file, from which `vixws replay` repeats it."""

from __future__ import annotations

import secrets
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from threading import Condition, Thread
from typing import Any, Final

import anyio
import anyio.to_thread
from msgspec.structs import replace

from vixws_core.config import HubConfig, Policy
from vixws_core.hub import Hub
from vixws_core.protocols import Consumer
from vixws_core.trace.lines import Head, Line, Outcome, encode_batch, encode_head
from vixws_core.trace.recording import TracedPump

from ..logs import log
from .trace_file import TraceFile

__all__ = ["Recorder", "recorder"]

BATCH_STEPS: Final = 64
"""Steps that are encoded at once, in the loop's thread: some 30 µs of small ones."""

QUEUE_BYTES_MAX: Final = 67_108_864
"""Bytes that may wait for the disk; one that is slower for so long ends the trace, never the server."""
WRITE_BYTES: Final = 262_144
"""Bytes of one write, where no batch alone has more."""
HURRY_BYTES: Final = 1_048_576
"""So many bytes that wait wake the writer before its time."""

WRITE_S: Final = 0.25
"""How often what was recorded is written: so much of it may be lost where the process is killed."""
CLOSE_S: Final = 5.0
"""How long the end waits for the disk."""


class Recorder:
    """Has a thread write what a pump notes. `pump` makes that pump; `take_over` belongs to the loop's thread."""

    def __init__(self, file: TraceFile, head: Head) -> None:
        self._file = file
        self._head = head
        self._pump: TracedPump | None = None
        self._taken = 0
        """How many of the steps that the pump keeps the writer has taken already."""
        self._waiting = Condition()
        """Guards `_taken`, what the pump keeps, and what follows."""
        self._queue: list[tuple[int, bytes]] = []
        """What is encoded: steps and lines."""
        self._queued = 0
        self._closing = False
        self._why = ""
        """Why the trace has ended before its time."""
        self._steps = 0
        """Steps that were written."""
        self._thread = Thread(target=self._write, name="vixws trace", daemon=True)

    def start(self) -> None:
        """Begins to write. Raises: `LocalError` where the file cannot be made."""
        self._file.begin(encode_head(self._head))
        self._thread.start()

    def pump(
        self,
        hub: Hub,
        clock: Callable[[], float],
        consumers: Sequence[Consumer],
        calls: Mapping[Any, Callable[[Any], object]],
    ) -> TracedPump:
        """The pump whose steps are written."""
        self._pump = TracedPump(hub, clock, consumers, calls, self._full, BATCH_STEPS)
        return self._pump

    def _full(self) -> None:
        """Encodes what the pump has kept; the writer takes it from there."""
        assert self._pump is not None  # It calls.
        with self._waiting:
            lines, outcomes = self._pump.take()
            start, self._taken = self._taken, 0
            if start == len(outcomes) or self._why:
                return
            if start:
                lines, outcomes = lines[start:], outcomes[start:]
            data = encode_batch(lines, outcomes)
            self._queue.append((len(outcomes), data))
            self._queued += len(data)
            if self._queued > HURRY_BYTES:
                self._waiting.notify()
            if self._queued > QUEUE_BYTES_MAX:
                self._why = f"more than {QUEUE_BYTES_MAX} bytes wait for the disk"

    def close(self) -> None:
        """Writes what is left, for some seconds at most. From any thread, once no more steps come."""
        with self._waiting:
            self._closing = True
            self._waiting.notify()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.warning("the end of the trace is lost: the disk took longer than %.0f s", CLOSE_S)

    # ---- the writer's thread ------------------------------------------------------------------------

    def _write(self) -> None:
        """Writes until the end; what fails is told once, and ends it."""
        try:
            while not self._why:
                with self._waiting:
                    if not self._closing and self._queued <= HURRY_BYTES:
                        self._waiting.wait(WRITE_S)
                    closing = self._closing
                    queue, self._queue, self._queued = self._queue, [], 0
                    lines, outcomes = self._rest()
                if outcomes:
                    queue.append((len(outcomes), encode_batch(lines, outcomes)))
                for steps, data in _joined(queue):
                    self._file.write(data, self._head_of)
                    self._steps += steps
                if closing:
                    break
        except OSError as exc:
            self._why = exc.strerror or str(exc)
        except Exception as exc:  # A defect of ours must not end the server either.
            log.error("internal error while the trace was written", exc_info=exc)
            self._why = "internal error"
        if self._why:
            with self._waiting:
                self._queue, self._queued = [], 0
            log.error("the trace %s ends, and the server goes on without it: %s", self._file.path, self._why)
        self._file.close()

    def _rest(self) -> tuple[list[Line], list[Outcome]]:
        """The steps that do not fill a batch: encoded here, or a loop that stands still would keep them to itself."""
        if self._pump is None:
            return [], []
        start, outcomes = self._taken, self._pump.outcomes
        self._taken = upto = len(outcomes)  # A step has its line before its outcome.
        return self._pump.lines[start:upto], outcomes[start:upto]

    def _head_of(self) -> bytes:
        """The head of a further part."""
        return encode_head(replace(self._head, first=self._steps))


def _joined(queue: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same in fewer pieces: each write lets go of the interpreter, and has to wait for it again."""
    count, size, parts = 0, 0, list[bytes]()
    for steps, data in queue:
        if parts and size + len(data) > WRITE_BYTES:
            yield count, b"".join(parts)
            count, size, parts = 0, 0, []
        count, size = count + steps, size + len(data)
        parts.append(data)
    if parts:
        yield count, b"".join(parts)


@asynccontextmanager
async def recorder(
    path: str | None, size: int, config: HubConfig, policy: Policy, seed: bytes
) -> AsyncGenerator[Recorder | None]:
    """Writes a trace into `path`, `size` bytes at most, until the end of the block; None where none is wanted.

    Raises: `LocalError` where the file cannot be made.
    """
    if path is None:
        yield None
        return
    head = Head(
        version=_version(),
        python=sys.version.split()[0],
        zlib=zlib.ZLIB_RUNTIME_VERSION,
        run=secrets.token_hex(8),
        first=0,
        clock=time.monotonic(),
        wall=time.time(),
        hub=config,
        policy=policy,
        seed=seed,
    )
    found = Recorder(TraceFile(path, size), head)
    found.start()
    log.info("tracing into %s: all that is received, with its secrets", path)
    try:
        yield found
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(found.close)


def _version() -> str:
    try:
        return version("vixws")
    except PackageNotFoundError:
        return "unknown"
