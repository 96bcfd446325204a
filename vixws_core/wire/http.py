"""The HTTP heads around a WebSocket: reading a request strictly, writing an answer.

h11 reads the head; what it lets by and a WebSocket server should not (RFC 6455 §4.2.1, RFC 9112) is refused
here. Bytes after the head stay with the caller: frames may arrive in the same read as the request.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final

import h11
import msgspec
from wsproto.utilities import generate_accept_token, split_comma_header

from ..errors import LocalError

__all__ = ["Head", "HeadReader", "HeadRefused", "Offer", "extension_offers", "http_answer", "http_switching"]

Offer = tuple[str, tuple[tuple[str, str | None], ...]]
"""An extension that a client offers: its name, and its parameters in order with their values."""

_REASONS: Final = {
    200: b"OK",
    301: b"Moved Permanently",
    302: b"Found",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_COMMON: Final = {
    text.encode(): text
    for text in (
        *("accept", "accept-encoding", "accept-language", "authorization", "cache-control", "connection", "cookie"),
        *("host", "origin", "pragma", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol"),
        *("sec-websocket-version", "upgrade", "user-agent", "x-forwarded-for"),
        *("13", "Upgrade", "keep-alive, Upgrade", "no-cache", "permessage-deflate; client_max_window_bits"),
        *("gzip, deflate", "gzip, deflate, br", "gzip, deflate, br, zstd", "vixws.v1", "websocket"),
    )
}
"""What most requests say: sessions keep their headers, and these are the same objects for all."""
_FRAMING: Final = frozenset(("content-length", "connection", "transfer-encoding", "upgrade"))
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\xff\t]*")
_BAD_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r\n[ \t]|\r(?!\n|$)")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OFFER: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*+')
_PARAMETER: Final = re.compile(
    rf'[ \t]*({_TOKEN.pattern})(?:[ \t]*=[ \t]*(?:({_TOKEN.pattern})|"((?:[^"\\]|\\.)*)"))?[ \t]*(;|\Z)'
)
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")


class Head(msgspec.Struct, frozen=True, gc=False):
    """A request head that keeps the rules. Header names are lower case, values latin-1.

    `upgrade`: the request asks for a WebSocket, with all that RFC 6455 §4.2.1 demands; `key` is then set.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    upgrade: bool
    key: str = ""
    subprotocols: tuple[str, ...] = ()


class HeadRefused(msgspec.Struct, frozen=True, gc=False):
    """A request head that breaks a rule: the status to answer, and why."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


class HeadReader:
    """Gathers one request head from bytes cut anywhere.

    Limits: `head_bytes_max` bytes, counted before anything is parsed, and `headers_max` fields; over either
    the answer is 431 (RFC 6585 §5).
    """

    __slots__ = ("_buffer", "_head_bytes_max", "_headers_max", "_looked_at")

    def __init__(self, head_bytes_max: int, headers_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._headers_max = headers_max
        self._buffer = bytearray()
        self._looked_at = 0
        """Bytes that were looked at already: each is looked at once, however a peer cuts them."""

    def feed(self, data: bytes) -> tuple[Head | HeadRefused | None, bytes]:
        """Takes bytes; returns what they amount to (None: more is needed) and the bytes behind the head."""
        buffer = self._buffer
        buffer += data
        begin = max(0, self._looked_at - 3)  # An end of the head, or a bad end of a line, may have begun before.
        end = buffer.find(b"\r\n\r\n", begin)
        size = len(buffer) if end < 0 else end + 4
        # RFC 9112 §2.2 and §5.2: a bare LF or CR and folded lines are refused, not repaired. Only bytes within the
        # limit are looked at, so that the verdict does not depend on how they were cut.
        if _BAD_LINE_END.search(buffer, begin, min(size, self._head_bytes_max)):
            return HeadRefused(400, "lines must end in CR LF and must not be folded"), b""
        if size > self._head_bytes_max:
            return HeadRefused(431, f"the request head is over {self._head_bytes_max} bytes"), b""
        if end < 0:
            self._looked_at = size
            return None, b""
        head, rest = bytes(buffer[:size]), bytes(buffer[size:])
        buffer.clear()
        return self._parse(head), rest

    def _parse(self, data: bytes) -> Head | HeadRefused:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head_bytes_max + 1)
        connection.receive_data(data)
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            return HeadRefused(exc.error_status_hint, f"not a good HTTP request: {exc}")
        if not isinstance(event, h11.Request) or event.http_version != b"1.1":
            return HeadRefused(400, "an HTTP/1.1 request is expected")
        if len(event.headers) > self._headers_max:
            return HeadRefused(431, f"more than {self._headers_max} header fields")
        target = event.target.decode("latin-1")
        if not target.startswith("/") or not target.isascii():
            return HeadRefused(400, "the request target must be a path")
        headers = tuple((_text(name), _text(value)) for name, value in event.headers)
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            return HeadRefused(400, "one good Host header is expected")
        method = event.method.decode("latin-1")
        if _offers_websocket(headers):
            return _upgrade(method, target, headers)
        return Head(method, target, headers, upgrade=False)


def _text(data: bytes) -> str:
    return _COMMON.get(data) or data.decode("latin-1")


def _offers_websocket(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether a request offers an upgrade to WebSocket; any other offer, as of h2c, may be ignored (RFC 9110 §7.8)."""
    return any(
        item.strip().lower().partition("/")[0] == "websocket"
        for name, value in headers
        if name == "upgrade"
        for item in value.split(",")
    )


def _upgrade(method: str, target: str, headers: tuple[tuple[str, str], ...]) -> Head | HeadRefused:
    """Checks the opening handshake (RFC 6455 §4.2.1)."""
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value)
    if method != "GET":
        return HeadRefused(400, "a WebSocket handshake must be a GET")
    if "content-length" in fields or "transfer-encoding" in fields:
        return HeadRefused(400, "a WebSocket handshake must not have a body")
    try:
        upgrades = split_comma_header(", ".join(fields["upgrade"]).encode("ascii"))
        tokens = split_comma_header(", ".join(fields.get("connection", [])).encode("ascii"))
        listed = split_comma_header(", ".join(fields.get("sec-websocket-protocol", [])).encode("ascii"))
    except UnicodeError:
        return HeadRefused(400, "Upgrade, Connection and Sec-WebSocket-Protocol must be ASCII")
    if "websocket" not in (item.lower() for item in upgrades):
        return HeadRefused(400, "Upgrade must name websocket")
    if "upgrade" not in (item.lower() for item in tokens):
        return HeadRefused(400, "Connection must name Upgrade")
    versions = fields.get("sec-websocket-version", [])
    if versions != ["13"]:
        # RFC 6455 §4.4: the answer names the versions that would do.
        return HeadRefused(426, "Sec-WebSocket-Version must be 13", (("sec-websocket-version", "13"),))
    keys = fields.get("sec-websocket-key", [])
    if len(keys) != 1 or not _good_key(keys[0]):
        return HeadRefused(400, "one Sec-WebSocket-Key of 16 bytes in base64 is expected")
    offered = [item for item in listed if item]
    if not all(_TOKEN.fullmatch(item) for item in offered) or len(set(offered)) != len(offered):
        return HeadRefused(400, "Sec-WebSocket-Protocol must list different tokens")
    return Head(method, target, headers, True, keys[0], tuple(offered))


def _good_key(key: str) -> bool:
    try:
        return len(key) == 24 and len(b64decode(key.encode("ascii"), validate=True)) == 16
    except (Base64Error, ValueError):
        return False


def extension_offers(headers: tuple[tuple[str, str], ...]) -> list[Offer]:
    """The extensions that a request offers, by the grammar of RFC 6455 §9.1, in order of preference.

    An offer that breaks the grammar is left out, and behind a quote that does not end there is no other: a client
    that offers nonsense goes without an extension, and is no worse for it.
    """
    value = ",".join(value for name, value in headers if name == "sec-websocket-extensions")
    offers: list[Offer] = []
    at = 0
    while at <= len(value):
        match = _OFFER.match(value, at)
        assert match is not None  # It matches nothing, too.
        at = match.end()
        if value[at : at + 1] == '"':
            break
        offer = _offer(match[0])
        if offer is not None:
            offers.append(offer)
        at += 1
    return offers


def _offer(text: str) -> Offer | None:
    name, more, rest = text.partition(";")
    name = name.strip(" \t")
    if not _TOKEN.fullmatch(name):
        return None
    parameters: list[tuple[str, str | None]] = []
    at = 0
    while more:
        match = _PARAMETER.match(rest, at)
        if match is None:
            return None
        key, value, quoted, more = match.groups()
        if quoted is not None:
            value = re.sub(r"\\(.)", r"\1", quoted)
            if not _TOKEN.fullmatch(value):  # RFC 6455 §9.1: what stands in quotes must be a token without them.
                return None
        parameters.append((key, value))
        at = match.end()
    return name, tuple(parameters)


def http_switching(
    key: str,
    subprotocol: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    extension: str | None = None,
) -> bytes:
    """The 101 answer to a handshake with `key` (RFC 6455 §4.2.2). Raises: `LocalError` for a bad header."""
    token = generate_accept_token(key.encode())
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii") + b"\r\n"
    if extension is not None:
        chosen += b"Sec-WebSocket-Extensions: " + extension.encode("ascii") + b"\r\n"
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: "
        + token
        + b"\r\n"
        + chosen
        + b"".join(line + b"\r\n" for line in _fields(headers) if line[:14].lower() != b"sec-websocket-")
        + b"\r\n"
    )


def _fields(headers: tuple[tuple[str, str], ...]) -> list[bytes]:
    """Header fields of an answer, without those that frame it. Raises: `LocalError`."""
    lines: list[bytes] = []
    for name, value in headers:
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise LocalError(f"header must be a token and printable latin-1 text, got {name!r:.60}: {value!r:.60}")
        if name.lower() not in _FRAMING:
            lines.append(f"{name}: {value}".encode("latin-1"))
    return lines


def http_answer(
    status: int, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"", *, head_only: bool = False
) -> bytes:
    """A whole answer that ends the connection. `head_only`: the answer to HEAD, without its body.

    Raises: `LocalError` for a status outside 200–599, a bad field name, or a value with control characters.
    """
    if not 200 <= status <= 599:
        raise LocalError(f"status must be from 200 to 599, got {status}")
    lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"Status"))]
    lines += _fields(headers)
    lines.append(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
    return b"\r\n".join(lines) + (b"" if head_only else body)
