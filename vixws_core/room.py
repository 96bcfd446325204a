"""What the hub knows of one room and of one connection's place in it, and the rules on names and positions."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from .errors import BadRoom
from .inputs import Join, PositionKnown
from .state import Conn
from .tail import Tail

__all__ = ["Member", "Room", "check_room", "matches", "start_of"]

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


@lru_cache(8192)
def check_room(name: str) -> str:
    """Returns the name of a room, or raises.

    1–128 bytes of UTF-8, in NFC, without control or invisible characters; names below `@` are the protocol's.

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
    if name[0] == "@":
        raise BadRoom(f"room {name!r:.60} is reserved: names that begin with @ belong to the protocol")
    return name


class Member:
    """One connection's place in one room."""

    __slots__ = ("asking", "conn", "cursor", "from_floor", "last", "live", "live_at", "ref", "room", "since", "wire")

    def __init__(self, conn: Conn, room: Room, ask: Join, ref: str | None, wire: bool) -> None:
        self.conn = conn
        self.room = room
        self.cursor = 0
        """The last offset sent; meaningless while `live`, when it is the room's position."""
        self.live = False
        self.asking = True
        """Its position is being asked for."""
        self.live_at: int | None = None
        """The announced head, until `$live` was told."""
        self.since = ask.since
        self.last = ask.last
        self.from_floor = ask.from_floor
        self.ref = ref
        self.wire = wire
        """Whether the client hears `$joined`, `$live`, `$gap` and `$reset`."""


class Room:
    """What the hub knows of one room that has members."""

    __slots__ = ("asking", "ep", "floor", "known", "live", "live_ids", "members", "name", "pos", "stored", "tail")

    def __init__(self, name: str, stored: bool) -> None:
        self.name = name
        self.stored = stored
        self.known = not stored
        """Whether `ep` and `pos` are known."""
        self.ep = ""
        self.pos = 0
        """The offset up to which live members have everything."""
        self.floor = -1
        """The highest trimmed offset; -1 until the log itself was asked."""
        self.members: dict[int, Member] = {}
        self.live: list[Member] | None = None
        self.live_ids: tuple[int, ...] = ()
        self.asking = 0
        self.tail = Tail()


def start_of(member: Member, input: PositionKnown, head: int) -> tuple[int, str | None]:
    """Where a cursor starts, and why it did not recover (PROTOCOL §3's table)."""
    since = member.since
    if since is None:
        return max(input.floor, head - member.last) if member.last else head, "fresh"
    if since.ep != input.ep:
        return head, "epoch"
    if since.off < input.floor:
        return (input.floor if member.from_floor else head), "trimmed"
    if since.off > head:
        return head, "ahead"
    if since.id is not None and since.off and since.off <= input.head and input.id_at != since.id:
        return head, "fork"
    return since.off, None


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
