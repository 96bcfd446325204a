"""Traces of a run: what reaches the hub's door is written into a file, from which `vixws replay` repeats it.

The door is wrapped, not watched: what makes the hub raise is seen by no consumer, and is what one wants to replay.
"""

from __future__ import annotations

import secrets
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from threading import Condition, Thread
from typing import Final

import anyio
import anyio.to_thread

from vixws_core.config import HubConfig, Policy
from vixws_core.effects import Effect
from vixws_core.hub import Hub
from vixws_core.inputs import Input
from vixws_core.pump import Door
from vixws_core.trace.lines import Batch, Head, encode_batch, encode_head

from ..logs import log
from .trace_file import TraceFile

__all__ = ["Recorder", "recorded"]

BATCH_STEPS: Final = 64
"""Steps that are encoded at once, in the loop's thread: some 30 µs of small ones."""
BATCH_LENGTH: Final = 3 * BATCH_STEPS

QUEUE_BYTES_MAX: Final = 67_108_864
"""Bytes that may wait for the disk; one that is slower for so long ends the trace, never the server."""
HURRY_BYTES: Final = 1_048_576
"""So many bytes that wait wake the writer before its time."""

WRITE_S: Final = 0.25
"""How often what was recorded is written: so much of it may be lost where the process is killed."""
CLOSE_S: Final = 5.0
"""How long the end waits for the disk."""


class Recorder:
    """The door of a hub, which notes each step behind it, and has a thread write them.

    `handle` belongs to the loop's thread. `clock` is that of the steps.
    """

    def __init__(self, hub: Hub, file: TraceFile, head: Head) -> None:
        self.handle: Callable[[Input, float], list[Effect]] = self._handle
        """As the hub's; its own again once the trace has ended."""
        self.next_deadline: Callable[[], float | None] = hub.next_deadline
        self._door = hub.handle
        self._hub = hub
        self._file = file
        self._head = head
        self._batch: Batch = []
        self._taken = 0
        """How much of the batch the writer has taken already."""
        self._waiting = Condition()
        """Guards what follows, the change of batches, and `_taken`."""
        self._queue: list[tuple[int, bytes]] = []
        """What is encoded: steps and lines."""
        self._queued = 0
        self._closing = False
        self._why = ""
        """Why the trace has ended before its time."""
        self._steps = 0
        """Written, or tried to."""
        self._thread = Thread(target=self._write, name="vixws trace", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._file.begin(encode_head(self._head))
        self._thread.start()

    # ---- the loop's thread --------------------------------------------------------------------------

    def _handle(self, input: Input, now: float) -> list[Effect]:
        try:
            effects = self._door(input, now)
        except Exception as exc:
            self._raised(now, input, type(exc).__name__)
            raise
        batch = self._batch
        batch += (now, input, effects)  # In one go: the writer may look between two lines, not between two steps.
        if len(batch) >= BATCH_LENGTH:
            self._hand_over()
        return effects

    def _raised(self, now: float, input: Input, name: str) -> None:
        self._hand_over()
        with self._waiting:
            self._put(1, encode_batch([now, input, name], raised=True))

    def _hand_over(self) -> None:
        """Encodes what the batch has; the writer takes it from there."""
        with self._waiting:
            batch, self._batch = self._batch, []
            start, self._taken = self._taken, 0
            if start:
                batch = batch[start:]
            if batch:
                self._put(len(batch) // 3, encode_batch(batch))

    def _put(self, steps: int, lines: bytes) -> None:
        if self._why:
            self.handle = self._door  # Nobody writes any more: from now on it costs nothing.
            self._batch, self._queue = [], []
            return
        self._queue.append((steps, lines))
        self._queued += len(lines)
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
                    # The rest is encoded here, or a loop that stands still would keep its last steps to itself.
                    upto = len(self._batch)
                    rest, self._taken = self._batch[self._taken : upto], upto
                if rest:
                    queue.append((len(rest) // 3, encode_batch(rest)))
                for steps, lines in queue:
                    self._file.write(lines, self._head_of)
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

    def _head_of(self) -> bytes:
        """The head of a further part."""
        head = self._head
        return encode_head(Head(**{name: getattr(head, name) for name in head.__struct_fields__} | {"first": self._steps}))


@asynccontextmanager
async def recorded(
    hub: Hub, path: str | None, size: int, config: HubConfig, policy: Policy, seed: bytes
) -> AsyncGenerator[Door[Input, Effect]]:
    """The door to use for `hub`: its own, or where a trace is wanted one that writes into `path`, `size` bytes at most.

    Raises: `LocalError` where the file cannot be made.
    """
    if path is None:
        yield hub
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
    recorder = Recorder(hub, TraceFile(path, size), head)
    recorder.start()
    log.info("tracing into %s: all that is received, with its secrets", path)
    try:
        yield recorder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(recorder.close)


def _version() -> str:
    try:
        return version("vixws")
    except PackageNotFoundError:
        return "unknown"
