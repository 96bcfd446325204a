"""The reference log: what every store must do, without a disk, a clock or a wait.

`MemoryMessageStore` wraps it and the simulator uses it as the truth that other stores are compared with.
`LogExecutor` carries out a hub's asks on it at once; `store_asks` and `run_asks` are its two halves, for
whoever runs a store call and delivers its answer at different times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from .codes import BAD_MESSAGE, MID_CONFLICT
from .effects import Effect, FindPosition, ListStore, ReadStore, StoreAppend
from .errors import LocalError
from .inputs import (
    Input,
    PositionKnown,
    RoomAdvanced,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
)
from .message import StoredMessage
from .producers import Producers
from .roomlog import RoomLog
from .sizes import Sizes, size_of, sizes_of

__all__ = [
    "ANY_CONTENT",
    "REDACTED_PAYLOAD",
    "STORE_ASKS",
    "BatchResult",
    "LogExecutor",
    "Page",
    "Position",
    "PureLog",
    "Redacted",
    "StoreAnswer",
    "StoreAsk",
    "id_number",
    "known_answer",
    "message_id",
    "read_answer",
    "run_asks",
    "store_asks",
]

StoreAsk: TypeAlias = StoreAppend | ReadStore | ListStore | FindPosition
"""What a hub asks of a store."""

StoreAnswer: TypeAlias = RoomAdvanced | StoreAppended | StoreFailed | StoreRead | StoreListed | PositionKnown
"""What a store tells a hub."""

STORE_ASKS: frozenset[type] = frozenset((StoreAppend, ReadStore, ListStore, FindPosition))
"""The types of `StoreAsk`, for a quick look at effects."""


REDACTED_PAYLOAD: Final = b'{"$redacted":true}'
"""What stands where a payload was redacted (PROTOCOL §3)."""

ANY_CONTENT: Final = b""
"""The digest of a key whose message was redacted: it tells nothing of the content, and every repeat is a dup."""


class Page(msgspec.Struct, frozen=True, gc=False):
    """Rows of one room read from one snapshot. `floor`: highest trimmed offset, 0 for none; `head`: newest.

    `id_at` is the id of the entry behind which it was read, as in `Position`; `floor_id` and `head_id` those there.
    """

    ep: str
    floor: int
    head: int
    rows: tuple[StoredMessage, ...]
    id_at: str | None = None
    floor_id: str = ""
    head_id: str = ""


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
    floor_id: str = ""


class Redacted(msgspec.Struct, frozen=True, gc=False):
    """An entry whose payload was replaced by `REDACTED_PAYLOAD`: the epoch of its room, its offset, its id."""

    ep: str
    off: int
    id: str


class BatchResult(msgspec.Struct, frozen=True):
    """The outcome of one commit: which rooms advanced, and one answer per append, in order."""

    advanced: tuple[RoomAdvanced, ...]
    answers: tuple[StoreAppended | StoreFailed, ...]


def message_id(number: int) -> str:
    """The 20 digits of a message id."""
    return f"{number:020d}"


def id_number(text: str) -> int:
    """The number in a message id. Leading zeros may be missing.

    Raises: `LocalError` where it is not 1 to 20 ASCII digits.
    """
    if not (isinstance(text, str) and 0 < len(text) <= 20 and text.isascii() and text.isdigit()):  # pyright: ignore[reportUnnecessaryIsInstance] -- ids come from callers that may not be typed
        raise LocalError(f"a message id must be a string of 1 to 20 digits, got {text!r:.80}")
    return int(text)


class PureLog:
    """Rooms' logs in memory: dense offsets per room, one rising id counter, unique keys.

    `epoch` names the log; a room takes it at its first message. `bytes_max` bounds what the entries of all rooms
    take, keys included: over it the oldest of the biggest rooms are trimmed, and `forgot(entries)` is called; no append
    fails. None: no bound but memory.
    """

    def __init__(
        self,
        epoch: str,
        last_id: int = 0,
        bytes_max: int | None = None,
        forgot: Callable[[int], object] | None = None,
    ) -> None:
        self.epoch: str = epoch
        self.bytes_max: int | None = bytes_max
        self._forgot = forgot
        self._sizes = Sizes()
        """Of entries, where there is a bound."""
        self._last_id = last_id
        self._rooms: dict[str, RoomLog] = {}
        self._producers = Producers()

    def append_batch(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """Appends all, in order, as one commit at the time `ts` (RFC 3339).

        A known key (`room`, `scope`, `mid`) with the same digest is answered as a dup, with another one
        `mid_conflict`; a number of an ordered producer that is not its next one fails as `producers.judge` says. None
        of these advances the room. What is over `bytes_max` afterwards is trimmed.
        """
        answers: list[StoreAppended | StoreFailed] = []
        fresh: dict[str, list[StoredMessage]] = {}
        before: dict[str, str] = {}
        for ask in appends:
            room = self._rooms.get(ask.room)
            if room is not None and ask.mid is not None and (known := room.keys.get((ask.scope, ask.mid))) is not None:
                answers.append(self._repeat(room, ask, *known))
                continue
            if ask.mid is not None and ask.mid[0] == "~" and (refused := self._producers.take(ask, ts)):
                answers.append(refused)
                continue
            if room is None:
                room = self._rooms[ask.room] = RoomLog(ask.room, self.epoch)
            if (rows := fresh.get(ask.room)) is None:
                rows = fresh[ask.room] = []
                before[ask.room] = room.rows[-1].id if room.rows else room.floor_id
            self._last_id += 1
            row = StoredMessage(
                message_id(self._last_id),
                ask.kind,
                room.name,
                ask.type,
                ts,
                ask.payload,
                room.ep,
                room.floor + len(room.rows) + 1,
                ask.mid,
                ask.sender,
            )
            room.rows.append(row)
            if ask.mid is not None:
                room.keys[ask.scope, ask.mid] = (row.off, ask.digest)
            rows.append(row)
            answers.append(StoreAppended(ask.request, room.ep, row.off, row.id))
        advanced = tuple(
            RoomAdvanced(name, self._rooms[name].ep, rows[-1].off, tuple(rows), before[name])
            for name, rows in fresh.items()
        )
        if self.bytes_max is not None:
            for name, rows in fresh.items():
                self._sizes.add(name, sizes_of(rows))
            if self._sizes.total > self.bytes_max:
                self._make_room(self.bytes_max)
        return BatchResult(advanced, tuple(answers))

    def _make_room(self, bytes_max: int) -> None:
        """Trims the biggest rooms until a bit more than what is over is gone, so that it is not asked every time."""
        sizes, goal, forgotten = self._sizes, bytes_max - (bytes_max >> 8), 0
        while sizes.total > goal:
            name, size, least = sizes.biggest()
            room, over = self._rooms[name], sizes.total - goal
            count = freed = 0
            while freed < over and size - freed >= least:
                freed += size_of(room.rows[count])
                count += 1
            self._drop(room, count)
            forgotten += count
        if self._forgot is not None:
            self._forgot(forgotten)

    def _drop(self, kept: RoomLog, count: int) -> None:
        """Forgets the oldest entries of a room, and their keys."""
        old = kept.forget(count)
        if self.bytes_max is not None:
            self._sizes.add(kept.name, -sizes_of(old))

    @staticmethod
    def _repeat(room: RoomLog, ask: StoreAppend, off: int, digest: bytes | None) -> StoreAppended | StoreFailed:
        if digest not in (ask.digest, ANY_CONTENT):
            message = f"mid {ask.mid!r:.140} was stored before with another content"
            return StoreFailed(ask.request, MID_CONFLICT, message, False)
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
        return Page(log.ep, log.floor, log.head, tuple(rows), log.id_at(after), log.floor_id, log.head_id)

    def position(self, room: str, off: int | None = None, last: int = 0) -> Position:
        """Where the room stands, and the id at `off`, or `last` entries before the head. Writes nothing."""
        log = self._rooms.get(room)
        if log is None:
            return Position(self.epoch, 0, 0, "")
        if last:
            off = max(log.floor, log.head - last)
        id_at = None if off is None else log.id_at(off)
        return Position(log.ep, log.floor, log.head, log.head_id, id_at, log.floor_id)

    def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        """The newest `limit` messages of the room with an id below `before_id`, oldest first.

        Raises: `LocalError` where `before_id` is not an id.
        """
        before = None if before_id is None else message_id(id_number(before_id))
        log = self._rooms.get(room)
        if log is None or limit <= 0:
            return []
        end = len(log.rows) if before is None else bisect_left(log.rows, before, key=lambda row: row.id)
        return log.rows[max(0, end - limit) : end]

    def replay_from(self, id: str, limit: int | None = None) -> list[StoredMessage]:
        """All messages of all rooms with an id above `id` ("": from the first), in id order; at most `limit`.

        Raises: `LocalError` where `id` is not an id.
        """
        above = message_id(id_number(id)) if id else ""
        found = [row for log in self._rooms.values() for row in log.rows if row.id > above]
        found.sort(key=lambda row: row.id)
        return found[:limit]

    def trim(self, room: str, upto: int) -> int:
        """Forgets the entries up to the offset `upto`, and their keys; returns how many."""
        log = self._rooms.get(room)
        if log is None:
            return 0
        count = max(0, min(upto, log.head) - log.floor)
        if count:
            self._drop(log, count)
        return count

    def redact(self, room: str, off: int) -> Redacted | None:
        """Replaces the payload of the entry at `off` for ever; None where there is no such entry. May be repeated.

        Its key stays known, and any content sent under it again is a dup.
        """
        log = self._rooms.get(room)
        if log is None or not log.floor < off <= log.head:
            return None
        row = log.rows[off - log.floor - 1]
        redacted = msgspec.structs.replace(row, payload_json=REDACTED_PAYLOAD)
        log.rows[off - log.floor - 1] = redacted
        if self.bytes_max is not None:
            self._sizes.add(log.name, size_of(redacted) - size_of(row))
        if row.mid is not None:
            key = next(key for key, (at, _) in log.keys.items() if at == off)
            log.keys[key] = (off, ANY_CONTENT)
        return Redacted(log.ep, off, row.id)

    def rooms(self) -> list[str]:
        """Names of rooms that have, or had, a message, sorted."""
        return sorted(self._rooms)


class LogExecutor:
    """A consumer that carries out a hub's store asks on a pure log at once, and posts the answers.

    All that a step asks is told in one post, in the order of `run_asks`; its appends are one commit.
    `post(*inputs)` hands inputs to the pump; `wall()` returns the time as RFC 3339 UTC text.
    """

    __slots__ = ("log", "post", "wall")

    sees_only = STORE_ASKS

    def __init__(self, log: PureLog, post: Callable[..., None], wall: Callable[[], str]) -> None:
        self.log: PureLog = log
        self.post: Callable[..., None] = post
        self.wall: Callable[[], str] = wall

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Carries out the asks among `effects`."""
        if effects and not STORE_ASKS.isdisjoint(map(type, effects)):
            self.post(*run_asks(self.log, store_asks(effects), self.wall()))


def store_asks(effects: Iterable[Effect]) -> tuple[StoreAsk, ...]:
    """The asks of a store among a step's effects, in order."""
    return tuple(effect for effect in effects if isinstance(effect, StoreAsk))


def run_asks(log: PureLog, asks: Iterable[StoreAsk], ts: str) -> tuple[StoreAnswer, ...]:
    """Runs asks on the log and returns what must be told, in order.

    First the positions, as of before the appends. The appends are one commit at the time `ts`: each room's
    `RoomAdvanced`, then one answer per append in order. Then one answer per read in order.

    Whoever holds asks back keeps the rule of `FindPosition`: a position is run and told before any append
    that was asked after it is run, and after what is told of every commit that was run before it.
    """
    appends: list[StoreAppend] = []
    reads: list[ReadStore | ListStore] = []
    answers: list[StoreAnswer] = []
    for ask in asks:
        if isinstance(ask, StoreAppend):
            appends.append(ask)
        elif isinstance(ask, FindPosition):
            answers.append(known_answer(ask.request, log.position(ask.room, ask.off, ask.last)))
        else:
            reads.append(ask)
    if appends:
        result = log.append_batch(appends, ts)
        answers += result.advanced
        answers += result.answers
    answers += [_run_read(log, ask) for ask in reads]
    return tuple(answers)


def known_answer(request: int, found: Position) -> PositionKnown:
    """A position as the answer to `FindPosition`."""
    return PositionKnown(request, found.ep, found.floor, found.head, found.id, found.id_at, found.floor_id)


def read_answer(request: int, page: Page) -> StoreRead:
    """A page as the answer to `ReadStore`."""
    return StoreRead(request, page.ep, page.floor, page.head, page.rows, page.id_at, page.floor_id, page.head_id)


def _run_read(log: PureLog, ask: ReadStore | ListStore) -> StoreAnswer:
    if isinstance(ask, ReadStore):
        page = log.read(ask.room, ask.after, ask.until, ask.rows_max, ask.bytes_max, ask.newest_first)
        return read_answer(ask.request, page)
    try:
        return StoreListed(ask.request, tuple(log.list_by_room(ask.room, ask.limit, ask.before_id)))
    except LocalError as exc:
        return StoreFailed(ask.request, BAD_MESSAGE, str(exc), False)
