"""What the server logs, one event a line, under the name `vixws`."""

from __future__ import annotations

import logging

__all__ = ["clean", "log", "report"]

log: logging.Logger = logging.getLogger("vixws")


def clean(text: object, limit: int = 200) -> str:
    """A text for one line of a log: what is not printable is escaped, and all of it cut at `limit` characters."""
    raw = str(text)[:limit]
    if raw.isprintable():
        return raw
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in raw)[:limit]


def report(session: object, exc: Exception, handler: str) -> None:
    """Logs a handler's exception, with its traceback."""
    whose = "" if session is None else f" of {clean(session)}"
    log.error("handler %s%s failed: %s", clean(handler), whose, clean(repr(exc)), exc_info=exc)
