"""The load client believes no server: whatever comes back wrong, late, twice or not at all fails its run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load import build

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="wsload.c needs gcc")

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A

Message = dict[str, Any]


def frame(first: int, payload: bytes) -> bytes:
    """One unmasked frame in its shortest form."""
    n = len(payload)
    if n < 126:
        return bytes((first, n)) + payload
    if n < 65_536:
        return bytes((first, 126)) + n.to_bytes(2, "big") + payload
    return bytes((first, 127)) + n.to_bytes(8, "big") + payload


class Connection:
    """The server's end of one connection, with just enough WebSocket to misbehave exactly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.write = writer.write
        self.close = writer.close
        self.pongs = 0
        self.received = 0

    async def upgrade(self, salt: bytes = b"", extra: bytes = b"") -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"sec-websocket-key: ") + 19
        accept = base64.b64encode(hashlib.sha1(head[at : at + 24] + salt + GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n" + extra + b"\r\n"
        )

    async def message(self) -> bytes:
        """The next data message's payload; a close frame is answered and ends the connection."""
        while True:
            first, length = await self._reader.readexactly(2)
            length &= 127
            if length == 126:
                length = int.from_bytes(await self._reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self._reader.readexactly(8), "big")
            key = await self._reader.readexactly(4)
            masked = await self._reader.readexactly(length)
            mask = (key * (length // 4 + 1))[:length]
            payload = (int.from_bytes(masked, "big") ^ int.from_bytes(mask, "big")).to_bytes(length, "big")
            if first == PONG:
                self.pongs += 1
            elif first == CLOSE:
                self.write(frame(CLOSE, payload))
                self.close()
                raise ConnectionResetError
            else:
                self.received += 1
                return payload

    async def json(self) -> Message:
        found: Message = json.loads(await self.message())
        return found

    def say(self, message: Message) -> None:
        self.write(frame(TEXT, json.dumps(message).encode()))


Behaviour = Callable[[Connection], Awaitable[None]]

# Runs that should succeed are short, and what is asserted of them does not depend on how much they do; runs
# that should fail end when they do; only a run that should stall has a short patience.
SHORT = ("--duration", "0.1", "--warmup", "0")
LONG = ("--duration", "20", "--warmup", "0")
STALL = ("--timeout", "0.5")


@pytest.fixture(scope="module")
def wsload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load client, compiled without a warning."""
    return build(tmp_path_factory.mktemp("wsload"))


def measure(wsload: Path, behave: Behaviour, *arguments: str) -> tuple[int, Message]:
    """Run the load client against a server whose connections all behave in one way."""

    async def run() -> tuple[int, Message]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await behave(Connection(reader, writer))
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # the load client has gone
            finally:
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=128)
        port = server.sockets[0].getsockname()[1]
        async with server:
            process = await asyncio.create_subprocess_exec(
                wsload, *arguments, "--port", str(port), "--settle", "0.02", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return process.returncode, json.loads(out)

    return asyncio.run(run())


# ---- echo ---------------------------------------------------------------------------------

ECHO = ("echo", "--verify")
AT = 50  # the message that goes wrong


def echoing(answer: Callable[[Connection, bytes], None]) -> Behaviour:
    """An echo server that answers each message in its own way."""

    async def behave(connection: Connection) -> None:
        await connection.upgrade()
        while True:
            answer(connection, await connection.message())

    return behave


def honest(connection: Connection, payload: bytes) -> None:
    connection.write(frame(TEXT, payload))


def in_fragments(connection: Connection, payload: bytes) -> None:
    third = len(payload) // 3
    connection.write(frame(0x01, payload[:third]) + frame(PING, b"abc"))
    connection.write(frame(0x00, payload[third : 2 * third]) + frame(0x80, payload[2 * third :]))


def byte_by_byte(connection: Connection, payload: bytes) -> None:
    for byte in frame(TEXT, payload):
        connection.write(bytes((byte,)))


def wrong_once(wrong: Callable[[bytes], bytes]) -> Callable[[Connection, bytes], None]:
    """Honest, but for one message, which is answered with other bytes."""

    def answer(connection: Connection, payload: bytes) -> None:
        connection.write(wrong(payload) if connection.received == AT else frame(TEXT, payload))

    return answer


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "corrupted": (lambda payload: frame(TEXT, payload[:-1] + b"y"), "payload differs"),
    "cut short": (lambda payload: frame(TEXT, payload[:-1]), "came back different"),
    "reordered": (lambda payload: frame(TEXT, b"0" * 16 + payload[16:]), "came back different"),
    "binary": (lambda payload: frame(BINARY, payload), "came back different"),
    "lost": (lambda _payload: b"", "came back different"),
    "closed": (lambda _payload: frame(CLOSE, b"\x03\xf3"), "closed by the server, code 1011"),
    "masked": (lambda payload: b"\x81\xfe" + len(payload).to_bytes(2, "big") + payload, "masked frame"),
    "compressed": (lambda payload: frame(0xC1, payload), "reserved bits"),
    "long form": (lambda payload: b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload, "shortest form"),
}


@pytest.mark.parametrize("answer", [honest, in_fragments, byte_by_byte])
def test_an_honest_echo_is_believed_however_it_is_framed(
    wsload: Path, answer: Callable[[Connection, bytes], None]
) -> None:
    arguments = (*ECHO, *SHORT, "--conns", "2", "--depth", "3", "--size", "130")

    status, found = measure(wsload, echoing(answer), *arguments)

    assert (status, found["mode"]) == (0, "echo")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 125, 126, 65_535, 65_536])
def test_every_length_of_an_echo_is_understood(wsload: Path, size: int) -> None:
    arguments = (*ECHO, *SHORT, "--depth", "2", "--size", str(size))

    status, found = measure(wsload, echoing(honest), *arguments)

    assert (status, found["size"]) == (0, size)


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_echo_fails_the_run(wsload: Path, name: str) -> None:
    wrong, said = WRONG[name]

    arguments = (*ECHO, *LONG, "--conns", "2", "--depth", "3", "--size", "130")

    status, found = measure(wsload, echoing(wrong_once(wrong)), *arguments)

    assert status == 1
    assert said in found["error"]


def test_echoes_that_stop_coming_fail_the_run(wsload: Path) -> None:
    def answer(connection: Connection, payload: bytes) -> None:
        if connection.received < AT:
            honest(connection, payload)

    status, found = measure(wsload, echoing(answer), *ECHO, *LONG, *STALL)

    assert status == 1
    assert "nothing moved" in found["error"]


def test_a_wrong_accept_key_fails_the_run(wsload: Path) -> None:
    status, found = measure(wsload, lambda connection: connection.upgrade(salt=b"X"), *ECHO)

    assert status == 1
    assert found["error"] == "wrong Sec-WebSocket-Accept"


def test_an_extension_never_offered_fails_the_run(wsload: Path) -> None:
    extra = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    status, found = measure(wsload, lambda connection: connection.upgrade(extra=extra), *ECHO)

    assert status == 1
    assert found["error"] == "server chose an extension never offered"


def test_a_ping_is_answered(wsload: Path) -> None:
    connections: list[Connection] = []

    async def behave(connection: Connection) -> None:
        connections.append(connection)
        await echoing(in_fragments)(connection)

    measure(wsload, behave, *ECHO, *SHORT)

    assert connections[0].pongs > 0


# ---- fan-out ------------------------------------------------------------------------------

FANOUT = ("fanout", "--conns", "3")


class FakeRoom:
    """Broadcasts each message to who joined, rewritten in a way of the test's own."""

    def __init__(self, rewrite: Callable[[bytes], list[bytes]]) -> None:
        self._members: list[Connection] = []
        self._rewrite = rewrite
        self.published = 0

    async def __call__(self, connection: Connection) -> None:
        await connection.upgrade()
        while True:
            payload = await connection.message()
            if json.loads(payload)["type"] == "room.join":
                self._members.append(connection)
            else:
                self.published += 1
                for out in self._rewrite(payload):
                    for member in self._members:
                        member.write(frame(TEXT, out))


def stamped(stamp: Any) -> Callable[[bytes], list[bytes]]:
    """Broadcast with another stamp."""
    return lambda _payload: [json.dumps({"ts": "2026-01-01T00:00:00Z", "payload": {"t0": stamp}}).encode()]


def spaced(payload: bytes) -> list[bytes]:
    return [json.dumps({"ts": "2026-01-01T00:00:00Z", **json.loads(payload)}, indent=1).encode()]


def unchanged(payload: bytes) -> list[bytes]:
    return [payload]


@pytest.mark.parametrize("rewrite", [unchanged, spaced])
def test_deliveries_are_counted_by_their_stamp(wsload: Path, rewrite: Callable[[bytes], list[bytes]]) -> None:
    room = FakeRoom(rewrite)

    status, found = measure(wsload, room, *FANOUT, *SHORT)

    assert room.published > 0
    assert (status, found["undelivered"]) == (0, 0)


@pytest.mark.parametrize("stamp", ["2026-01-01", "1234", 1.5, -1, None, True, [1]], ids=repr)
def test_a_stamp_that_is_no_whole_number_fails_the_run(wsload: Path, stamp: Any) -> None:
    status, found = measure(wsload, FakeRoom(stamped(stamp)), *FANOUT, *LONG)

    assert status == 1
    assert "t0 is not a whole number" in found["error"]


def test_a_stamp_in_the_future_fails_the_run(wsload: Path) -> None:
    status, found = measure(wsload, FakeRoom(stamped(10**18)), *FANOUT, *LONG)

    assert status == 1
    assert "lies in the future" in found["error"]


def test_a_delivery_that_comes_twice_fails_the_run(wsload: Path) -> None:
    status, found = measure(wsload, FakeRoom(lambda payload: [payload, payload]), *FANOUT, *LONG)

    assert status == 1
    assert "twice or out of order" in found["error"]


def test_a_delivery_that_never_comes_is_reported(wsload: Path) -> None:
    arguments = (*FANOUT, *SHORT, "--window", "2", "--drain", "0.1")

    status, found = measure(wsload, FakeRoom(lambda _payload: []), *arguments)

    assert (status, found["undelivered"]) == (0, 6)


# ---- publish ------------------------------------------------------------------------------

PUBLISH = ("publish", "--conns", "2", "--depth", "4")


def answered(message: Message) -> Message:
    return {"ref": message["ref"], "payload": {"off": 1, "text": 'a "quoted\\" ref":"7" }'}, "type": "$ack"}


def acking(answers: Callable[[int, Message], list[Message]]) -> Behaviour:
    """Answers the n-th publish of each connection with a list of messages."""

    async def behave(connection: Connection) -> None:
        await connection.upgrade()
        connection.say({"type": "chat.system", "payload": {"text": "Welcome!"}})
        while True:
            message = await connection.json()
            for answer in answers(connection.received, message):
                connection.say(answer)

    return behave


def test_acks_are_counted_by_ref(wsload: Path) -> None:
    refs: list[tuple[str, str]] = []

    def answers(_number: int, message: Message) -> list[Message]:
        refs.append((message["room"], message["ref"]))
        return [answered(message)]

    status, found = measure(wsload, acking(answers), *PUBLISH, *SHORT, "--rooms", "2")

    assert status == 0
    assert found["answered"] == len(refs) == len(set(refs)) > 0


def test_acks_may_come_in_any_order(wsload: Path) -> None:
    async def behave(connection: Connection) -> None:
        await connection.upgrade()
        while True:
            waiting = [await connection.json() for _ in range(4)]
            for message in reversed(waiting):
                connection.say(answered(message))

    status, found = measure(wsload, behave, *PUBLISH, "--conns", "1", "--count", "400")

    assert status == 0
    assert found["answered"] == 400


def test_a_count_of_publishes_is_sent_exactly(wsload: Path) -> None:
    numbers: list[int] = []

    def answers(number: int, message: Message) -> list[Message]:
        numbers.append(number)
        return [answered(message)]

    status, found = measure(wsload, acking(answers), *PUBLISH, "--count", "101")

    assert status == 0
    assert found["publishes"] == len(numbers) == 101
    assert 0 < found["latency_us"]["p50"] <= found["latency_us"]["p99"] <= found["latency_us"]["max"]


def test_idempotency_keys_are_never_repeated(wsload: Path) -> None:
    keys: list[str] = []

    def answers(_number: int, message: Message) -> list[Message]:
        keys.append(message["mid"])
        return [answered(message)]

    measure(wsload, acking(answers), *PUBLISH, "--count", "50", "--mid")
    measure(wsload, acking(answers), *PUBLISH, "--count", "50", "--mid")

    assert len(set(keys)) == len(keys) == 100


REFUSED: dict[str, tuple[Callable[[Message], list[Message]], str]] = {
    "twice": (lambda message: [answered(message), answered(message)], "answered twice"),
    "an error": (
        lambda message: [{"type": "$err", "ref": message["ref"], "payload": {"code": "internal"}}],
        "internal",
    ),
    "another ref": (lambda _message: [{"type": "$ack", "ref": "999999"}], "never sent"),
    "no ref": (lambda _message: [{"type": "$ack", "payload": {"ref": "1"}}], "no ref of ours"),
    "a number": (lambda message: [{"type": "$ack", "ref": int(message["ref"])}], "no ref of ours"),
    "nothing": (lambda _message: [], "nothing moved"),
    "a stray message": (lambda _message: [{"type": "bench.message", "off": 1}], "did not join"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_ref_that_is_not_answered_exactly_once_fails_the_run(wsload: Path, name: str) -> None:
    wrong, said = REFUSED[name]

    def answers(number: int, message: Message) -> list[Message]:
        return wrong(message) if number >= AT else [answered(message)]

    patience = STALL if name == "nothing" else ()

    status, found = measure(wsload, acking(answers), *PUBLISH, *LONG, *patience)

    assert status == 1
    assert said in found["error"]


class FakeLog:
    """Joins, acks and copies, with one publish whose copies come in a way of the test's own."""

    def __init__(self, offsets: Callable[[int], list[int]]) -> None:
        self._members: list[Connection] = []
        self._head = 7
        self._offsets = offsets

    async def __call__(self, connection: Connection) -> None:
        await connection.upgrade()
        while True:
            message = await connection.json()
            if message["type"] == "$join":
                self._members.append(connection)
                connection.say({"type": "$joined", "ref": message["ref"], "payload": {"from": self._head}})
                connection.say({"type": "$live", "payload": {"off": self._head}})
                continue
            self._head += 1
            connection.say(answered(message))
            offsets = self._offsets(self._head) if self._head == AT else [self._head]
            for member in self._members:
                for off in offsets:
                    member.say({"type": message["type"], "room": message["room"], "off": off, "payload": {}})


JOINED = (*PUBLISH, "--pub-joins")


def test_members_count_each_copy_once(wsload: Path) -> None:
    status, found = measure(wsload, FakeLog(lambda off: [off]), *JOINED, "--count", "100")

    assert (status, found["answered"], found["undelivered"]) == (0, 100, 0)


COPIES: dict[str, Callable[[int], list[int]]] = {
    "repeated": lambda off: [off, off],
    "out of place": lambda off: [off + 1],
    "missing": lambda _off: [],
}


@pytest.mark.parametrize("offsets", COPIES.values(), ids=COPIES)
def test_a_copy_repeated_missing_or_out_of_place_fails_the_run(
    wsload: Path, offsets: Callable[[int], list[int]]
) -> None:
    status, found = measure(wsload, FakeLog(offsets), *JOINED, *LONG)

    assert status == 1
    assert "offset" in found["error"]


# ---- replay -------------------------------------------------------------------------------

REPLAY = ("replay", "--conns", "2")
EPOCH = 'k"3\\f9'
HEAD = 20


def log_of(messages: Callable[[int], list[Message]], **joined: Any) -> Behaviour:
    """A room with a head of 20 that sends what `messages(since)` says after `$joined`."""

    async def behave(connection: Connection) -> None:
        await connection.upgrade()
        while True:
            message = await connection.json()
            answer = {"type": message["type"], "ref": message["ref"], "room": message["room"]}
            if message["type"] == "$position":
                connection.say({**answer, "payload": {"ep": EPOCH, "head": HEAD, "floor": 0}})
                continue
            since = message["payload"]["since"]
            assert since["ep"] == EPOCH
            connection.say({**answer, "type": "$joined", "payload": {"recovered": True, **joined}})
            for each in messages(since["off"]):
                connection.say(each)

    return behave


def stored(first: int, last: int) -> list[Message]:
    return [{"type": "bench.message", "ep": EPOCH, "off": off, "payload": {"off": 0}} for off in range(first, last + 1)]


def live(off: int) -> Message:
    return {"type": "$live", "room": "r0", "payload": {"off": off}}


@pytest.mark.parametrize("since", [0, 13])
def test_a_replay_is_counted_until_it_is_live(wsload: Path, since: int) -> None:
    server = log_of(lambda off: [*stored(off + 1, HEAD), live(HEAD)])

    status, found = measure(wsload, server, *REPLAY, "--from", str(since))

    assert status == 0
    assert found["deliveries"] == 2 * (HEAD - since)


BROKEN: dict[str, tuple[Behaviour, str]] = {
    "a hole": (log_of(lambda _off: [*stored(1, 9), *stored(11, HEAD), live(HEAD)]), "offset 11 after 9"),
    "a repeat": (log_of(lambda _off: [*stored(1, 9), *stored(9, HEAD), live(HEAD)]), "offset 9 after 9"),
    "live too early": (log_of(lambda _off: [*stored(1, 9), live(9)]), "at offset 9 of 20"),
    "live elsewhere": (log_of(lambda _off: [*stored(1, HEAD), live(HEAD + 1)]), "at offset 20 of 20"),
    "never live": (log_of(lambda _off: stored(1, HEAD)), "nothing moved"),
    "a gap told": (log_of(lambda _off: [{"type": "$gap", "payload": {"from": 1, "to": 2}}]), "$gap"),
    "a refusal": (log_of(lambda _off: [{"type": "$err", "payload": {"code": "denied"}}]), "denied"),
    "another epoch": (log_of(lambda _off: [{**stored(1, 1)[0], "ep": "other"}]), "another epoch"),
    "not recovered": (log_of(lambda _off: [], recovered=False, reason="trimmed"), "trimmed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_replay_that_is_not_whole_fails_the_run(wsload: Path, name: str) -> None:
    server, said = BROKEN[name]

    status, found = measure(wsload, server, *REPLAY, *(STALL if name == "never live" else ()))

    assert status == 1
    assert said in found["error"]


def test_an_empty_room_has_nothing_to_replay(wsload: Path) -> None:
    status, found = measure(wsload, log_of(lambda _off: []), *REPLAY, "--from", str(HEAD))

    assert status == 1
    assert "nothing to replay" in found["error"]
