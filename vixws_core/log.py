"""The reference log: what every store must do, without a disk, a clock or a wait.

`MemoryMessageStore` wraps it and the simulator uses it as the truth that other stores are compared with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from .effects import StoreAppend
from .inputs import RoomAdvanced, StoreAppended, StoreFailed
from .message import StoredMessage

__all__ = ["BatchResult", "Page", "Position", "PureLog", "message_id"]


class Page(msgspec.Struct, frozen=True, gc=False):
    """Rows of one room read from one snapshot. `floor`: highest trimmed offset, 0 for none; `head`: newest."""

    ep: str
    floor: int
    head: int
    rows: tuple[StoredMessage, ...]


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a room's log stands. `id` is the head entry's id ("" when empty).

    `id_at` is the id of the entry at the offset asked for, or None where it does not exist; the id at the
    floor is kept when its entry is trimmed.
    """

    ep: str
    floor: int
    head: int
    id: str
    id_at: str | None = None


class BatchResult(msgspec.Struct, frozen=True):
    """The outcome of one commit: which rooms advanced, and one answer per append, in order."""

    advanced: tuple[RoomAdvanced, ...]
    answers: tuple[StoreAppended | StoreFailed, ...]


def message_id(number: int) -> str:
    """The 20 digits of a message id."""
    return f"{number:020d}"


class _Room:
    __slots__ = ("ep", "floor", "floor_id", "keys", "rows")

    def __init__(self, ep: str) -> None:
        self.ep = ep
        self.floor = 0
        self.floor_id = ""
        self.rows: list[StoredMessage] = []
        self.keys: dict[tuple[str, str], tuple[int, bytes | None]] = {}

    @property
    def head(self) -> int:
        return self.floor + len(self.rows)


class PureLog:
    """Rooms' logs in memory: dense offsets per room, one rising id counter, unique keys.

    `epoch` names the log; a room takes it at its first message. Limits: none but memory, so callers that
    keep it for long `trim`.
    """

    def __init__(self, epoch: str, last_id: int = 0) -> None:
        self.epoch = epoch
        self._last_id = last_id
        self._rooms: dict[str, _Room] = {}

    def append_batch(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """Appends all, in order, as one commit at the time `ts` (RFC 3339).

        A known key (`room`, `scope`, `mid`) with the same digest is answered as a dup, with another one
        `mid_conflict`; neither advances the room.
        """
        answers: list[StoreAppended | StoreFailed] = []
        fresh: dict[str, list[StoredMessage]] = {}
        for ask in appends:
            room = self._rooms.get(ask.room)
            if room is None:
                room = self._rooms[ask.room] = _Room(self.epoch)
            if ask.mid is not None and (known := room.keys.get((ask.scope, ask.mid))) is not None:
                answers.append(self._repeat(room, ask, *known))
                continue
            self._last_id += 1
            row = StoredMessage(
                message_id(self._last_id),
                ask.kind,
                ask.room,
                ask.type,
                ts,
                ask.payload,
                room.ep,
                room.head + 1,
                ask.mid,
                ask.sender,
            )
            room.rows.append(row)
            if ask.mid is not None:
                room.keys[ask.scope, ask.mid] = (row.off, ask.digest)
            fresh.setdefault(ask.room, []).append(row)
            answers.append(StoreAppended(ask.request, room.ep, row.off, row.id))
        advanced = tuple(
            RoomAdvanced(name, self._rooms[name].ep, rows[-1].off, tuple(rows)) for name, rows in fresh.items()
        )
        return BatchResult(advanced, tuple(answers))

    @staticmethod
    def _repeat(room: _Room, ask: StoreAppend, off: int, digest: bytes | None) -> StoreAppended | StoreFailed:
        if digest != ask.digest:
            message = f"mid {ask.mid!r:.140} was stored before with another content"
            return StoreFailed(ask.request, "mid_conflict", message, False)
        return StoreAppended(ask.request, room.ep, off, room.rows[off - room.floor - 1].id, True)

    def read(
        self,
        room: str,
        after: int,
        until: int,
        rows_max: int = 500,
        bytes_max: int = 1 << 20,
        newest_first: bool = False,
    ) -> Page:
        """Rows with `after` < off ≤ `until`; see `ReadStore`. At least one row where one exists."""
        log = self._rooms.get(room)
        if log is None:
            return Page(self.epoch, 0, 0, ())
        low = max(after, log.floor) - log.floor
        high = min(until, log.head) - log.floor
        found = log.rows[low : max(low, high)]
        if newest_first:
            found.reverse()
        rows: list[StoredMessage] = []
        size = 0
        for row in found[:rows_max]:
            size += len(row.payload_json)
            if rows and size > bytes_max:
                break
            rows.append(row)
        return Page(log.ep, log.floor, log.head, tuple(rows))

    def position(self, room: str, off: int | None = None) -> Position:
        """Where the room stands, and the id at `off`. Writes nothing."""
        log = self._rooms.get(room)
        if log is None:
            return Position(self.epoch, 0, 0, "")
        id_at = None
        if off is not None:
            if off == log.floor and log.floor:
                id_at = log.floor_id
            elif log.floor < off <= log.head:
                id_at = log.rows[off - log.floor - 1].id
        return Position(log.ep, log.floor, log.head, log.rows[-1].id if log.rows else log.floor_id, id_at)

    def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        """The newest `limit` messages of the room with an id below `before_id`, oldest first."""
        log = self._rooms.get(room)
        if log is None or limit <= 0:
            return []
        end = len(log.rows) if before_id is None else bisect_left(log.rows, before_id, key=lambda row: row.id)
        return log.rows[max(0, end - limit) : end]

    def replay_from(self, id: str, limit: int | None = None) -> list[StoredMessage]:
        """All messages of all rooms with an id above `id`, in id order; at most `limit`."""
        found = [row for log in self._rooms.values() for row in log.rows if row.id > id]
        found.sort(key=lambda row: row.id)
        return found[:limit]

    def trim(self, room: str, upto: int) -> int:
        """Forgets the entries up to the offset `upto`, and their keys; returns how many."""
        log = self._rooms.get(room)
        if log is None:
            return 0
        count = max(0, min(upto, log.head) - log.floor)
        if count:
            log.floor_id = log.rows[count - 1].id
            log.floor += count
            del log.rows[:count]
            log.keys = {key: value for key, value in log.keys.items() if value[0] > log.floor}
        return count

    def rooms(self) -> list[str]:
        """Names of rooms that have, or had, a message, sorted."""
        return sorted(self._rooms)
