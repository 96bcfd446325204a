"""Names of rooms: what they may be, and which pattern they fit."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from .errors import BadRoom

__all__ = ["check_name", "check_room", "matches"]

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


def check_name(room: str) -> str:
    """Returns the name of a room, a user's own (`@user/…`) included. Raises: `BadRoom`."""
    return room if room[:1] == "@" and check_room(room[1:]) else check_room(room)


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
