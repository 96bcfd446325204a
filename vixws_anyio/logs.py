"""What the server logs, one event a line, under the name `vixws`.

Never a token, a cookie or a query string: what a handler's exception says of them is hidden, and so is whatever looks
like one in any line.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote

from vixws_core.app.access import BEARER, AuthRequest
from vixws_core.app.session import Session, state_of

__all__ = ["Hidden", "clean", "conceal", "log", "report"]

log: logging.Logger = logging.getLogger("vixws")

HIDDEN: Final = "***"
"""What stands in a line in place of a secret."""

HIDDEN_LEAST: Final = 6
"""Characters of the shortest value that is hidden: a shorter one says nothing, and is part of many words."""

PREFIX: Final = 24
"""Characters by which a long secret is known where a text has only its beginning."""

TRACE_MAX: Final = 400_000
"""Characters of a traceback that are looked through, and kept: its end."""

_PRIVATE_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "sec-websocket-protocol", "x-api-key", "x-auth-token"}
)
_TELLTALES: Final = (
    (re.compile(r"(?i)(\bbearer(?:\s+|\.))[^\s'\",;)\]}]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bcookie['\"]?\s*[:=,]\s*['\"]?)[^'\"\r\n]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<=[\w/])\?[^\s'\"]+"), f"?{HIDDEN}"),
)


class Hidden(Exception):
    """Stands for an exception whose text or traceback has a secret in it: all of it, as text, without that."""


def clean(text: object, limit: int = 200) -> str:
    """A text for one line of a log: what is not printable is escaped, and all of it cut at `limit` characters."""
    raw = str(text)[:limit]
    if raw.isprintable():
        return raw
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in raw)[:limit]


def conceal(text: str) -> str:
    """Hides what looks like a bearer's token, a cookie or the query of a request."""
    for telltale, instead in _TELLTALES:
        text = telltale.sub(instead, text)
    return text


def report(whose: object, exc: Exception, handler: str) -> None:
    """Logs a handler's exception, with its traceback; `whose` is the session or request that it was called for."""
    told: BaseException = exc
    text, trace = _shown(exc), _trace(exc)
    if not trace:
        told = Hidden(text)  # Its traceback cannot be written; nor could whoever writes the log.
    secrets = set(_secrets(whose)) if isinstance(whose, Session | AuthRequest) else set[str]()
    if (pattern := _pattern(secrets, text + trace)) is not None:
        text = pattern.sub(HIDDEN, text)
        told = Hidden(pattern.sub(HIDDEN, trace or text))
    of = "" if whose is None else f" of {clean(whose)}"
    log.error("handler %s%s failed: %s", clean(handler), of, clean(text), exc_info=told)


def _trace(exc: Exception) -> str:
    try:
        return "".join(traceback.format_exception(exc))[-TRACE_MAX:]
    except Exception:  # As in `_shown`.
        return ""


def _shown(exc: Exception) -> str:
    try:
        return repr(exc)
    except Exception:  # It is the application's, and may be anything.
        return f"<{type(exc).__name__} without a repr>"


def _secrets(whose: Session | AuthRequest) -> Iterator[str]:
    """What a request shows that is nobody's business."""
    request = state_of(whose).request if isinstance(whose, Session) else whose
    if request is not None:
        yield request.token
        yield from request.cookies.values()
    _, _, query = whose.target.partition("?")
    yield query
    yield unquote(query)
    for pair in query.split("&"):
        yield pair.partition("=")[2]
    for _, value in parse_qsl(query, keep_blank_values=True):
        yield value
    for name, value in whose.headers:
        if name in _PRIVATE_HEADERS:
            yield from _values(name, value)


def _values(name: str, value: str) -> Iterator[str]:
    """A header's value, and the parts of it that are secret by themselves."""
    if name == "sec-websocket-protocol":
        for offered in value.split(","):
            if offered.strip().startswith(BEARER):
                yield offered.strip().removeprefix(BEARER)
        return
    yield value
    if name == "cookie":
        for pair in value.split(";"):
            yield pair.partition("=")[2].strip().strip('"')
    else:
        yield value.partition(" ")[2].strip()


def _pattern(secrets: set[str], text: str) -> re.Pattern[str] | None:
    """Finds the secrets that are in the text: as they are, as `repr` shows them, and long ones by their beginning."""
    parts: set[str] = set()
    for secret in secrets:
        for form in {secret, repr(secret)[1:-1]}:
            if len(form) >= HIDDEN_LEAST and form[:PREFIX] in text:
                parts.add(re.escape(form))
                if len(form) > PREFIX:
                    parts.add(re.escape(form[:PREFIX]) + r"[^\s'\",;)\]}]*")
    return re.compile("|".join(sorted(parts, key=len, reverse=True))) if parts else None
