"""The client's half of the opening handshake: the URL, the request, the server's answer.

h11 writes the request and reads the answer; the accept token is wsproto's. wsproto's own client handshake is
not used: it draws random bytes, keeps a refusal's body without limit, and takes 100 Continue for a refusal.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

import h11
import msgspec
from wsproto.utilities import generate_accept_token

from ..errors import LocalError

__all__ = ["AnswerReader", "Refusal", "Switched", "Target", "parse_url", "upgrade_request"]

_INTERIM_MAX: Final = 8
"""Interim answers (100 Continue and the like) that may come before the final one."""
_OWN_FIELDS: Final = frozenset(
    (
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    )
)
_SAFE: Final = "/%:@!$&'()*+,;=~-._"


class Target(msgspec.Struct, frozen=True, gc=False):
    """Where a URL leads: `resource` is the path with its query, `authority` the value of Host."""

    host: str
    port: int
    secure: bool
    resource: str
    authority: str


class Switched(msgspec.Struct, frozen=True, gc=False):
    """The server switched protocols; `rest` are the bytes behind its answer, frames already."""

    subprotocol: str | None
    rest: bytes


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The server did not: `status` is that of its answer, 0 where it was no good answer."""

    status: int
    reason: str


def parse_url(url: str) -> Target:
    """Reads a `ws:` or `wss:` URL (RFC 6455 §3).

    Raises: `LocalError` that says what was expected.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise LocalError(f"url must be a good ws: or wss: URL, got {url!r:.200}: {exc}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise LocalError(f"url must begin with ws://host or wss://host, got {url!r:.200}")
    # RFC 6455 §3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used".
    if parts.fragment or "@" in parts.netloc:
        raise LocalError(f"url must have neither a fragment nor a user name, got {url!r:.200}")
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise LocalError(f"url must have a host name that IDNA can encode, got {url!r:.200}: {exc}") from None
    secure = parts.scheme == "wss"
    usual = 443 if secure else 80
    resource = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        resource += "?" + quote(parts.query, safe=_SAFE + "?")
    authority = f"[{host}]" if ":" in host else host
    if port is None:
        port = usual
    elif port != usual:
        authority += f":{port}"
    return Target(host, port, secure, resource, authority)


def upgrade_request(
    target: Target, key: bytes, headers: Sequence[tuple[str, str]] = (), subprotocols: Sequence[str] = ()
) -> bytes:
    """The request of an opening handshake (RFC 6455 §4.1); `key` is 16 fresh bytes.

    Raises: `LocalError` for headers that are not HTTP or that the handshake sets itself.
    """
    fields = [("Host", target.authority), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    fields.append(("Sec-WebSocket-Key", b64encode(key).decode()))
    fields.append(("Sec-WebSocket-Version", "13"))
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    for name, value in headers:
        if name.lower() in _OWN_FIELDS:
            raise LocalError(f"header {name!r:.60} is the handshake's own, expected another")
        if name.lower() == "host":
            fields[0] = (name, value)
        else:
            fields.append((name, value))
    connection = h11.Connection(h11.CLIENT)
    try:
        request = h11.Request(method="GET", target=target.resource, headers=_latin(fields))
        return connection.send(request) or b""
    except (h11.LocalProtocolError, UnicodeError) as exc:
        raise LocalError(f"the upgrade request must be good HTTP: {exc}") from None


class AnswerReader:
    """Reads the server's answer to an upgrade request from bytes cut anywhere.

    Limits: `head_bytes_max` for all heads together, counted before anything is parsed; of a refusal's body
    `body_bytes_max` bytes are read.
    """

    __slots__ = (
        "_body",
        "_body_max",
        "_buffer",
        "_connection",
        "_head_left",
        "_interim",
        "_key",
        "_offered",
        "_status",
    )

    def __init__(self, key: bytes, offered: Sequence[str], head_bytes_max: int, body_bytes_max: int) -> None:
        self._key = b64encode(key)
        self._offered = tuple(offered)
        self._body_max = body_bytes_max
        self._buffer = b""
        self._body = b""
        self._status = 0
        self._head_left = head_bytes_max
        self._interim = 0
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=head_bytes_max + body_bytes_max)
        # h11 reads a 101 as a switch only where one was asked for.
        fields = _latin((("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")))
        self._connection.send(h11.Request(method="GET", target="/", headers=fields))
        self._connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> Switched | Refusal | None:
        """Takes bytes; returns how it ended, or None where more is needed."""
        try:
            return self._read_body(data) if self._status else self._read_heads(data)
        except h11.RemoteProtocolError as exc:
            return self._refused() if self._status else Refusal(0, f"the answer to the upgrade is no good HTTP: {exc}")

    def end(self) -> Refusal:
        """Takes note that no more bytes come."""
        if self._status:
            return self._refused()
        return Refusal(0, "the connection ended before the answer to the upgrade")

    def _read_heads(self, data: bytes) -> Switched | Refusal | None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            size = len(self._buffer) if end < 0 else end + 4
            if size > self._head_left:
                return Refusal(0, "the answer to the upgrade has a head that is too large")
            if end < 0:
                return None
            head, self._buffer = self._buffer[:size], self._buffer[size:]
            self._head_left -= size
            self._connection.receive_data(head)
            event = self._connection.next_event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return self._check(event)
                # RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses received prior to a
                # final response, even if the client does not expect one."
                self._interim += 1
                if self._interim > _INTERIM_MAX:
                    return Refusal(0, f"more than {_INTERIM_MAX} interim answers to the upgrade")
                continue
            assert isinstance(event, h11.Response), "a whole head is an answer, or h11 raises"
            self._status = event.status_code
            rest, self._buffer = self._buffer, b""
            return self._read_body(rest)

    def _read_body(self, data: bytes) -> Refusal | None:
        if data:
            self._connection.receive_data(data)
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Data):
                self._body += bytes(event.data)
                if len(self._body) >= self._body_max:
                    return self._refused()
            elif event is h11.NEED_DATA:
                return None
            else:
                return self._refused()

    def _refused(self) -> Refusal:
        words = " ".join(self._body[:800].decode("utf-8", "replace").split())
        return Refusal(self._status, f"the server answered the upgrade with {self._status}: {words:.200}")

    def _check(self, event: h11.InformationalResponse) -> Switched | Refusal:
        """Checks the 101 (RFC 6455 §4.1, "the client MUST validate the server's response")."""
        fields: dict[str, list[str]] = {}
        for name, value in event.headers:
            fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        if [item.lower() for item in _items(fields, "upgrade")] != ["websocket"]:
            return Refusal(101, "the answer must have Upgrade: websocket")
        if "upgrade" not in (item.lower() for item in _items(fields, "connection")):
            return Refusal(101, "the answer must have Connection: Upgrade")
        expected = generate_accept_token(self._key).decode()
        if fields.get("sec-websocket-accept") != [expected]:
            return Refusal(101, "the answer has a wrong Sec-WebSocket-Accept")
        if _items(fields, "sec-websocket-extensions"):
            return Refusal(101, "the answer has an extension that was not offered")
        chosen = fields.get("sec-websocket-protocol", [])
        if len(chosen) > 1 or any(name not in self._offered for name in chosen):
            return Refusal(101, "the answer has a subprotocol that was not offered")
        return Switched(chosen[0] if chosen else None, self._buffer)


def _latin(fields: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]


def _items(fields: dict[str, list[str]], name: str) -> list[str]:
    return [item for piece in ",".join(fields.get(name, [])).split(",") if (item := piece.strip())]
