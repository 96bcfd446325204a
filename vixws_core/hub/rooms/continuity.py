"""Whether a log is still the one that was told before: ids are never given twice, and rise within a room."""

from __future__ import annotations

from ...inputs import PositionKnown, RoomAdvanced
from ..model import Room

__all__ = ["differ", "is_forked", "is_other"]


def differ(one: str | None, two: str) -> bool:
    """Whether two ids are known and are not the same."""
    return bool(one and two) and one != two


def is_forked(room: Room, asked_pos: int, input: PositionKnown) -> bool:
    """Whether another entry stands where the room has been since it was asked."""
    return asked_pos == room.pos == input.head and differ(input.id, room.pos_id)


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
