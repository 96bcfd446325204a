"""The store of a world: the pure log, with running a call and delivering its answer as separate steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy

from msgspec.structs import replace

from ..codes import STORE_UNAVAILABLE
from ..effects import Effect, FindPosition, ListStore, ReadStore, StoreAppend
from ..inputs import Input, RoomAdvanced, StoreAppended, StoreFailed
from ..log import PureLog, StoreAnswer, run_asks, store_asks
from ..message import StoredMessage
from ..mids import numbered
from .faults import Faults
from .oracle import check
from .streams import Chance

__all__ = ["SimStore", "Truth"]


class Truth:
    """What the log of a world holds and ever held, for the oracles: trimmed entries stay here.

    `told` is the head up to which the present server was told of each room.
    """

    def __init__(self, log: PureLog) -> None:
        self.log: PureLog = log
        self.rows: dict[str, list[StoredMessage]] = {}
        self.told: dict[str, int] = {}
        self.offered: dict[tuple[str, str, str], set[tuple[str, str, bytes]]] = {}
        """Per scope, room and key: the contents (kind, type, payload) that clients asked to publish under it."""
        self.sent: dict[tuple[str, str, str], set[tuple[str, str, bytes]]] = {}
        """Per client, room and key: the contents that came from that client itself."""
        self.went_back: set[str] = set()
        """Rooms whose log went back while a server ran on it."""
        self.stale: set[str] = set()
        """Those of them of which it has not been told anything since: it cannot know."""
        self.times_back: int = 0
        """How often that happened."""
        self.numbers: dict[tuple[str, str], tuple[int, int]] = {}
        """Epoch and last number of each ordered producer, by room and name."""

    def row(self, room: str, off: int) -> StoredMessage | None:
        """The entry committed at `off`, trimmed or not."""
        rows = self.rows.get(room, [])
        return rows[off - 1] if 0 < off <= len(rows) else None

    def head(self, room: str) -> int:
        """The newest offset committed."""
        return len(self.rows.get(room, []))

    def floor(self, room: str) -> int:
        """The highest offset trimmed."""
        return self.log.position(room).floor

    def epoch(self, room: str) -> str:
        """The epoch of the room's log."""
        return self.log.position(room).ep

    def committed(self, advanced: Sequence[RoomAdvanced]) -> None:
        """Takes note of a commit."""
        for told in advanced:
            rows = self.rows.setdefault(told.room, [])
            for row in told.entries:
                check(row.off == len(rows) + 1, f"{row!r:.200} was committed, expected offset {len(rows) + 1}")
                rows.append(row)
                self._count(row)

    def _count(self, row: StoredMessage) -> None:
        """An ordered producer's messages are stored in its order, each behind all before it (PROTOCOL §4)."""
        asked = numbered(row.mid or "")
        if asked is not None:
            epoch, last = self.numbers.get((row.room, asked.producer), (asked.epoch, 0))
            follows = asked.seq == last + 1 if asked.epoch == epoch else asked.epoch > epoch and asked.seq == 1
            check(follows, f"{row!r:.200} was committed, where its producer stood at {last} of epoch {epoch}")
            self.numbers[row.room, asked.producer] = asked.epoch, asked.seq

    def shown(self, told: RoomAdvanced) -> None:
        """Takes note that the server was told of a room: it knows of a log that went back if this is of the new one."""
        row = self.row(told.room, told.head)
        id = told.entries[-1].id if told.entries else told.prev_id
        if told.ep == self.epoch(told.room) and (row is None or row.id == id):
            self.stale.discard(told.room)

    def restored(self) -> None:
        """Takes note that the log is an older one."""
        for room, rows in self.rows.items():
            position = self.log.position(room)
            del rows[position.head :]
            if rows and rows[-1].ep != position.ep:
                rows[:] = [replace(row, ep=position.ep) for row in rows]
        self.numbers.clear()
        for rows in self.rows.values():
            for row in rows:
                self._count(row)


class _Log(PureLog):
    """A log whose counter of ids can be raised, as a store does when it opens a restored backup."""

    def raise_ids(self, last_id: int) -> None:
        self._last_id = max(self._last_id, last_id)

    def begin_epoch(self, epoch: str) -> None:
        """The same entries in a log of another epoch."""
        self.epoch = epoch
        for room in self._rooms.values():
            room.ep = epoch
            room.rows[:] = [replace(row, ep=epoch) for row in room.rows]


class SimStore:
    """A consumer that queues a hub's asks; `step` runs some and delivers some.

    Commits run and are told in order, each in one post. Answers of reads come in any order, before or after
    commits that ran later or earlier.
    """

    def __init__(self, epoch: str, chance: Chance, faults: Faults, wall: Callable[[], str]) -> None:
        self.log: _Log = _Log(epoch)
        self.truth: Truth = Truth(self.log)
        self.calm: bool = False
        self.post: Callable[..., None] | None = None
        """Hands inputs to the present server; None while there is none."""
        self._chance = chance
        self._faults = faults
        self._wall = wall
        self._backup = deepcopy(self.log)
        self._appends: deque[StoreAppend] = deque()
        self._reads: list[ReadStore | ListStore | FindPosition] = []
        self._commits: deque[tuple[StoreAnswer, ...]] = deque()
        self._answers: list[StoreAnswer] = []
        self._down = 0
        """Steps for which every call fails."""
        self._untold: dict[str, RoomAdvanced] = {}
        """Commits that were reported failed: the last `RoomAdvanced` of each room that is kept back."""
        self._epochs = 1
        self._last_id = 0
        """The highest id of the logs that were replaced by a backup: none is given again."""
        self._asked: set[str] = set()
        """Rooms that the present server has asked about."""
        self.kept: Callable[[int, str, int, str], None] = _nobody
        """Hears what was stored anew: the number it was asked under, room, offset and id."""

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Queues what a step asks."""
        if isinstance(input, RoomAdvanced):
            self.truth.told[input.room] = input.head
            self.truth.shown(input)
        for ask in store_asks(effects):
            if isinstance(ask, StoreAppend):
                self._appends.append(ask)
            else:
                self._reads.append(ask)
                self._asked.add(ask.room)

    # ---- a step ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """Runs and delivers what chance picks (all there is, when calm); whether anything happened."""
        stream = self._chance.of("store")
        moved = False
        self._down -= self._down > 0
        if not self.calm and self._chance.fault("store_down", self._faults.store_down):
            self._down = self._chance.of("outages").randint(1, 60)
        for part in (self._commit, self._read, self._tell_commit, self._tell_read):
            if self.calm or stream.random() < self._faults.store_pace:
                moved = part() or moved
        return moved

    def _fails(self) -> bool:
        """Whether a call fails, and nothing is done."""
        return not self.calm and (self._chance.fault("store_fail", self._faults.store_fail) or self._down > 0)

    def _commit(self) -> bool:
        if not self._appends:
            return False
        count = len(self._appends) if self.calm else self._chance.of("commit").randint(1, len(self._appends))
        batch = [self._appends.popleft() for _ in range(count)]
        if self._fails():
            self._commits.append(_failed(batch))
            return True
        answers = self._run(batch)
        advanced = _advanced(answers)
        self.truth.committed(advanced)
        if not self.calm and self._chance.fault("store_lie", self._faults.store_lie):
            self._untold.update((told.room, told) for told in advanced)
            answers = _failed(batch)
        else:
            answers = (*self._catch_up(advanced), *answers[len(advanced) :])
        self._commits.append(answers)
        return True

    def _run(self, batch: Sequence[StoreAppend | ReadStore | ListStore | FindPosition]) -> tuple[StoreAnswer, ...]:
        answers = run_asks(self.log, batch, self._wall())
        asked = {ask.request: ask for ask in batch}
        for told in answers:
            if isinstance(told, StoreAppended) and not told.dup:
                self.kept(told.request, asked[told.request].room, told.off, told.id)
        return answers

    def _catch_up(self, advanced: tuple[RoomAdvanced, ...]) -> tuple[RoomAdvanced, ...]:
        """What a commit tells of its rooms, and of what was kept back of them.

        That is told before it, or together with it, or left as a gap for the server to read.
        """
        stream = self._chance.of("untold")
        told: list[RoomAdvanced] = []
        for new in advanced:
            late = self._untold.pop(new.room, None)
            choice = stream.randrange(3)
            if late is not None and choice == 0:
                told.append(late)
            elif late is not None and choice == 1 and late.head + 1 == new.entries[0].off:
                new = RoomAdvanced(new.room, new.ep, new.head, late.entries + new.entries, late.prev_id)
            told.append(new)
        return tuple(told)

    def _read(self) -> bool:
        if not self._reads:
            return False
        ask = self._reads.pop(0 if self.calm else self._chance.of("read").randrange(len(self._reads)))
        if self._fails():
            self._answers.append(StoreFailed(ask.request, STORE_UNAVAILABLE, "simulated"))
        else:
            self._answers += self._run([ask])
        return True

    def _tell_commit(self) -> bool:
        if not self._commits or self.post is None:
            return False
        self.post(*self._commits.popleft())
        return True

    def _tell_read(self) -> bool:
        if not self._answers or self.post is None:
            return False
        at = 0 if self.calm else self._chance.of("answer").randrange(len(self._answers))
        self.post(self._answers.pop(at))
        return True

    def tell_all(self) -> None:
        """Tells of the commits that were kept back, by their head alone."""
        for room in sorted(self._untold):
            told = self._untold.pop(room)
            self._commits.append((RoomAdvanced(room, told.ep, told.head, (), told.entries[-1].id),))

    # ---- what others do to it -------------------------------------------------------------------

    def append(self, room: str, type: str, payload: bytes) -> None:
        """Appends without the server's asking; the server hears of the room's advance like of any other."""
        advanced = _advanced(self._run([StoreAppend(0, room, "event", type, payload)]))
        self.truth.committed(advanced)
        self._commits.append(self._catch_up(advanced))

    def trim(self, room: str, upto: int) -> None:
        """Trims one room's log."""
        self.log.trim(room, upto)

    def back_up(self) -> None:
        """Keeps a copy of the log as it is now."""
        self._backup = deepcopy(self.log)

    def go_back(self, new_epoch: bool) -> bool:
        """The log becomes the last backup under the running server, or another log that holds the same.

        False, and nothing, while it has work.
        """
        if not self.is_idle:
            return False
        truth = self.truth
        before = dict.fromkeys(sorted(self._asked), 0)  # A room that is empty has an epoch too.
        before.update((room, len(rows)) for room, rows in truth.rows.items())
        self._restore(new_epoch)
        changed = {room for room, head in before.items() if new_epoch or truth.head(room) < head}
        truth.went_back |= changed
        truth.stale |= changed
        truth.times_back += 1
        truth.told.update({room: truth.head(room) for room in changed})
        return True

    def silent_rooms(self) -> list[str]:
        """Rooms whose log is another one, of which nothing is to be told that would show it."""
        told = {one.room for answers in self._commits for one in answers if isinstance(one, RoomAdvanced)}
        return sorted(self.truth.stale - told)

    def _restore(self, new_epoch: bool = False) -> None:
        for rows in self.truth.rows.values():
            self._last_id = max(self._last_id, *(int(row.id) for row in rows), 0)
        self.log = deepcopy(self._backup)
        self.log.raise_ids(self._last_id)
        if new_epoch:
            self._epochs += 1
            self.log.begin_epoch(f"e{self._epochs}")
        self.truth.log = self.log
        self.truth.restored()

    def server_ended(self, restore: bool, new_epoch: bool = False) -> None:
        """The server that asked is gone: part of its appends is still done, and nobody is told.

        With `restore` the log becomes the last backup, of another epoch with `new_epoch`; what was committed since
        then is lost.
        """
        self.post = None
        batch = list(self._appends)[: self._chance.of("crash").randint(0, len(self._appends))]
        self.truth.committed(_advanced(self._run(batch)))
        self._appends.clear()
        self._reads.clear()
        self._commits.clear()
        self._answers.clear()
        self._untold.clear()
        self.truth.told.clear()
        for rooms in (self.truth.went_back, self.truth.stale, self._asked):
            rooms.clear()
        if restore:
            self._restore(new_epoch)

    @property
    def is_idle(self) -> bool:
        """Whether every ask is answered and every answer told."""
        return not (self._appends or self._reads or self._commits or self._answers or self._untold)


def _nobody(request: int, room: str, off: int, id: str) -> None:
    """Hears of what is stored where nobody else does."""


def _advanced(answers: Sequence[StoreAnswer]) -> tuple[RoomAdvanced, ...]:
    return tuple(told for told in answers if isinstance(told, RoomAdvanced))


def _failed(batch: Sequence[StoreAppend]) -> tuple[StoreAnswer, ...]:
    return tuple(StoreFailed(ask.request, STORE_UNAVAILABLE, "simulated") for ask in batch)
