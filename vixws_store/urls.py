"""Stores named by a URL, as configuration files and the command line do."""

from __future__ import annotations

from urllib.parse import unquote

from vixws_core.errors import LocalError
from vixws_core.protocols import MessageStore

from .memory import MemoryMessageStore
from .sqlite import SqliteMessageStore

__all__ = ["open_store"]

_EXPECTED = "expected sqlite:///relative.db, sqlite:////absolute.db or memory://"
_MEMORY_LEAST = 1 << 16
_MEMORY_MOST = 1 << 40


def open_store(url: str) -> MessageStore:
    """Makes the store that `url` names; nothing is opened before its `run`.

    `sqlite:///rel.db` is relative to the current folder, `sqlite:////abs.db` absolute; `%xx` stands for a
    character that a URL cannot hold. `memory://` lives as long as the process and holds 64 MiB, or as many bytes as
    `memory://?max_bytes=N` says; over them its oldest messages are forgotten.

    Raises: `LocalError`, one line that says what was expected.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
    if scheme == "memory":
        return _open_memory(url, rest)
    if scheme == "sqlite":
        path = unquote(rest[1:])
        if not rest.startswith("/") or not path.strip("/") or "?" in rest or "#" in rest:
            raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
        return SqliteMessageStore(path)
    if scheme in ("redis", "rediss", "valkey"):
        raise LocalError(f"this version has no {scheme} store: {_EXPECTED}, got {url.split('@')[-1]!r:.200}")
    raise LocalError(f"unknown kind of store {scheme!r:.40}: {_EXPECTED}")


def _open_memory(url: str, rest: str) -> MemoryMessageStore:
    name, asked, options = rest.partition("?")
    if name.strip("/"):
        raise LocalError(f"memory:// takes no name, got {url!r:.200}")
    if not asked:
        return MemoryMessageStore()
    key, _, text = options.partition("=")
    is_number = text.isascii() and text.isdigit() and len(text) <= 13
    if key != "max_bytes" or not is_number or not _MEMORY_LEAST <= int(text) <= _MEMORY_MOST:
        most = f"an integer from {_MEMORY_LEAST} to {_MEMORY_MOST}"
        raise LocalError(f"expected memory://?max_bytes= with {most}, got {url!r:.200}")
    return MemoryMessageStore(bytes_max=int(text))
