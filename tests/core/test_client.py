"""The client's machine, against scripted servers and hostile ones; no sockets, no clock, no chance."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.utilities import generate_accept_token

from tests.core.client_rig import SEED, WELCOME, Rig, entry
from vixws_core.client import (
    ClientClosed,
    ClientConfig,
    ClientJoin,
    ClientMachine,
    ClientMessage,
    ClientOpened,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientStart,
    ClientState,
    OpenTransport,
    PublishSettled,
    RequestSettled,
    RoomGap,
    RoomJoined,
    RoomLive,
    TransportFailed,
    TransportOpened,
)
from vixws_core.client.handshake import parse_url
from vixws_core.effects import CloseTransport, SendBytes
from vixws_core.errors import LocalError
from vixws_core.inputs import BytesReceived, Disconnected
from vixws_core.wire.frames import (
    BINARY,
    PING,
    TEXT,
    CloseReceived,
    PingReceived,
    PongReceived,
    encode_close,
    encode_frame,
)

# ---- opening ------------------------------------------------------------------------------------


def test_a_client_upgrades_says_hello_and_is_open_at_the_welcome() -> None:
    rig = Rig(headers=[("X-Mine", "1")], subprotocols=["chat", "v2"], token="t")
    rig.put(ClientStart())
    assert [OpenTransport(1, "chat.test", 80, False)] == rig.told
    rig.connect()
    assert b"GET /ws HTTP/1.1\r\nHost: chat.test\r\n" in rig.request
    assert b"X-Mine: 1\r\n" in rig.request
    assert b"Sec-WebSocket-Protocol: chat, v2\r\n" in rig.request
    rig.bytes(rig.switching(b"Sec-WebSocket-Protocol: v2\r\n"))
    hello = rig.received[0]
    assert (
        hello["type"],
        hello["payload"]["v"],
        hello["payload"]["token"],
        hello["payload"]["session"],
    ) == ("$hello", [1], "t", None)
    assert len(hello["payload"]["pub"]) == 32
    rig.say({"type": "$welcome", "ref": hello["ref"], "payload": {**WELCOME, "user": "ada"}})
    opened = rig.of(ClientOpened)[0]

    assert (
        opened.conn,
        opened.reconnect,
        opened.resumed,
        opened.user,
        opened.subprotocol,
    ) == (1, False, False, "ada", "v2")
    assert WELCOME["session"] == json.loads(opened.welcome)["session"]


def test_without_hello_the_upgrade_is_enough() -> None:
    rig = Rig(hello=False)
    rig.open()
    rig.put(ClientSend(b"hi"), ClientSend(b"\x00", binary=True))
    rig.say("plain", {"type": "$their.own"}, {"type": "x", "room": "theirs", "payload": {"a": 1}})
    rig.bytes(encode_frame(BINARY, b"\x01\x02"))

    assert rig.received == ["hi", b"\x00"]
    assert [message.data for message in rig.of(ClientMessage)] == [
        "plain",
        '{"type": "$their.own"}',
        '{"type": "x", "room": "theirs", "payload": {"a": 1}}',
        b"\x01\x02",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h", ("h", 80, False, "/", "h")),
        ("wss://h/a b?x=1&y=%20", ("h", 443, True, "/a%20b?x=1&y=%20", "h")),
        ("ws://h:9090/ws", ("h", 9090, False, "/ws", "h:9090")),
        ("wss://h:443/", ("h", 443, True, "/", "h")),
        ("ws://[::1]:80/x", ("::1", 80, False, "/x", "[::1]")),
        ("ws://bücher.example/", ("xn--bcher-kva.example", 80, False, "/", "xn--bcher-kva.example")),
    ],
)
def test_a_url_is_read(url: str, expected: tuple[object, ...]) -> None:
    found = parse_url(url)

    assert expected == (found.host, found.port, found.secure, found.resource, found.authority)


@pytest.mark.parametrize(
    "url", ["http://h/", "ws:///x", "ws://h/#f", "ws://u:p@h/", "ws://h:x/", "ws://[::1/", "h", f"ws://{'ü' * 80}.x/"]
)
def test_a_bad_url_is_a_local_error(url: str) -> None:
    with pytest.raises(LocalError, match="url must"):
        ClientMachine(url, seed=SEED)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [("Upgrade", "h2c")]},
        {"headers": [("X", "a\r\nB: c")]},
        {"headers": [("X Y", "a")]},
        {"headers": [("X", "☃")]},
        {"subprotocols": ["a\r\n"]},
        {"seed": b""},
        {"seed": b"x" * 65},
    ],
)
def test_a_bad_header_subprotocol_or_seed_is_a_local_error(options: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        ClientMachine("ws://h/", **{"seed": SEED, **options})


def test_the_host_header_may_be_given() -> None:
    rig = Rig(headers=[("host", "other")])
    rig.put(ClientStart())
    rig.connect()

    assert rig.request.lower().count(b"host: other\r\n") == 1
    assert b"chat.test" not in rig.request


@pytest.mark.threat(36)
def test_interim_answers_and_frames_behind_the_upgrade_are_taken() -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    welcome = json.dumps({"type": "$welcome", "ref": "~hello", "payload": WELCOME}).encode()
    rig.bytes(interim + rig.switching() + encode_frame(TEXT, welcome) + encode_frame(TEXT, b"hi"))

    assert ClientState.OPEN is rig.machine.state
    assert [message.data for message in rig.of(ClientMessage)] == ["hi"]


OK_101 = "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
CHUNKED = "HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n"
HOSTILE = {
    "wrong accept": (
        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        101,
    ),
    "no accept": ("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 101),
    "two accepts": (OK_101 + "Sec-WebSocket-Accept: {accept}\r\n\r\n", 101),
    "no upgrade": ("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 101),
    "two upgrades": (OK_101 + "Upgrade: h2c\r\n\r\n", 101),
    "no connection": ("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 101),
    "an extension": (OK_101 + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 101),
    "a subprotocol": (OK_101 + "Sec-WebSocket-Protocol: mine\r\n\r\n", 101),
    "latin-1 in upgrade": ("HTTP/1.1 101 S\r\nUpgrade: wébsocket\r\nConnection: Upgrade\r\n\r\n", 101),
    "garbage": ("\x00\x01\x02 what\r\n\r\n", 0),
    "a request": ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0),
    "nothing but lines": ("\r\n\r\n", 0),
    "a folded junk head": ("HTTP/1.1 200 OK\r\n: x\r\n\r\n", 0),
    "interim for ever": ("HTTP/1.1 100 Continue\r\n\r\n" * 100, 0),
    "an endless head": ("HTTP/1.1 101 S\r\nX: " + "a" * 70_000, 0),
    "an endless head, complete": ("HTTP/1.1 101 S\r\nX: " + "a" * 70_000 + "\r\n\r\n", 0),
    "many interim heads": (("HTTP/1.1 100 C\r\nX: " + "a" * 4_000 + "\r\n\r\n") * 5, 0),
    "forbidden": ("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno!!!", 403),
    "moved": ("HTTP/1.1 302 Found\r\nLocation: ws://evil/\r\nContent-Length: 0\r\n\r\n", 302),
    "ok": ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200),
    "an endless body": ("HTTP/1.1 500 E\r\nContent-Length: 99999999\r\n\r\n" + "b" * 70_000, 500),
    "endless chunks": (
        "HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n" + "10000\r\n" + "b" * 65_536 + "\r\n",
        500,
    ),
    "a broken chunk": (CHUNKED + "zz\r\n", 500),
}


@pytest.mark.parametrize("size", [1 << 20, 1_000, 7])
@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.threat(36)
def test_row_36_a_hostile_answer_to_the_upgrade_ends_in_back_off(name: str, size: int) -> None:
    text, status = HOSTILE[name]
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    data = text.replace("{accept}", generate_accept_token(rig.key()).decode()).encode("latin-1")
    for at in range(0, len(data), size):
        if rig.machine.state is not ClientState.UPGRADING:
            break
        rig.bytes(data[at : at + size])

    closed = rig.of(ClientClosed)[0]
    assert (1006, True, status) == (closed.code, closed.reconnecting, closed.status)
    assert ClientState.WAITING is rig.machine.state
    assert CloseTransport(1, True) in rig.told
    assert len(closed.reason) < 400


def test_a_refusal_without_a_length_ends_with_the_connection() -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    rig.bytes(b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\ncome \xff later")
    assert ClientState.UPGRADING is rig.machine.state
    rig.put(Disconnected(1))

    assert [(closed.status, closed.reason) for closed in rig.of(ClientClosed)] == [
        (503, "the server answered the upgrade with 503: come \ufffd later")
    ]


def test_a_connection_that_ends_before_any_answer_is_told_as_such() -> None:
    rig = Rig()
    rig.put(ClientStart())
    rig.connect()
    rig.put(Disconnected(1))

    assert "before the answer" in rig.of(ClientClosed)[0].reason


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_opening_that_hangs_is_given_up_after_ten_seconds(steps: int) -> None:
    rig = Rig()
    rig.put(ClientStart())
    if steps > 0:
        rig.connect()
    if steps > 1:
        rig.bytes(rig.switching())
    assert rig.machine.next_deadline() == 110.0
    rig.wait()

    assert (rig.of(ClientClosed)[0].code, rig.of(ClientClosed)[0].reconnecting) == (1006, True)
    assert "within 10 s" in rig.of(ClientClosed)[0].reason
    assert CloseTransport(1, True) in rig.told


def test_what_is_told_of_an_older_transport_is_ignored() -> None:
    rig = Rig()
    rig.put(ClientStart(), TransportFailed(1, "refused"))
    rig.wait()
    rig.told.clear()
    rig.put(TransportOpened(1), TransportFailed(1, "x"), Disconnected(1), BytesReceived(1, b"x"))
    rig.put(BytesReceived(2, b"early"), ClientStart())

    assert rig.told == []
    assert ClientState.CONNECTING is rig.machine.state


# ---- chunking, determinism ----------------------------------------------------------------------


def script() -> bytes:
    """All a server says in one connection, after the upgrade."""
    messages: list[Any] = [
        {"type": "$welcome", "ref": "~hello", "payload": WELCOME},
        {
            "type": "$joined",
            "ref": "~j1",
            "room": "r",
            "payload": {"ep": "e1", "from": 0, "head": 2, "floor": 0, "recovered": False, "reason": "fresh"},
        },
        entry("r", 1),
        entry("r", 2, mid="m", kind="note", ts="2024-01-01T00:00:00Z", **{"from": "ada"}),
        {"type": "$live", "room": "r", "payload": {"off": 2}},
        {"type": "direct", "payload": {}, "ref": "x"},
        "text",
        entry("r", 2),
        {"type": "$gap", "room": "r", "payload": {"from": 3, "to": 9}},
        entry("r", 10),
        {"type": "$ack", "ref": "~p7", "room": "r", "payload": {"mid": "k", "ep": "e1", "off": 10, "id": "i"}},
    ]
    frames = [encode_frame(TEXT, (m if isinstance(m, str) else json.dumps(m)).encode()) for m in messages]
    frames.insert(4, encode_frame(PING, b"p"))
    frames.append(encode_frame(BINARY, b"\x00" * 300))
    frames.append(encode_close(1001, "bye"))
    return b"".join(frames)


def run(cuts: list[int]) -> tuple[list[Any], list[Any]]:
    """Plays the script, cut at `cuts`; returns what was told and what the server read."""
    rig = Rig()
    rig.put(ClientStart(), ClientJoin("r"), ClientPublish(7, "r", "chat", b"{}", mid="k"))
    rig.connect()
    data = rig.switching() + script()
    edges = sorted({0, *(cut % len(data) for cut in cuts), len(data)})
    for first, last in itertools.pairwise(edges):
        rig.bytes(data[first:last])
    told = [effect for effect in rig.told if type(effect) is not SendBytes]
    return told, rig.received


WHOLE = run([])


def test_the_whole_script_is_told_as_it_should_be() -> None:
    told, received = WHOLE

    assert [
        OpenTransport,
        ClientOpened,
        RoomJoined,
        ClientMessage,
        ClientMessage,
        RoomLive,
        ClientMessage,
        ClientMessage,
        RoomGap,
        ClientMessage,
        PublishSettled,
        ClientMessage,
        CloseTransport,
        ClientClosed,
    ] == [type(effect) for effect in told]
    second = told[4]
    assert ("chat", b'{"n": 2}', "r", "note", "e1", 2, f"{2:020}", "2024-01-01T00:00:00Z", "m", "ada") == (
        second.type,
        second.payload,
        second.room,
        second.kind,
        second.ep,
        second.off,
        second.id,
        second.ts,
        second.mid,
        second.sender,
    )
    assert PublishSettled(7, True, "k", "e1", 10, "i") in told
    assert PongReceived(b"p") in received
    assert CloseReceived(1001, "") == received[-1]


@pytest.mark.parametrize("size", [1, 2, 3, 61])
def test_any_fixed_chunk_size_gives_the_same(size: int) -> None:
    assert run(list(range(0, 5_000, size))) == WHOLE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5_000), max_size=30))
def test_any_chunking_gives_the_same(cuts: list[int]) -> None:
    assert run(cuts) == WHOLE


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.booleans(), st.booleans())
@pytest.mark.threat(36)
def test_no_bytes_from_a_server_make_the_machine_raise(chunks: list[bytes], opened: bool, framed: bool) -> None:
    rig = Rig()
    rig.put(ClientStart(), ClientJoin("r"), ClientPublish(1, "r", "t"))
    rig.connect()
    if opened:
        rig.bytes(rig.switching())
    for chunk in chunks:
        rig.bytes(encode_frame(TEXT, chunk) if framed else chunk)
    rig.pass_time(60)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.text(max_size=5),
    st.sampled_from(["r", "~j1", "~p1", "~q1", "~hello", "e1"]),
    st.lists(st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    ["from", "to", "head", "floor", "off", "ep", "id", "recovered", "stored", "code", "retry", "after_ms"]
)
TYPES = [
    "$joined",
    "$live",
    "$gap",
    "$reset",
    "$kicked",
    "$left",
    "$err",
    "$pong",
    "$ping",
    "$drain",
    "$welcome",
    "$ack",
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from([*TYPES, "$page", "$other", "chat"])},
            optional={
                "room": st.one_of(st.just("r"), JUNK),
                "ref": st.sampled_from(["~j1", "~p1", "~q1", "~hello", "x"]),
                "off": st.one_of(st.integers(0, 5), JUNK),
                "ep": st.just("e1"),
                "payload": st.one_of(JUNK, st.dictionaries(KEYS, JUNK, max_size=5)),
            },
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_no_messages_from_a_server_make_the_machine_raise(messages: list[Any], joined: bool) -> None:
    rig = Rig()
    rig.put(ClientStart(), ClientJoin("r"), ClientPublish(1, "r", "t"), ClientRequest(1, "$position", "r"))
    rig.open()
    if joined:
        rig.joined("r")
    for message in messages:
        rig.say(message)
    rig.pass_time(60)
    rig.handle_all()


def test_same_inputs_give_same_bytes_without_clock_or_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise AssertionError("the core asked for time or chance")

    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", refuse)
        for name in ("time", "monotonic", "time_ns", "monotonic_ns", "perf_counter"):
            patch.setattr(time, name, refuse)
        for name in ("random", "uniform", "randint", "getrandbits"):
            patch.setattr(random, name, refuse)
        first, second, other = Rig(), Rig(), Rig(seed=b"another")
        for rig in (first, second, other):
            rig.put(ClientStart(), ClientJoin("r"), ClientPublish(1, "r", "t"))
            rig.open()
            rig.joined("r")
            rig.put(ClientSend(b"x" * 60_000), Disconnected(1))
            rig.pass_time(100)

    assert first.told == second.told
    assert first.told != other.told


def test_masks_do_not_repeat_and_secrets_are_the_seeds() -> None:
    rig = Rig()
    rig.open()
    masks = [rig.put(ClientSend(b""))[0].data[2:6] for _ in range(200)]

    assert len(set(masks)) == 200
    assert Rig().machine._channel._hello == rig.machine._channel._hello
    assert Rig(seed=b"b").machine._channel._hello != rig.machine._channel._hello


# ---- back-off -----------------------------------------------------------------------------------


def closed_with(rig: Rig, code: int, reason: str = "") -> ClientClosed:
    rig.bytes(encode_close(code, reason))
    closed: ClientClosed = rig.of(ClientClosed)[-1]
    return closed


@pytest.mark.threat(31)
def test_row_31_a_storm_is_spread_over_the_time_told() -> None:
    delays: list[float] = []
    for number in range(2_000):
        rig = Rig(seed=b"client %d" % number)
        rig.open(reconnect_ms=20_000)
        rig.say("progress")
        rig.put(Disconnected(1))
        delays.append(rig.of(ClientClosed)[0].delay_s)

    tenths = [sum(1 for delay in delays if int(delay / 2) == tenth) for tenth in range(10)]
    assert all(0 <= delay < 20 for delay in delays)
    # A tenth of 2,000 is 200, with a standard deviation of 13.4: five of them either way.
    assert all(133 <= count <= 267 for count in tenths)


@pytest.mark.threat(31)
def test_later_attempts_are_spread_over_twice_the_time_up_to_thirty_seconds() -> None:
    longest = [0.0] * 12
    for number in range(300):
        rig = Rig(seed=b"client %d" % number)
        rig.put(ClientStart())
        for attempt in range(12):
            rig.put(TransportFailed(rig.conn, "refused"))
            longest[attempt] = max(longest[attempt], rig.of(ClientClosed)[-1].delay_s)
            rig.wait()

    expected = [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    # The largest of 300 uniform draws is below 95 % of the range once in five million.
    assert all(0.95 * most <= seen <= most for seen, most in zip(longest, expected, strict=True))


@pytest.mark.parametrize("progress", ["live", "ack", "message", "pong"])
@pytest.mark.threat(31)
def test_progress_resets_the_back_off(progress: str) -> None:
    rig = Rig(seed=b"slow")
    rig.put(ClientStart(), ClientJoin("r"), ClientPublish(1, "r", "t"))
    for _ in range(8):
        rig.put(TransportFailed(rig.conn, "refused"))
        rig.wait()
    rig.open(reconnect_ms=1_000)
    rig.joined("r")
    says: dict[str, dict[str, Any]] = {
        "live": {"type": "$live", "room": "r", "payload": {"off": 0}},
        "ack": {"type": "$ack", "ref": "~p1", "payload": {}},
        "message": {"type": "x"},
        "pong": {"type": "$pong", "payload": {}},
    }
    rig.say(says[progress])
    rig.put(Disconnected(rig.conn))

    assert rig.of(ClientClosed)[-1].delay_s <= 1.0


def test_a_welcome_alone_is_no_progress() -> None:
    spreads: list[float] = []
    for number in range(200):
        rig = Rig(seed=b"client %d" % number)
        for _ in range(8):
            rig.open(reconnect_ms=500)
            rig.put(Disconnected(rig.conn))
        spreads.append(rig.of(ClientClosed)[-1].delay_s)

    assert max(spreads) > 20


@pytest.mark.parametrize("code", [4000, 4001, 4009, 4010, 4099])
def test_codes_from_4000_to_4099_stop_the_client(code: int) -> None:
    rig = Rig()
    rig.open()
    rig.put(ClientPublish(1, "r", "t"), ClientRequest(2, "$position", "r"))
    closed = closed_with(rig, code, "why")

    assert ClientClosed(code, "why", False) == closed
    assert ClientState.STOPPED is rig.machine.state
    assert [settled.code for settled in rig.of(PublishSettled)] == ["closed"]
    assert [settled.code for settled in rig.of(RequestSettled)] == ["closed"]
    assert rig.machine.next_deadline() is None


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1005, 1007, 1008, 1009, 1011, 1012, 3000, 4100, 4108, 4199, 4200, 4999]
)
def test_other_codes_come_back_with_back_off(code: int) -> None:
    rig = Rig()
    rig.open(reconnect_ms=4_000)
    closed = closed_with(rig, code)

    assert (code, True) == (closed.code, closed.reconnecting)
    assert 0 <= closed.delay_s <= 4
    assert CloseReceived(code, "") == rig.received[-1]
    rig.wait()
    assert ClientState.CONNECTING is rig.machine.state


@pytest.mark.parametrize("code", [4200, 4201, 1012, 1006])
def test_a_client_told_of_a_drain_comes_back_at_its_time(code: int) -> None:
    rig = Rig()
    rig.open()
    rig.say({"type": "x"}, {"type": "$drain", "payload": {"reconnect_in_ms": 8_420, "close_in_ms": 8_000}})
    rig.now += 3
    if code == 1006:
        rig.put(Disconnected(1))
    else:
        closed_with(rig, code)

    assert pytest.approx(rig.of(ClientClosed)[-1].delay_s) == 5.42
    rig.open()
    rig.say({"type": "x"})
    rig.put(Disconnected(2))
    assert rig.of(ClientClosed)[-1].delay_s <= 4


def test_times_told_by_a_server_are_bounded_both_ways() -> None:
    rig = Rig(config=ClientConfig(reconnect_told_max_s=10))
    rig.open(reconnect_ms=1 << 50)
    rig.say({"type": "x"}, {"type": "$drain", "payload": {"reconnect_in_ms": 1 << 50}})
    rig.put(Disconnected(1))
    assert rig.of(ClientClosed)[-1].delay_s == 10

    delays: list[float] = []
    for number in range(100):
        rig = Rig(seed=b"client %d" % number)
        rig.open(reconnect_ms=0)
        rig.say({"type": "x"})
        rig.put(Disconnected(1))
        delays.append(rig.of(ClientClosed)[-1].delay_s)
    assert 0.4 < max(delays) <= 0.5


def test_a_server_that_only_drains_is_not_hurried_to() -> None:
    rig = Rig()
    for _ in range(10):
        rig.open()
        rig.say({"type": "$drain", "payload": {"reconnect_in_ms": 0}})
        closed_with(rig, 4200)
    delays = [closed.delay_s for closed in rig.of(ClientClosed)]

    assert delays[0] == 0
    assert max(delays) > 1


# ---- the heartbeat ------------------------------------------------------------------------------


def test_a_ping_goes_out_every_25_seconds_and_any_byte_answers_it() -> None:
    rig = Rig()
    rig.open()
    for _ in range(4):
        rig.pass_time(26)
        rig.bytes(b"\x81")
        rig.bytes(b"\x02hi")

    assert len(rig.sent("$ping")) == 4
    assert ClientState.OPEN is rig.machine.state


def test_a_connection_without_any_byte_for_20_seconds_after_a_ping_is_dead() -> None:
    rig = Rig()
    rig.open()
    rig.pass_time(44.9)
    assert ClientState.OPEN is rig.machine.state
    rig.pass_time(0.2)

    assert "no byte for 20 s" in rig.of(ClientClosed)[0].reason
    assert CloseTransport(1, True) in rig.told


def test_without_hello_pings_are_websocket_pings() -> None:
    rig = Rig(hello=False)
    rig.open()
    rig.pass_time(25)

    assert [PingReceived(b"")] == rig.received


def test_without_an_interval_there_are_no_pings() -> None:
    rig = Rig(config=ClientConfig(ping_interval_s=0))
    rig.open()

    assert rig.machine.next_deadline() is None


def test_a_pong_tells_a_newer_reconnect_time() -> None:
    delays: list[float] = []
    for number in range(100):
        rig = Rig(seed=b"client %d" % number)
        rig.open(reconnect_ms=1_000)
        rig.say({"type": "$pong", "payload": {"reconnect_ms": 60_000}})
        rig.put(Disconnected(1))
        delays.append(rig.of(ClientClosed)[-1].delay_s)

    assert max(delays) > 40


def test_a_ping_of_the_server_is_answered_either_way() -> None:
    rig = Rig()
    rig.open()
    rig.bytes(encode_frame(PING, b"abc"))
    rig.say({"type": "$ping", "ref": "5"})

    assert PongReceived(b"abc") in rig.received
    assert {"type": "$pong", "ref": "5", "payload": {}} in rig.received
