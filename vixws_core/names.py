"""Names of rooms: what they may be, and which pattern they fit."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from .errors import BadRoom, LocalError

__all__ = ["ACTIONS", "check_name", "check_room", "check_texts", "matches", "user_room"]

ACTIONS: Final = ("join", "read", "publish", "presence")
"""What somebody may be allowed in a room (PROTOCOL §10)."""

USERS: Final = "@user/"
"""What the names of users' own rooms begin with (PROTOCOL §3)."""

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing: the Hangul fillers and the empty Braille pattern."""


@lru_cache(8192)
def check_room(name: str) -> str:
    """Returns the name of a room, or raises.

    1–128 bytes of UTF-8, in NFC, without control or invisible characters, and
    with one at least that can be seen; names below `@` are the protocol's.

    Raises: `BadRoom`, which says what was expected.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadRoom(f"room {name!r:.60} must be valid Unicode") from None
    if not 1 <= size <= 128:
        raise BadRoom(f"room name must have 1 to 128 bytes, got {size}")
    if not name.isascii() and not unicodedata.is_normalized("NFC", name):
        raise BadRoom(f"room {name!r:.60} must be in Unicode normal form C")
    if any(unicodedata.category(char) in _INVISIBLE for char in name):
        raise BadRoom(f"room {name!r:.60} must not have control or invisible characters")
    if not any(_is_visible(char) for char in name):
        raise BadRoom(f"room {name!r:.60} must have a character that can be seen")
    if name[0] == "@":
        raise BadRoom(f"room {name!r:.60} is reserved: names that begin with @ belong to the protocol")
    return name


def _is_visible(char: str) -> bool:
    """Whether a character shows by itself: no space, no mark that needs another character, no filler."""
    return char not in _FILLERS and unicodedata.category(char)[0] not in "ZM"


@lru_cache(8192)
def check_name(room: str) -> str:
    """Returns the name of a room, a user's own (`@user/…`) included. Raises: `BadRoom`."""
    if not room.startswith(USERS):
        return check_room(room)
    if len(room.encode(errors="replace")) > 128:
        raise BadRoom(f"room name must have 1 to 128 bytes, got {len(room.encode(errors='replace'))}")
    check_room(f"_{room[len(USERS) :]}" if room[len(USERS) : len(USERS) + 1] == "@" else room[len(USERS) :])
    return room


def check_texts(*texts: str | None) -> None:
    """Raises: `LocalError` for a text that UTF-8 cannot hold, which would fail only when it is sent or stored."""
    for text in texts:
        if text is not None and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as exc:
                raise LocalError(f"text must be valid Unicode, got {text!r:.60}: {exc.reason}") from None


def user_room(user: str) -> str:
    """The name of the room whose messages are for one user alone."""
    return USERS + user


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern, in which `*` stands for any run of characters, fits a name."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at
