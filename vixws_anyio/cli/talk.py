"""`vixws tail` and `vixws publish`: a room's messages on stdout, and messages from the command line or stdin."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from vixws_core.client import ClientState, RoomGap, RoomJoined, RoomLeft, RoomLive, RoomReset
from vixws_core.effects import Published
from vixws_core.errors import LocalError
from vixws_core.wire.envelope import client_message

from ..client.client import Client
from ..client.errors import ClientEnded, ClientError
from ..logs import log
from .loglines import log_to_stderr
from .messages import print_message
from .terminal import FAILED, OK, CommandFailed, Progress, complain, faults_of

__all__ = ["publish", "since_of", "tail"]

WINDOW: Final = 256
"""Publishes of stdin without an answer, at most: as many as one commit of the store takes."""
WINDOW_BYTES: Final = 2_097_152
"""The same in bytes; one message may pass it."""
WHY: Final = "why"
"""The `ref` of a publish that is sent only to hear why it has no answer."""
LINE_BYTES_MAX: Final = 67_108_864
"""Longest line of stdin; no server takes larger messages."""

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
        case RoomGap(first=first, unreadable=True):
            return f"offset {first} is no message, and is passed over"
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
        lines = _Lines(client, arguments)
        _run(partial(lines.run, arguments.url))
        return FAILED if lines.failed else OK
    payload = read_payload(arguments.payload.encode("utf-8", "surrogateescape"))
    results: list[Published | Exception] = []
    sender = _Sender(client, arguments, lambda _, result: results.append(result))

    async def run() -> None:
        async with _open(client, arguments.url), anyio.create_task_group() as tasks:
            tasks.start_soon(sender.watch)
            await sender.publish(tasks, 1, payload)
            await sender.wait_answers()
            tasks.cancel_scope.cancel()
        (result,) = results
        if isinstance(result, Exception):
            raise result
        print(f"{result.ep}:{result.off} {result.id}" if result.off else "not stored")

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


class _Waiting:
    """A publish without an answer so far, which is a failure at the time `due`."""

    __slots__ = ("asked", "due", "mid", "number", "payload")

    def __init__(self, number: int, payload: bytes, due: float) -> None:
        self.number: int = number
        self.payload: bytes = payload
        self.due: float = due
        self.mid = secrets.token_hex(16)
        self.asked: bool = False
        """Whether the server was asked why."""


class _Sender:
    """Publishes payloads, in order, a bounded number of them without an answer.

    One that has no answer in time counts as failed, but the client repeats it all the same, so its place is not
    free before there is one. What the server says meanwhile the client keeps to itself: therefore the oldest is
    sent once more in a quarter of that time, beside the client's own repeats. Its key makes that harmless
    (PROTOCOL §4).
    `settled` is told the number of each with its place in the log, or why it has none.
    """

    def __init__(
        self, client: Client, arguments: Namespace, settled: Callable[[int, Published | Exception], None]
    ) -> None:
        self._client = client
        self._room: str = arguments.room
        self._type: str = arguments.type
        self._timeout_s: float = arguments.timeout
        self._settled = settled
        self._waiting: dict[int, _Waiting] = {}
        self._late = 0
        self._flying = 0
        self._flying_bytes = 0
        self._news = anyio.Event()

    @property
    def late(self) -> bool:
        """Whether something had no answer in time."""
        return self._late > 0

    @property
    def why(self) -> str:
        """What the server said last, in brackets; nothing where it was not heard."""
        told = self._client.refused
        return f" (the server said last: {told.code}: {told.message})" if told is not None and told.ref == WHY else ""

    async def wait_room(self, size: int) -> bool:
        """Waits until one more of so many bytes may be sent; False where there was no room in time."""
        with anyio.move_on_after(self._timeout_s):
            while self._flying and (self._flying >= WINDOW or self._flying_bytes + size > WINDOW_BYTES):
                await self._change()
            return True
        return False

    async def wait_answers(self) -> None:
        """Waits until everything is answered or late."""
        while self._waiting:
            await self._change()

    async def _change(self) -> None:
        await self._news.wait()

    def _changed(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def publish(self, tasks: TaskGroup, number: int, payload: bytes) -> None:
        """Publishes one; a task waits for its answer, be it late."""
        self._flying += 1
        self._flying_bytes += len(payload)
        one = self._waiting[number] = _Waiting(number, payload, anyio.current_time() + self._timeout_s)
        self._changed()
        tasks.start_soon(self._publish, one)
        await anyio.lowlevel.checkpoint()  # It begins before the next one does: order is kept.

    async def _publish(self, one: _Waiting) -> None:
        try:
            stored = await self._client.publish(self._room, self._type, one.payload, mid=one.mid)
        except (ClientError, ClientEnded, LocalError) as exc:
            if self._waiting.pop(one.number, None) is not None:
                self._settled(one.number, exc)
        else:
            if self._waiting.pop(one.number, None) is not None:
                self._settled(one.number, stored)
        finally:
            self._flying -= 1
            self._flying_bytes -= len(one.payload)
            self._changed()

    async def watch(self) -> None:
        """Tells what is late, for ever."""
        while True:
            one = next(iter(self._waiting.values()), None)
            if one is None:
                await self._change()
                continue
            now = anyio.current_time()
            asking = one.due - self._timeout_s * 0.75
            if now >= one.due:
                del self._waiting[one.number]
                self._late += 1
                words = f"no answer within {self._timeout_s:g} s: it may or may not be stored{self.why}"
                self._settled(one.number, CommandFailed(words, FAILED))
                self._changed()
            elif now < asking:
                await anyio.sleep(asking - now)
            else:
                if not (one.asked or self.late):  # After a late one, this is not the client's oldest.
                    one.asked = True
                    with anyio.move_on_after(one.due - now):
                        await self._ask_why(one)
                await anyio.sleep(max(0.0, one.due - anyio.current_time()))

    async def _ask_why(self, one: _Waiting) -> None:
        text = client_message(self._type, one.payload, ref=WHY, room=self._room, mid=one.mid)
        with suppress(ClientEnded, LocalError):  # No connection: then the log says why there is no answer.
            await self._client.send_text(text.decode())


class _Lines:
    """Publishes the lines of stdin."""

    def __init__(self, client: Client, arguments: Namespace) -> None:
        self._client = client
        self._timeout_s: float = arguments.timeout
        self._sender = _Sender(client, arguments, self._settled)
        self.stored: int = 0
        self.failed: int = 0
        self._unread = ""
        self._progress = Progress(sys.stdin.buffer, sys.stderr)

    async def run(self, url: str) -> None:
        """Reads stdin to its end, and waits for the last answer."""
        async with _open(self._client, url):
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._sender.watch)
                    await self._publish_all(tasks)
                    await self._sender.wait_answers()
                    tasks.cancel_scope.cancel()
            finally:
                self._progress.clear()
        why = self._sender.why if self._sender.late else ""
        print(f"{self._summary}{self._unread}{why}", file=sys.stderr)

    async def _publish_all(self, tasks: TaskGroup) -> None:
        number = 0
        async for line in read_lines():
            number += 1
            self._progress.read(len(line))
            if not (text := line.strip()):
                continue
            try:
                payload = read_payload(text)
            except CommandFailed as exc:
                self._settled(number, exc)
                continue
            if not await self._sender.wait_room(len(payload)):
                self._unread = f"; gave up before line {number}: nothing was answered for {self._timeout_s:g} s"
                self.failed = max(1, self.failed)
                return
            await self._sender.publish(tasks, number, payload)

    @property
    def _summary(self) -> str:
        return f"{self.stored:,} stored, {self.failed:,} failed"

    def _settled(self, number: int, result: Published | Exception) -> None:
        if isinstance(result, Exception):
            self.failed += 1
            self._progress.clear()
            complain("vixws publish", f"line {number}: {result}")
        else:
            self.stored += 1
        self._progress.show(self._summary)


async def read_lines() -> AsyncGenerator[bytes, None]:
    """The lines of stdin as they come, the last one with or without its end. Raises: `CommandFailed`."""
    rest = b""
    number = sys.stdin.fileno()
    while True:
        try:  # Not in a thread, which Python would wait for after Ctrl-C.
            await anyio.wait_readable(number)
        except PermissionError:  # A file, which no loop can wait for: it has its bytes at once.
            await anyio.lowlevel.checkpoint()
        if not (data := os.read(number, 65_536)):
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > LINE_BYTES_MAX:
            raise CommandFailed(f"stdin: expected lines of at most {LINE_BYTES_MAX} bytes")
    if rest:
        yield rest


# ---- both -------------------------------------------------------------------------------------------


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
            raise CommandFailed(
                f"cannot reach {without_query(url)}: {client.close_reason or client.close_code}", FAILED
            )
        log.setLevel(logging.WARNING)
        yield


def without_query(url: str) -> str:
    """A URL as it may be shown: without its query and its user, where keys are."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
