"""Whether a log is still the one that was told before: ids are never given twice, and rise within a room."""

from __future__ import annotations

from ...inputs import PositionKnown, RoomAdvanced
from ..asks import CursorAsked
from ..model import Room

__all__ = ["differ", "is_confirmed", "is_other"]


def differ(one: str | None, two: str) -> bool:
    """Whether two ids are known and are not the same."""
    return bool(one and two) and one != two


def is_confirmed(room: Room, asked: CursorAsked, input: PositionKnown) -> bool | None:
    """Whether the log's own word on where it stands fits what was told of it, at least up to when it was asked.

    None: it may be an older log's, for the room heard of a change since.
    """
    if room.changes != asked.changes or (room.ep != input.ep and room.ep != asked.ep):
        return None
    if room.ep != asked.ep or room.ep != input.ep:
        return room.ep == input.ep
    forked = asked.pos == room.pos == input.head and differ(input.id, room.pos_id)
    return input.head >= asked.pos and not forked


def is_other(room: Room, input: RoomAdvanced, start: int) -> bool:
    """Whether a log that grew behind `start` is not the one whose entries up to the room's position were told.

    What was told before may be told again. Where entries are missing, whoever reads them compares.
    """
    pos, known, entries = room.pos, room.pos_id, input.entries
    if start >= pos:
        return start == pos and differ(input.prev_id, known)
    last = entries[min(pos - start, len(entries)) - 1] if entries else None
    off, id = (start, input.prev_id) if last is None else (last.off, last.id)
    if off == pos:
        return differ(id, known)
    tail = room.tail
    told = next(tail.after(off - 1))[1] if tail.covers(off - 1) else ""
    return differ(id, told) or bool(id and known and id > known)
