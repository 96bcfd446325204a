"""Request heads: what is a good one, what is refused and how, and what an answer may hold."""

from __future__ import annotations

import pytest

from vixws_core import LocalError
from vixws_core.effects import CloseTransport, PeerMisbehaved, Requested
from vixws_core.inputs import Respond
from vixws_core.wire.frames import TEXT, encode_frame
from vixws_core.wire.http import Head, HeadReader, HeadRefused, http_answer, http_switching

from .harness import KEY, MASK, REQUEST, Harness, upgrade_request

HEAD_BYTES_MAX = 8_192


def read(data: bytes, step: int | None = None) -> tuple[Head | HeadRefused | None, bytes]:
    """What a reader makes of the bytes, whole or in steps; the first verdict holds."""
    reader = HeadReader(HEAD_BYTES_MAX, 64)
    if step is None:
        return reader.feed(data)
    for at in range(0, len(data), step):
        found, rest = reader.feed(data[at : at + step])
        if found is not None:
            return found, rest + data[at + step :] if isinstance(found, Head) else b""
    return None, b""


def request(*lines: str, start: str = "GET / HTTP/1.1", host: str | None = "x.example") -> bytes:
    head = [start, *([] if host is None else [f"Host: {host}"]), *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


def handshake(**changed: str | tuple[str, ...] | None) -> bytes:
    """A handshake with fields changed, doubled (a tuple) or left out (None)."""
    fields: dict[str, str | tuple[str, ...] | None] = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_key": KEY,
        "sec_websocket_version": "13",
    }
    start = changed.pop("start", "GET / HTTP/1.1")
    host = changed.pop("host", "x.example")
    assert isinstance(start, str)
    assert not isinstance(host, tuple)
    fields.update(changed)
    lines = []
    for name, value in fields.items():
        if value is not None:
            title = name.replace("_", "-").title()
            lines += [f"{title}: {item}" for item in (value if isinstance(value, tuple) else (value,))]
    return request(*lines, start=start, host=host)


# ---- good heads ---------------------------------------------------------------------------------------

GOOD = {
    "plain": handshake(),
    "lower case": handshake().lower().replace(KEY.lower().encode(), KEY.encode()).replace(b"get / http", b"GET / HTTP"),
    "upgrade among others": handshake(upgrade="h2c, WebSocket"),
    "connection among others": handshake(connection="keep-alive, Upgrade"),
    "two connection fields": handshake(connection=("keep-alive", "upgrade")),
    "two upgrade fields": handshake(upgrade=("h2c", "websocket")),
    "target with a query": handshake(start="GET /ws?token=a%20b&c=/ HTTP/1.1"),
    "subprotocols": handshake(sec_websocket_protocol="chat, superchat"),
    "subprotocols in two fields": handshake(sec_websocket_protocol=("chat", "superchat")),
    "empty subprotocols": handshake(sec_websocket_protocol=""),
    "unknown extension": handshake(sec_websocket_extensions="x-what; a=1"),
    "deflate with a wrong parameter": handshake(
        sec_websocket_extensions="permessage-deflate; client_max_window_bits=abc"
    ),
    "deflate twice the same parameter": handshake(
        sec_websocket_extensions="permessage-deflate; server_no_context_takeover; server_no_context_takeover"
    ),
    "deflate with +12": handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits=+12"),
    "deflate with 1_2": handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits=1_2"),
    "extension beyond ASCII": handshake(sec_websocket_extensions="\xe9"),
    "host with a port": handshake(host="x.example:8080"),
    "host is an address": handshake(host="[::1]:80"),
    "header beyond ASCII": handshake(x_name="\xe9\xff"),
    "escape in a value": handshake(x_name="b\x1bc"),  # RFC 9110 §5.5 lets it pass; logs escape it.
    "sixty-four headers": request(
        *(f"X-{number}: 1" for number in range(59)),
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_good_handshake_is_an_upgrade_whole_and_byte_by_byte(data: bytes) -> None:
    whole = read(data)
    head, rest = whole

    assert isinstance(head, Head)
    assert (head.upgrade, head.key, rest) == (True, KEY, b"")
    assert read(data, 1) == whole


def test_offered_subprotocols_are_told_in_order() -> None:
    head, _ = read(handshake(sec_websocket_protocol=("b, a", "c")))

    assert isinstance(head, Head)
    assert head.subprotocols == ("b", "a", "c")


@pytest.mark.threat(10)
def test_extensions_are_never_agreed_on() -> None:
    peer = Harness().connect(request=GOOD["deflate with a wrong parameter"])
    peer.frames()

    assert b"extensions" not in peer.head.lower()
    assert peer.head.startswith(b"HTTP/1.1 101 ")


def test_request_without_upgrade_is_told_with_its_headers() -> None:
    head, _ = read(request("Accept: text/html", "X-A: \xe9", start="HEAD /a?b HTTP/1.1"))

    assert head == Head("HEAD", "/a?b", (("host", "x.example"), ("accept", "text/html"), ("x-a", "é")), False)


@pytest.mark.parametrize("upgrade", ["h2c", "", "TLS/1.0, h2c", "h2c, \xe9"])
def test_a_request_that_offers_no_websocket_is_a_plain_one(upgrade: str) -> None:
    """Java's client and curl offer h2c with every request; an offer may be ignored (RFC 9110 §7.8)."""
    head, rest = read(handshake(upgrade=upgrade, start="GET /healthz HTTP/1.1"))

    assert isinstance(head, Head)
    assert (head.method, head.target, head.upgrade, rest) == ("GET", "/healthz", False, b"")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "PATCH"])
def test_any_method_will_do_without_an_upgrade(method: str) -> None:
    head, _ = read(request(start=f"{method} / HTTP/1.1"))

    assert isinstance(head, Head)
    assert (head.method, head.upgrade) == (method, False)


# ---- odd heads ----------------------------------------------------------------------------------------

ODD: dict[str, tuple[bytes, int]] = {
    "HTTP/1.0": (handshake(start="GET / HTTP/1.0"), 400),
    "HTTP/1.0 page": (request(start="GET / HTTP/1.0"), 400),
    "HTTP/2.0": (handshake(start="GET / HTTP/2.0"), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "no request line": (b"\r\n\r\n", 400),
    "garbage": (b"\x00\x01\x02\r\n\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a response": (b"HTTP/1.1 200 OK\r\nHost: x\r\n\r\n", 400),
    "two spaces": (request(start="GET  / HTTP/1.1"), 400),
    "tab in the request line": (request(start="GET\t/ HTTP/1.1"), 400),
    "space in the target": (request(start="GET /a b HTTP/1.1"), 400),
    "absolute target": (handshake(start="GET http://x.example/ HTTP/1.1"), 400),
    "asterisk target": (handshake(start="OPTIONS * HTTP/1.1"), 400),
    "authority target": (request(start="CONNECT x.example:80 HTTP/1.1"), 400),
    "relative target": (handshake(start="GET ws HTTP/1.1"), 400),
    "target beyond ASCII": (handshake(start="GET /\xe9 HTTP/1.1"), 400),
    "POST": (handshake(start="POST / HTTP/1.1"), 400),
    "lower-case method": (handshake(start="get / HTTP/1.1"), 400),
    "HEAD": (handshake(start="HEAD / HTTP/1.1"), 400),
    "no host": (handshake(host=None), 400),
    "empty host": (handshake(host=""), 400),
    "host with a space": (handshake(host="a b"), 400),
    "host with a path": (handshake(host="a/b"), 400),
    "host with a user": (handshake(host="a@b"), 400),
    "host beyond ASCII": (handshake(host="\xe9.example"), 400),
    "host with a long port": (handshake(host="a:123456"), 400),
    "two hosts": (request("Host: a", "Host: b", host=None), 400),
    "upgrade with a version": (handshake(upgrade="websocket/13"), 400),
    "upgrade beyond ASCII": (handshake(upgrade="websocket, \xe9"), 400),
    "no connection": (handshake(connection=None), 400),
    "connection close": (handshake(connection="close"), 400),
    "connection keep-alive": (handshake(connection="keep-alive"), 400),
    "connection beyond ASCII": (handshake(connection="Upgrade, \xe9"), 400),
    "no version": (handshake(sec_websocket_version=None), 426),
    "version 8": (handshake(sec_websocket_version="8"), 426),
    "version +13": (handshake(sec_websocket_version="+13"), 426),
    "version 1_3": (handshake(sec_websocket_version="1_3"), 426),
    "version 013": (handshake(sec_websocket_version="013"), 426),
    "two versions": (handshake(sec_websocket_version=("13", "13")), 426),
    "versions in a list": (handshake(sec_websocket_version="13, 8"), 426),
    "no key": (handshake(sec_websocket_key=None), 400),
    "empty key": (handshake(sec_websocket_key=""), 400),
    "short key": (handshake(sec_websocket_key="AAAA"), 400),
    "long key": (handshake(sec_websocket_key="A" * 43 + "="), 400),
    "key of 17 bytes": (handshake(sec_websocket_key="A" * 23 + "="), 400),
    "key that is no base64": (handshake(sec_websocket_key="!" * 22 + "=="), 400),
    "key with bad padding": (handshake(sec_websocket_key="A" * 24), 400),
    "key beyond ASCII": (handshake(sec_websocket_key="\xe9" * 22 + "=="), 400),
    "two keys": (handshake(sec_websocket_key=(KEY, KEY)), 400),
    "same subprotocol twice": (handshake(sec_websocket_protocol="a, a"), 400),
    "subprotocol with a space": (handshake(sec_websocket_protocol="a b"), 400),
    "subprotocol with a quote": (handshake(sec_websocket_protocol='"a"'), 400),
    "subprotocol beyond ASCII": (handshake(sec_websocket_protocol="\xe9"), 400),
    "body with a length": (handshake(content_length="5"), 400),
    "body of no length": (handshake(content_length="0"), 400),
    "chunked body": (handshake(transfer_encoding="chunked"), 400),
    "length and chunks": (handshake(content_length="5", transfer_encoding="chunked"), 400),
    "two lengths": (request("Content-Length: 5", "Content-Length: 6"), 400),
    "length that is no number": (request("Content-Length: +5"), 400),
    "folded line": (request("X-A: b\r\n c"), 400),
    "folded by a tab": (request("X-A: b\r\n\tc"), 400),
    "bare LF": (handshake().replace(b"\r\n", b"\n", 1), 400),
    "only bare LF": (handshake().replace(b"\r\n", b"\n") + b"\r\n\r\n", 400),
    "bare CR": (request("X-A: b\rc"), 400),
    "NUL in a value": (request("X-A: b\0c"), 400),
    "space before the colon": (request("X-A : b"), 400),
    "no colon": (request("X-A"), 400),
    "empty name": (request(": b"), 400),
    "name beyond ASCII": (request("X-\xe9: b"), 400),
    "name with a slash": (request("X/A: b"), 400),
    "first line begins with a space": (request(start=" GET / HTTP/1.1"), 400),
    "sixty-five headers": (request(*(f"X-{number}: 1" for number in range(64))), 431),
    "head of 8,193 bytes": (request("X-A: " + "a" * (8_193 - len(request("X-A: ")))), 431),
    "head of 65,000 bytes": (request("X-A: " + "a" * 65_000), 431),
    "endless head": (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 65_000, 431),
    "bare LF far behind the limit": (request("X-A: " + "a" * 9_000 + "\nX-B: b"), 431),
    "bare LF in a head over the limit": (request("X-B: b\nX-A: " + "a" * 9_000), 400),
}


@pytest.mark.threat(10)
def test_rows_8_to_10_table_has_at_least_48_odd_heads() -> None:
    assert len(ODD) >= 48


@pytest.mark.parametrize(("data", "status"), ODD.values(), ids=ODD.keys())
@pytest.mark.threat(10)
def test_row_10_odd_head_is_refused_whole_and_byte_by_byte(data: bytes, status: int) -> None:
    whole, rest = read(data)

    assert isinstance(whole, HeadRefused)
    assert (whole.status, rest) == (status, b"")
    for step in (1, 7, 1_024):
        assert read(data, step) == (whole, b"")


@pytest.mark.parametrize(("data", "status"), ODD.values(), ids=ODD.keys())
@pytest.mark.threat(10)
def test_row_10_refusal_is_answered_told_and_final(data: bytes, status: int) -> None:
    harness = Harness()
    peer = harness.connect(request=data)

    assert peer.out.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in peer.out
    assert [wrong.kind for wrong in harness.effects(PeerMisbehaved)] == ["bad_handshake"]
    assert harness.effects(Requested) == []
    assert harness.effects(CloseTransport) == [CloseTransport(peer.conn)]
    assert harness.hub.connections == 0


def test_version_refusal_names_the_version_that_would_do() -> None:
    peer = Harness().connect(request=handshake(sec_websocket_version="8"))

    assert b"\r\nsec-websocket-version: 13\r\n" in peer.out


def test_every_refusal_says_why_in_one_line() -> None:
    for data, _ in ODD.values():
        found, _ = read(data)
        assert isinstance(found, HeadRefused)

        assert found.reason
        assert found.reason.isascii()
        assert "\n" not in found.reason
        assert len(found.reason) < 300


# ---- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 1_024, 1])
@pytest.mark.parametrize(("size", "good"), [(8_191, True), (8_192, True), (8_193, False), (65_000, False)])
@pytest.mark.threat(9)
def test_row_9_head_has_the_same_verdict_in_any_pieces(size: int, good: bool, step: int | None) -> None:
    data = handshake(x_pad="a")
    data = data.replace(b"X-Pad: a", b"X-Pad: " + b"a" * (size - len(data) + 1))
    assert len(data) == size
    found, _ = read(data, step)

    assert isinstance(found, Head if good else HeadRefused)
    if isinstance(found, HeadRefused):
        assert found.status == 431


def test_head_that_is_not_complete_is_waited_for() -> None:
    for end in range(1, len(REQUEST)):
        assert read(REQUEST[:end]) == (None, b"")


# ---- bytes left over -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 1, 3, 50])
def test_bytes_behind_the_head_are_left_over(step: int | None) -> None:
    extra = encode_frame(TEXT, b"\r\n\r\n\n" + b"x" * 9_000, MASK)
    found, rest = read(REQUEST + extra, step)

    assert isinstance(found, Head)
    assert rest == extra


@pytest.mark.parametrize("cut", range(len(REQUEST) - 6, len(REQUEST) + 12))
def test_frames_in_the_same_read_as_the_request_reach_the_application(cut: int) -> None:
    harness = Harness(typed=False)
    data = REQUEST + encode_frame(TEXT, b"hello", MASK)
    peer = harness.connect(request=data[:cut])
    peer.raw(data[cut:])

    assert harness.received == ["hello"]


# ---- answers ---------------------------------------------------------------------------------------------


def test_switching_answers_the_key_of_the_standard() -> None:
    # RFC 6455 §1.3 gives this key and its answer.
    assert http_switching(KEY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert http_switching(KEY, "chat").endswith(b"=\r\nSec-WebSocket-Protocol: chat\r\n\r\n")


def test_answer_has_its_length_and_ends_the_connection() -> None:
    answer = http_answer(200, (("content-type", "text/plain"), ("x-name", "é")), b"hello")

    assert answer == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-name: \xe9\r\n"
        b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
    )


def test_answer_to_head_has_the_length_and_no_body() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect(request=request(start="HEAD / HTTP/1.1"))
    harness.put(Respond(peer.conn, 200, (), b"hello"))

    assert peer.out == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("name", ["Content-Length", "connection", "TRANSFER-ENCODING"])
def test_framing_of_an_answer_is_ours_alone(name: str) -> None:
    assert http_answer(204, ((name, "evil"),)) == http_answer(204)


def test_unusual_status_has_a_word_too() -> None:
    assert http_answer(418).startswith(b"HTTP/1.1 418 Status\r\n")


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, -1, 1_000])
def test_status_that_is_no_final_one_is_the_callers_fault(status: int) -> None:
    with pytest.raises(LocalError, match="from 200 to 599"):
        http_answer(status)


INJECTIONS = [
    ("X-A", "b\r\nX-B: c"),
    ("X-A", "b\nc"),
    ("X-A", "b\rc"),
    ("X-A", "b\0c"),
    ("X-A", "b\x1b[31m"),
    ("X-A", "b\x7f"),
    ("X-A", "b\r\n\r\n<html>"),
    ("X-A\r\nX-B", "c"),
    ("X-A: b\r\nX-B", "c"),
    ("X A", "b"),
    ("X-A:", "b"),
    ("", "b"),
    ("X-é", "b"),
    ("X-A", "\u20ac"),
]


@pytest.mark.parametrize(("name", "value"), INJECTIONS, ids=repr)
@pytest.mark.threat(19)
def test_row_19_header_injection_is_the_callers_fault_and_nothing_is_sent(name: str, value: str) -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    with pytest.raises(LocalError, match="header must be"):
        harness.put(Respond(peer.conn, 200, ((name, value),), b""))

    assert peer.out == b""
    harness.put(Respond(peer.conn, 200))
    assert peer.out.startswith(b"HTTP/1.1 200 OK\r\n")


def test_reject_is_answered_once() -> None:
    harness = Harness()
    harness.accepting = False
    harness.ending = False
    peer = harness.connect()
    harness.put(Respond(peer.conn, 403, (), b"no"), Respond(peer.conn, 200), Respond(99, 200))

    assert peer.out.count(b"HTTP/1.1") == 1
    peer.raw(b"more")
    assert peer.out.count(b"HTTP/1.1") == 1


def test_requested_tells_what_was_asked() -> None:
    harness = Harness()
    harness.accepting = False
    harness.connect(request=upgrade_request("Sec-WebSocket-Protocol: chat", "Origin: http://a", target="/ws?a=b"))
    (asked,) = harness.effects(Requested)

    assert (asked.method, asked.target, asked.upgrade, asked.subprotocols) == ("GET", "/ws?a=b", True, ("chat",))
    assert ("origin", "http://a") in asked.headers
