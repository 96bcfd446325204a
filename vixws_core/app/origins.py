"""From which pages browsers may connect: the `Origin` of an upgrade (RFC 6454, RFC 6455 §10.2)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from ..errors import LocalError

__all__ = ["ANY_ORIGIN", "Origins", "parse_origin"]

ANY_ORIGIN: Final = "*"
_LOOPBACK: Final = re.compile(r"127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_PORTS: Final = {"http": 80, "https": 443}


class Origins:
    """Allows the server's own pages, and those of a list: `scheme://host` or `scheme://host:port`, compared whole.

    `*` in the list allows every page; then cookies prove nothing, and are not shown. Programs that are no browser send
    no `Origin`, and are let in, without their cookies. `loopback_only`: own pages are those of this machine's own names
    alone, for a server that lets everybody do everything: a site may have its name point at 127.0.0.1.
    Raises: `LocalError` for an item that is no origin.
    """

    __slots__ = ("_any", "_listed", "_loopback_only")

    def __init__(self, listed: tuple[str, ...] = (), *, loopback_only: bool = False) -> None:
        self._loopback_only = loopback_only
        self._any = ANY_ORIGIN in listed
        self._listed: frozenset[tuple[str, str, int]] = frozenset(
            self._must(text) for text in listed if text != ANY_ORIGIN
        )

    @staticmethod
    def _must(text: str) -> tuple[str, str, int]:
        found = parse_origin(text)
        if found is None:
            raise LocalError(
                f"an allowed origin must be like https://example.com:8080, without a path, got {text!r:.80}"
            )
        return found

    def judge(self, headers: tuple[tuple[str, str], ...]) -> bool | None:
        """None: it is refused. True: it comes from a page that we know, so cookies count; False: they do not."""
        origins = [value for name, value in headers if name == "origin"]
        if not origins:
            return False
        if len(origins) > 1:
            return None
        origin = parse_origin(origins[0])
        if origin is not None and origin in self._listed:
            return True
        if origin is not None and _is_own(origin, headers) and (not self._loopback_only or _is_local(origin[1])):
            return True
        return False if self._any else None


def parse_origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a serialised origin, lower case; None where it is none (`null`, a path, a user)."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _PORTS or not host or "@" in parts.netloc or parts.path or "?" in text or "#" in text:
        return None
    if parts.netloc.endswith(":") or "*" in host:
        return None
    return scheme, host, _PORTS[scheme] if port is None else port


def _is_local(host: str) -> bool:
    """Whether a name is this machine's, whoever looks it up (RFC 6761 §6.3)."""
    return host == "::1" or host == "localhost" or host.endswith(".localhost") or _LOOPBACK.fullmatch(host) is not None


def _is_own(origin: tuple[str, str, int], headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether a page came from the very host and port that it connects to now.

    The scheme is the page's: whether we are reached by TLS is known to a proxy in front of us alone.
    """
    scheme, host, port = origin
    for name, value in headers:
        if name == "host":
            own = parse_origin(f"{scheme}://{value}")
            return own is not None and own[1:] == (host, port)
    return False
