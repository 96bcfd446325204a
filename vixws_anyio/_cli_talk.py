"""`vixws tail` and `vixws publish`: a room's messages on stdout, and messages from the command line or stdin."""

from __future__ import annotations

import logging
import os
import re
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from vixws_core.client import ClientState, RoomGap, RoomJoined, RoomLeft, RoomLive, RoomReset
from vixws_core.errors import LocalError

from ._cli_messages import print_message
from ._cli_terminal import FAILED, OK, CommandFailed, Progress, complain, faults_of, log_to_stderr
from .client import Client, ClientEnded, ClientError

__all__ = ["publish", "since_of", "tail"]

WINDOW: Final = 256
"""Publishes of stdin without an answer, at most: as many as one commit of the store takes."""
WINDOW_BYTES: Final = 2_097_152
"""The same in bytes; one message may pass it."""
LINE_BYTES_MAX: Final = 67_108_864
"""Longest line of stdin; no server takes larger messages."""

log = logging.getLogger("vixws")

RoomEvent = RoomJoined | RoomLive | RoomGap | RoomReset | RoomLeft


def since_of(text: str) -> tuple[str, int, None]:
    """Reads `EP:OFF`, a position in a room's log. Raises: `CommandFailed`."""
    found = re.fullmatch(r"([^\s:]{1,64}):([0-9]{1,15})", text)
    if found is None:
        raise CommandFailed(f"--since: expected EPOCH:OFFSET such as k3f9:41, got {text!r:.100}")
    return found[1], int(found[2]), None


# ---- tail -------------------------------------------------------------------------------------------


def tail(arguments: Namespace) -> int:
    """Prints a room's messages until the server puts us out, a signal, or `--count` of them."""
    since = since_of(arguments.since) if arguments.since is not None else None
    client = Client(arguments.url, cafile=arguments.ca)

    def told(_: Client, event: RoomEvent) -> None:
        if (words := _words_of(event)) is not None:
            complain("vixws tail", words)

    client.on_room(told)

    async def run() -> None:
        async with _open(client, arguments.url):
            left = arguments.count
            if left == 0:
                return
            async for message in client.room(arguments.room, since, arguments.last, from_floor=True):
                print_message(message, arguments.json)
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    _run(run)
    return OK


def _words_of(event: RoomEvent) -> str | None:
    """What a reader of the messages must know of an event; None where that is nothing."""
    match event:
        case RoomJoined(recovered=False, reason=reason, off=off, ep=ep) if reason != "fresh":
            return f"the position is not in the log any more ({reason}): going on after {ep}:{off}"
        case RoomGap(first=first, last=last):
            return f"offsets {first} to {last} were trimmed before we read them"
        case RoomReset(reason=reason, ep=ep, off=off):
            return f"the log was replaced ({reason}): going on after {ep}:{off}"
        case _:
            return None


# ---- publish ----------------------------------------------------------------------------------------


def publish(arguments: Namespace) -> int:
    """Publishes one payload, or with `-` one from each line of stdin; waits for every answer."""
    client = Client(arguments.url, cafile=arguments.ca)
    if arguments.payload == "-":
        sender = _Lines(client, arguments.room, arguments.type, arguments.timeout)
        _run(partial(sender.run, arguments.url))
        return FAILED if sender.failed else OK
    payload = read_payload(arguments.payload.encode("utf-8", "surrogateescape"))

    async def run() -> None:
        async with _open(client, arguments.url):
            with _patience(arguments.timeout):
                stored = await client.publish(arguments.room, arguments.type, payload)
        print(f"{stored.ep}:{stored.off} {stored.id}" if stored.off else "not stored")

    _run(run)
    return OK


def read_payload(data: bytes) -> bytes:
    """The JSON of an object, as it was written. Raises: `CommandFailed`."""
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError) as exc:
        raise CommandFailed(f"payload: expected a JSON object: {exc}") from None
    if not isinstance(value, dict):
        raise CommandFailed(f"payload: expected a JSON object, got {data.decode('utf-8', 'replace')!r:.100}")
    return data


class _Lines:
    """Publishes the lines of stdin, in order, a bounded number of them in flight."""

    def __init__(self, client: Client, room: str, type: str, timeout_s: float) -> None:
        self._client = client
        self._room = room
        self._type = type
        self._timeout_s = timeout_s
        self._flying = 0
        self._flying_bytes = 0
        self._landed = anyio.Event()
        self.stored = 0
        self.failed = 0
        self._progress = Progress(sys.stdin.buffer, sys.stderr)

    async def run(self, url: str) -> None:
        """Reads stdin to its end, and waits for the last answer."""
        async with _open(self._client, url):
            try:
                async with anyio.create_task_group() as tasks:
                    number = 0
                    async for line in read_lines():
                        number += 1
                        self._progress.read(len(line))
                        if not line.strip():
                            continue
                        try:
                            payload = read_payload(line.strip())
                        except CommandFailed as exc:
                            self._fail(number, exc)
                            continue
                        await self._wait_room(len(line))
                        tasks.start_soon(self._publish, number, payload, len(line))
                        await anyio.lowlevel.checkpoint()  # It begins before the next one does: order is kept.
            finally:
                self._progress.clear()
        print(f"{self.stored:,} stored, {self.failed:,} failed", file=sys.stderr)

    async def _wait_room(self, size: int) -> None:
        while self._flying and (self._flying >= WINDOW or self._flying_bytes + size > WINDOW_BYTES):
            self._landed = anyio.Event()
            await self._landed.wait()
        self._flying += 1
        self._flying_bytes += size

    async def _publish(self, number: int, payload: bytes, size: int) -> None:
        try:
            with _patience(self._timeout_s):
                await self._client.publish(self._room, self._type, payload)
            self.stored += 1
        except (ClientError, ClientEnded, CommandFailed, LocalError) as exc:
            self._fail(number, exc)
        finally:
            self._flying -= 1
            self._flying_bytes -= size
            self._landed.set()
            self._progress.show(f"{self.stored:,} stored, {self.failed:,} failed")

    def _fail(self, number: int, exc: Exception) -> None:
        self.failed += 1
        self._progress.clear()
        complain("vixws publish", f"line {number}: {exc}")


async def read_lines() -> AsyncGenerator[bytes, None]:
    """The lines of stdin as they come, the last one with or without its end. Raises: `CommandFailed`."""
    rest = b""
    while data := await anyio.to_thread.run_sync(os.read, sys.stdin.fileno(), 65_536, abandon_on_cancel=True):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > LINE_BYTES_MAX:
            raise CommandFailed(f"stdin: expected lines of at most {LINE_BYTES_MAX} bytes")
    if rest:
        yield rest


# ---- both -------------------------------------------------------------------------------------------


@contextmanager
def _patience(timeout_s: float) -> Generator[None]:
    """Bounds the wait for an answer. Raises: `CommandFailed` at its end."""
    try:
        with anyio.fail_after(timeout_s):
            yield
    except TimeoutError:
        raise CommandFailed(f"no answer within {timeout_s:g} s: it may or may not be stored", FAILED) from None


@asynccontextmanager
async def _open(client: Client, url: str) -> AsyncGenerator[None]:
    """Runs the client, connected. Raises: `CommandFailed` where the first attempt fails; later ones are repeated."""
    log_to_stderr()
    log.setLevel(logging.ERROR)  # The first attempt has one line of its own.
    over = anyio.Event()

    def closed(_: Client) -> None:
        over.set()

    client.on_close(closed)

    async with client:
        async with anyio.create_task_group() as tasks:

            async def either(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(either, client.wait_open)
            tasks.start_soon(either, over.wait)
        if client.state is not ClientState.OPEN:
            raise CommandFailed(f"cannot reach {url}: {client.close_reason or client.close_code}", FAILED)
        log.setLevel(logging.WARNING)
        yield


def _run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a command's loop. Raises: `CommandFailed` in place of what the client raises, without groups."""
    try:
        anyio.run(main)
    except Exception as exc:
        fault = faults_of(exc)[0]
        if isinstance(fault, ClientError | ClientEnded):
            raise CommandFailed(str(fault), FAILED) from None
        if isinstance(fault, CommandFailed | LocalError | BrokenPipeError):
            raise fault from None
        raise
