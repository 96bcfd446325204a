"""Ordered producers: what a log takes of them, and what it knows of each (PROTOCOL §4).

A producer numbers what it publishes into a room from 1. The log takes the next number and no other, so that a message
is stored only where all before it are, in their order, however often connections are lost in between. Its epoch rises
when it begins to count anew: whatever still comes under an older one is late, and refused for good.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import date
from typing import Final, NamedTuple

from .codes import FENCED, SEQ_GAP, STALE_MID
from .effects import StoreAppend
from .inputs import StoreFailed
from .mids import Numbered, numbered

__all__ = ["KEPT_DAYS", "KEPT_MAX", "SENDER_MAX", "Kept", "Producers", "day_of", "idlest", "judge"]

KEPT_DAYS: Final = 30
"""A producer that published nothing for so long is forgotten, and begins anew."""

SENDER_MAX: Final = 256
"""Producers that a log knows of one sender (`scope`) in one room; over it the one goes whose last day is longest ago,
and of several the first by name."""

KEPT_MAX: Final = 10_000
"""Producers that a log in memory knows in all."""


class Kept(NamedTuple):
    """What is known of a producer in a room: its epoch, the last number that was stored, and the day of that."""

    epoch: int
    seq: int
    day: int


def day_of(ts: str) -> int:
    """The day of a time in RFC 3339, counted in days; 0 where it is none."""
    try:
        return date.fromisoformat(ts[:10]).toordinal()
    except ValueError:
        return 0


def judge(kept: Kept | None, ask: StoreAppend, asked: Numbered, today: int) -> Kept | StoreFailed:
    """What is known of a producer once its message is stored, for a key that is not stored already; or why it is not.

    `kept`: None, or of a day that is too long ago, for a producer that nothing is known of.
    """
    producer, epoch, seq = asked
    if kept is None or kept.day + KEPT_DAYS < today:
        kept = Kept(epoch, 0, today)
    last = kept.seq if epoch == kept.epoch else 0
    if epoch < kept.epoch:
        text = f"producer {producer!r} is at epoch {kept.epoch} here, and this is of epoch {epoch}"
        return StoreFailed(ask.request, FENCED, text, False)
    if seq > last + 1:
        text = f"producer {producer!r} has stored {last} messages of epoch {epoch} here, and this is number {seq}"
        return StoreFailed(ask.request, SEQ_GAP, text, False, last + 1)
    if seq <= last:
        text = f"number {seq} of producer {producer!r} was stored here, and its message is not kept"
        return StoreFailed(ask.request, STALE_MID, text, False)
    return Kept(epoch, seq, today)


def idlest(days: Mapping[str, int], count: int) -> list[str]:
    """Of one sender's producers in a room, by name with their day, those that published nothing for longest."""
    return sorted(days, key=lambda name: (days[name], name))[:count]


class Producers:
    """What a log in memory knows of producers: a bounded number, of each sender in each room and in all.

    Over the former the sender's idlest goes; over the latter one of who has most, so that nobody's go because of others
    who have more.
    """

    __slots__ = ("_count", "_groups", "_most")

    def __init__(self, most: int = KEPT_MAX) -> None:
        self._groups: OrderedDict[tuple[str, str], dict[str, Kept]] = OrderedDict()
        self._count = 0
        self._most = most

    def __len__(self) -> int:
        return self._count

    def take(self, ask: StoreAppend, ts: str) -> StoreFailed | None:
        """Notes the number of a message that is stored next, at the time `ts`; or says why it is not."""
        asked = numbered(ask.mid or "")
        if asked is None:
            return None
        key, name = (ask.room, ask.scope), asked.producer
        group = self._groups.get(key, {})
        found = judge(group.get(name), ask, asked, day_of(ts))
        if isinstance(found, StoreFailed):
            return found
        if name not in group:
            if len(group) >= SENDER_MAX:
                self._forget(group, 1)
            self._count += 1
        group[name] = found
        self._groups[key] = group
        self._groups.move_to_end(key)
        if self._count > self._most:
            self._make_room()
        return None

    def _make_room(self) -> None:
        largest = max(self._groups.values(), key=len)
        if len(largest) > 1:
            self._forget(largest, len(largest) // 2)
            return
        for _ in range(max(1, self._most // 100)):  # Each has one.
            self._count -= len(self._groups.popitem(last=False)[1])

    def _forget(self, group: dict[str, Kept], count: int) -> None:
        for name in idlest({name: kept.day for name, kept in group.items()}, count):
            del group[name]
            self._count -= 1
