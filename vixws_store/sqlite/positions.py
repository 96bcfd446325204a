"""Where rooms stand: many at once, in a few steps. For any connection, whatever it makes of texts."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import TypeAlias, cast

from vixws_core.log import Position, message_id

from .damage import RoomDamaged
from .rooms import RoomState, find_ids, find_rooms

__all__ = ["Asked", "Found", "end_id", "find_position", "find_positions", "text_of"]

Asked: TypeAlias = tuple[str, int | None, int]
"""A room; an offset whose id is asked for, if any; or how many entries before the head that is (0: not so)."""

Found: TypeAlias = dict[Asked, Position | RoomDamaged]


def find_position(db: sqlite3.Connection, epoch: str, place: Asked) -> Position | RoomDamaged:
    """Where one room stands; see `find_positions`. Raises: `sqlite3.Error`."""
    return find_positions(db, epoch, (place,))[place]


def find_positions(db: sqlite3.Connection, epoch: str, asked: Collection[Asked]) -> Found:
    """Where rooms stand, and the ids at offsets. A room without messages has the store's `epoch`.

    Raises: `sqlite3.Error`.
    """
    states = find_rooms(db, dict.fromkeys(place[0] for place in asked))
    offsets = {place: _offset(states.get(place[0]), *place[1:]) for place in asked}
    wanted = [
        (place[0], off)
        for place, off in offsets.items()
        if isinstance(state := states.get(place[0]), RoomState) and off is not None and state.floor < off < state.head
    ]
    ids = find_ids(db, dict.fromkeys(wanted))
    found: Found = {}
    for place, off in offsets.items():
        state = states.get(place[0])
        id = ids.get((place[0], off)) if off is not None else None
        if isinstance(state, RoomDamaged) or isinstance(id, RoomDamaged):
            found[place] = state if isinstance(state, RoomDamaged) else cast(RoomDamaged, id)
        elif state is None:
            found[place] = Position(epoch, 0, 0, "")
        else:
            id_at = None if off is None else text_of(id or end_id(state, off))
            ends = text_of(state.head_id) or "", id_at, text_of(state.floor_id) or ""
            found[place] = Position(state.ep, state.floor, state.head, *ends)
    return found


def _offset(state: RoomState | RoomDamaged | None, off: int | None, last: int) -> int | None:
    """The offset whose id is asked for: `off`, or `last` entries before the head but not below the floor."""
    return max(state.floor, state.head - last) if last and isinstance(state, RoomState) else off


def end_id(state: RoomState, off: int) -> int | None:
    """The id at an end of the log, None elsewhere."""
    return state.head_id if off == state.head else state.floor_id if off == state.floor else None


def text_of(id: int | None) -> str | None:
    """An id as it is told; None for 0."""
    return message_id(id) if id else None
