"""What the hub knows of one room and of one connection's place in it."""

from __future__ import annotations

from .inputs import Join, PositionKnown
from .state import Conn
from .tail import Tail

__all__ = ["Member", "Room", "start_of"]


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
