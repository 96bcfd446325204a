"""What the server logs, one event a line, under the name `vixws`."""

from __future__ import annotations

import logging

__all__ = ["clean", "log", "report"]

log: logging.Logger = logging.getLogger("vixws")


def clean(text: object, limit: int = 200) -> str:
    """A text for one line of a log: control characters escaped, cut at `limit` characters."""
    raw = str(text)[:limit]
    return raw if raw.isprintable() else raw.encode("unicode_escape").decode("ascii")[: limit * 2]


def report(session: object, exc: Exception, handler: str) -> None:
    """Logs a handler's exception, with its traceback."""
    whose = "" if session is None else f" of {clean(session)}"
    log.error("handler %s%s failed: %s", clean(handler), whose, clean(repr(exc)), exc_info=exc)
