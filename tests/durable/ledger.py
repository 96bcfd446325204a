"""The reference: what was sent, what was told to anybody, and what a log must hold because of it.

It knows nothing of how a store works. Whatever is told passes through `told`, whatever is read back through `judge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from zlib import crc32

from vixws_core.log import Page

__all__ = ["Entry", "Held", "Ledger", "Place", "held_of", "payload_of"]

Key = tuple[str, str]
"""Room and mid: every message has one."""

SIZES: Final = (20, 60, 150, 400, 900, 5_000)
"""Bytes of texts; the last one needs pages of its own."""


class Place(NamedTuple):
    """Where somebody was told that a message is."""

    ep: str
    off: int
    id: int


class Entry(NamedTuple):
    """One row that was read back."""

    off: int
    id: int
    ep: str
    mid: str | None
    payload: bytes


@dataclass
class Held:
    """One room as it was read back."""

    ep: str
    floor: int
    head: int
    rows: tuple[Entry, ...]


@dataclass
class Ledger:
    """What was sent and told, over all lives of one log. `wrong` has, in words, whatever cannot be.

    `least` is the highest id that was told before the life that runs: what is stored anew has a higher one.
    """

    sent: set[Key] = field(default_factory=set)
    places: dict[Key, Place] = field(default_factory=dict)
    acked: set[Key] = field(default_factory=set)
    trimmed: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    least: int = 0
    newest: int = 0
    _owners: dict[int, Key] = field(default_factory=dict)
    _ids: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def begin(self) -> None:
        """Another life begins: after a kill, a power cut, a start."""
        self.least = self.newest

    def send(self, room: str, mid: str) -> None:
        """A message is given away to be stored; nobody has said yet that it is."""
        self.sent.add((room, mid))

    def told(self, room: str, mid: str | None, place: Place, fresh: bool = False) -> None:
        """Somebody was told that this message has that place: by an answer, by a delivery, by a page.

        `fresh`: it was stored in this life.
        """
        key = (room, mid or "")
        if key not in self.sent:
            self.wrong.append(f"{key} was never sent, and is told at {place}")
        if self._owners.setdefault(place.id, key) != key:
            self.wrong.append(f"the id {place.id} was of {self._owners[place.id]}, and now is of {key}")
        if self._ids.setdefault((room, place.ep, place.off), place.id) != place.id:
            self.wrong.append(f"{room} {place.ep} {place.off} was of the id {self._ids[room, place.ep, place.off]}")
        before = self.places.get(key)
        if before is not None and before != place and self._is_kept(room, before, place.ep):
            self.wrong.append(f"{key} was told at {before}, and now at {place}")
        if fresh and place.id <= self.least and (before is None or before.id != place.id):
            self.wrong.append(f"{key} was given the id {place.id}, not above {self.least}")
        self.places[key] = place
        self.newest = max(self.newest, place.id)

    def ack(self, room: str, mid: str, place: Place, dup: bool) -> None:
        """A publish was answered: it is stored."""
        self.told(room, mid, place, fresh=not dup)
        self.acked.add((room, mid))

    def trim(self, room: str, upto: int) -> None:
        """What stands up to an offset may be gone from now on."""
        self.trimmed[room] = max(upto, self.trimmed.get(room, 0))

    def judge(self, held: Mapping[str, Held], may_lose: bool = False) -> list[str]:
        """Takes in what was read back of all rooms; returns whatever is wrong by now.

        With `may_lose` a room whose epoch is another one may lack anything that was told; otherwise nothing may be
        missing, and no room may have another epoch.
        """
        owners: dict[int, Key] = {}
        for room, one in held.items():
            self._judge_rows(room, one, owners)
            for (of, mid), place in self.places.items():
                if of != room or place.off <= one.floor:
                    continue
                if not may_lose and place.ep != one.ep:
                    self.wrong.append(f"{room}: another epoch, {one.ep}, where {place.ep} was told")
                is_there = any(row.mid == mid and row.off == place.off and row.id == place.id for row in one.rows)
                if not is_there and (not may_lose or place.ep == one.ep):
                    self.wrong.append(f"{room}: {mid} was told at {place}, and is not there")
        return self.wrong

    def _judge_rows(self, room: str, one: Held, owners: dict[int, Key]) -> None:
        if one.floor > self.trimmed.get(room, 0):
            self.wrong.append(f"{room}: begins behind {one.floor}, where nobody trimmed")
        found = [row.off for row in one.rows]
        if found != list(range(one.floor + 1, one.head + 1)):
            self.wrong.append(f"{room}: from {one.floor} to {one.head} there are {found}")
        seen: set[str | None] = set()
        before = 0
        for row in one.rows:
            if row.id <= before:
                self.wrong.append(f"{room}: the id {row.id} at {row.off} stands behind {before}")
            if row.mid in seen:
                self.wrong.append(f"{room}: {row.mid} is stored twice")
            if row.id in owners:
                self.wrong.append(f"{room}: the id {row.id} is that of {owners[row.id]} too")
            if row.mid is None or row.payload != payload_of(row.mid):
                self.wrong.append(f"{room}: at {row.off} stands {row.payload[:40]!r}, which was not sent as {row.mid}")
            if row.ep != one.ep:
                self.wrong.append(f"{room}: at {row.off} is the epoch {row.ep}, the room's is {one.ep}")
            before = row.id
            seen.add(row.mid)
            owners[row.id] = (room, row.mid or "")

    def read(self, held: Mapping[str, Held]) -> None:
        """What was read back was told to somebody by that: from now on it has to stay."""
        for room, one in held.items():
            for row in one.rows:
                self.told(room, row.mid, Place(row.ep, row.off, row.id))

    def _is_kept(self, room: str, before: Place, ep: str) -> bool:
        """Whether a message that was told there must still be there: not trimmed, and of the epoch that counts now."""
        return before.ep == ep and before.off > self.trimmed.get(room, 0)

    def missing(self, held: Mapping[str, Held]) -> list[Key]:
        """What was sent and is not there; trimmed messages are not named."""
        stored = {(room, row.mid or "") for room, one in held.items() for row in one.rows}
        return sorted(key for key in self.sent - stored if not self._is_trimmed(key, held))

    def _is_trimmed(self, key: Key, held: Mapping[str, Held]) -> bool:
        place, one = self.places.get(key), held.get(key[0])
        return place is not None and one is not None and place.off <= one.floor

    def hear(self, line: str) -> None:
        """Takes in one line of `writer`."""
        match line.split():
            case ["s", room, mid]:
                self.send(room, mid)
            case ["r", room, mid, ep, off, id]:
                self.told(room, mid, Place(ep, int(off), int(id)), fresh=True)
            case ["a", room, mid, ep, off, id, dup]:
                self.ack(room, mid, Place(ep, int(off), int(id)), dup == "1")
            case ["t", room, upto]:
                self.trim(room, int(upto))
            case ["f", *_] | ["end"]:
                pass
            case _:
                self.wrong.append(f"a line that nobody wrote: {line!r:.100}")

    def unanswered(self) -> int:
        """Publishes that nobody has answered."""
        return len(self.sent - self.acked)


def payload_of(mid: str) -> bytes:
    """The payload that belongs to a mid."""
    number = crc32(mid.encode())
    return b'{"mid":"%b","text":"%b"}' % (mid.encode(), b"x" * SIZES[number % 61 % len(SIZES)])


def held_of(rooms: Iterable[str], pages: Iterable[Page]) -> dict[str, Held]:
    """Pages of a store, each of a whole room, as what was read back."""
    found: dict[str, Held] = {}
    for room, page in zip(rooms, pages, strict=True):
        rows = tuple(Entry(row.off, int(row.id), row.ep, row.mid, row.payload_json) for row in page.rows)
        found[room] = Held(page.ep, page.floor, page.head, rows)
    return found
