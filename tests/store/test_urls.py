"""Store URLs open what they name or say in one line what was expected."""

from __future__ import annotations

import pytest

from vixws_core.errors import LocalError
from vixws_store import MemoryMessageStore, SqliteMessageStore, open_store


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///chat_messages.db", "chat_messages.db"),
        ("sqlite:///data/chat.db", "data/chat.db"),
        ("sqlite:////var/lib/chat.db", "/var/lib/chat.db"),
        ("sqlite:///a%20b%3F.db", "a b?.db"),
    ],
)
def test_sqlite_url_names_a_file(url: str, path: str) -> None:
    store = open_store(url)

    assert isinstance(store, SqliteMessageStore)
    assert path == store.path


def test_memory_url_gives_a_memory_store() -> None:
    assert isinstance(open_store("memory://"), MemoryMessageStore)


@pytest.mark.parametrize(
    ("url", "bytes_max"),
    [
        ("memory://", 64 << 20),
        ("memory:///", 64 << 20),
        ("memory://?max_bytes=65536", 65_536),
        ("memory:///?max_bytes=1099511627776", 1 << 40),
    ],
)
def test_a_memory_url_may_say_how_much(url: str, bytes_max: int) -> None:
    store = open_store(url)

    assert isinstance(store, MemoryMessageStore)
    assert store.bytes_max == bytes_max


@pytest.mark.parametrize(
    ("url", "log_bytes_max"),
    [
        ("sqlite:///a.db", 1 << 30),
        ("sqlite:///a.db?log_bytes_max=65536", 65_536),
        ("sqlite:////tmp/a%3Fb.db?log_bytes_max=1099511627776", 1 << 40),
    ],
)
def test_a_sqlite_url_may_say_how_large_the_log_may_be(url: str, log_bytes_max: int) -> None:
    store = open_store(url)

    assert isinstance(store, SqliteMessageStore)
    assert store._limits.log_bytes_max == log_bytes_max
    assert "?" not in store.path.replace("a?b", "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:///a.db?",
        "sqlite:///a.db?log_bytes_max=",
        "sqlite:///a.db?log_bytes_max=65535",
        "sqlite:///a.db?log_bytes_max=1099511627777",
        "sqlite:///a.db?log_bytes_max=-1",
        "sqlite:///a.db?log_bytes_max=65536&x=1",
        "sqlite:///?log_bytes_max=65536",
        "sqlite:///a.db?max_bytes=65536",
        "chat.db",
        "sqlite:chat.db",
        "sqlite://chat.db",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///a.db?mode=ro",
        "sqlite:///:memory:",
        "sqlite:///a%00b",
        "memory://x",
        "memory://x?max_bytes=100000",
        "memory://?",
        "memory://?max_bytes",
        "memory://?max_bytes=",
        "memory://?max_bytes=65535",
        "memory://?max_bytes=1099511627777",
        "memory://?max_bytes=-1",
        "memory://?max_bytes=1e9",
        "memory://?max_bytes=٦٥٥٣٦",
        "memory://?max_bytes=100000&x=1",
        "memory://?maxBytes=100000",
        "mysql://h/db",
        "redis://localhost",
    ],
)
def test_bad_url_says_in_one_line_what_was_expected(url: str) -> None:
    with pytest.raises(LocalError) as caught:
        open_store(url)

    assert "\n" not in str(caught.value)
    words = ("expected sqlite:///", "takes no name", "must name a file", "?max_bytes= with")
    assert any(word in str(caught.value) for word in words)


def test_redis_url_is_not_served_and_its_password_not_repeated() -> None:
    with pytest.raises(LocalError, match="this version has no redis store") as caught:
        open_store("redis://user:secret@localhost/0")

    assert "secret" not in str(caught.value)
