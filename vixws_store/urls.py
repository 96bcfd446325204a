"""Stores named by a URL, as configuration files and the command line do."""

from __future__ import annotations

from urllib.parse import unquote

from vixws_core.errors import LocalError
from vixws_core.protocols import MessageStore

from .memory import MemoryMessageStore
from .sqlite import SqliteMessageStore

__all__ = ["open_store"]

_EXPECTED = "expected sqlite:///relative.db, sqlite:////absolute.db or memory://"


def open_store(url: str) -> MessageStore:
    """Makes the store that `url` names; nothing is opened before its `run`.

    `sqlite:///rel.db` is relative to the current folder, `sqlite:////abs.db` absolute; `%xx` stands for a
    character that a URL cannot hold. `memory://` lives as long as the process.

    Raises: `LocalError`, one line that says what was expected.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
    if scheme == "memory":
        if rest.strip("/"):
            raise LocalError(f"memory:// takes no name, got {url!r:.200}")
        return MemoryMessageStore()
    if scheme == "sqlite":
        path = unquote(rest[1:])
        if not rest.startswith("/") or not path.strip("/") or "?" in rest or "#" in rest:
            raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
        return SqliteMessageStore(path)
    if scheme in ("redis", "rediss", "valkey"):
        raise LocalError(f"this version has no {scheme} store: {_EXPECTED}, got {url.split('@')[-1]!r:.200}")
    raise LocalError(f"unknown kind of store {scheme!r:.40}: {_EXPECTED}")
