"""Stores named by a URL, as configuration files and the command line do."""

from __future__ import annotations

from urllib.parse import unquote

from vixws_core.errors import LocalError
from vixws_core.protocols import MessageStore

from .memory import MemoryMessageStore
from .sqlite import Limits, SqliteMessageStore

__all__ = ["open_store"]

_EXPECTED = "expected sqlite:///relative.db, sqlite:////absolute.db or memory://"
_BYTES_LEAST = 1 << 16
_BYTES_MOST = 1 << 40


def open_store(url: str) -> MessageStore:
    """Makes the store that `url` names; nothing is opened before its `run`.

    `sqlite:///rel.db` is relative to the current folder, `sqlite:////abs.db` absolute; `%xx` stands for a
    character that a URL cannot hold. Its write-ahead log may have 1 GiB, or as many bytes as
    `sqlite:///rel.db?log_bytes_max=N` says; over them, which takes somebody who reads all the time, nothing is stored.
    `memory://` lives as long as the process and holds 64 MiB, or as many bytes as
    `memory://?max_bytes=N` says; over them its oldest messages are forgotten.

    Raises: `LocalError`, one line that says what was expected.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
    if scheme == "memory":
        return _open_memory(url, rest)
    if scheme == "sqlite":
        name, asked, options = rest.partition("?")
        path = unquote(name[1:])
        if not name.startswith("/") or not path.strip("/") or "#" in rest:
            raise LocalError(f"{_EXPECTED}, got {url!r:.200}")
        if not asked:
            return SqliteMessageStore(path)
        log_bytes_max = _bytes_of(options, "log_bytes_max", f"sqlite://{name}", url)
        return SqliteMessageStore(path, limits=Limits(log_bytes_max=log_bytes_max))
    if scheme in ("redis", "rediss", "valkey"):
        raise LocalError(f"this version has no {scheme} store: {_EXPECTED}, got {url.split('@')[-1]!r:.200}")
    raise LocalError(f"unknown kind of store {scheme!r:.40}: {_EXPECTED}")


def _open_memory(url: str, rest: str) -> MemoryMessageStore:
    name, asked, options = rest.partition("?")
    if name.strip("/"):
        raise LocalError(f"memory:// takes no name, got {url!r:.200}")
    if not asked:
        return MemoryMessageStore()
    return MemoryMessageStore(bytes_max=_bytes_of(options, "max_bytes", "memory://", url))


def _bytes_of(options: str, expected: str, before: str, url: str) -> int:
    """The one option that a URL may have, behind the `?`. Raises: `LocalError`."""
    key, _, text = options.partition("=")
    is_number = text.isascii() and text.isdigit() and len(text) <= 13
    if key != expected or not is_number or not _BYTES_LEAST <= int(text) <= _BYTES_MOST:
        range = f"an integer from {_BYTES_LEAST} to {_BYTES_MOST}"
        raise LocalError(f"expected {before}?{expected}= with {range}, got {url!r:.200}")
    return int(text)
