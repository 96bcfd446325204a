"""An oracle for one connection's place in one room: where it starts, and that nothing is missing after that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .decoding import Asked, Heard
from .oracle import check
from .rows import check_row
from .store import Truth

__all__ = ["Place", "check_joined"]


class Place:
    """One connection in one room. `cursor` is None until its start is known."""

    __slots__ = (
        "base",
        "by_wire",
        "by_wire_asked",
        "cursor",
        "ep",
        "id",
        "live_at",
        "missed",
        "rejoining",
        "room",
        "stored",
        "was_told",
    )

    def __init__(self, room: str, by_wire_asked: bool = False) -> None:
        self.room: str = room
        self.by_wire_asked: bool = by_wire_asked
        """It began with a `$join`, answered or not."""
        self.id: str | None = None
        """The id of the entry at the cursor, where it is known."""
        self.missed: int = 0
        """Messages of a room that is not stored which did not go to it, and it was not told of."""
        self.base: int = 0
        """How many such messages nobody had been sent when it began to miss some."""
        self.cursor: int | None = None
        self.ep: str = ""
        self.live_at: int | None = None
        """The announced head, until `$live` was told."""
        self.stored: bool = True
        self.was_told: bool = False
        """A `$joined` was told for it."""
        self.by_wire: bool = False
        """It was joined by `$join`, so that it hears of gaps even without `$hello`."""
        self.rejoining: bool = False
        """It asked for a new cursor; which one the application gets is not told without `$hello`."""

    def is_told(self, hello: bool) -> bool:
        """Whether it hears of positions and gaps."""
        return hello or self.by_wire

    def message(self, id: int, heard: Heard, truth: Truth, told: bool) -> None:
        """A stored message: what the log holds there, behind the one before. `told`: it hears of gaps."""
        who = f"connection {id} in {self.room!r}"
        stale = self.room in truth.stale
        if not stale:
            check_row(who, heard, truth.row(self.room, heard.off))
        cursor = self.cursor
        if told and not stale and self.id is not None and cursor is not None:
            before = truth.row(self.room, cursor)
            same = before is not None and before.id == self.id
            check(same, f"{who} was sent {heard!r:.200} behind the entry {self.id}, the log has {before!r:.100} there")
        if told:
            check(cursor is not None, f"{who} was sent {heard!r:.200} before its $joined")
            check(self.ep == heard.ep, f"{who} was sent {heard!r:.200}, expected epoch {self.ep!r}")
            check(
                self.live_at is None or heard.off <= self.live_at,
                f"{who} was sent offset {heard.off} before the $live of {self.live_at}",
            )
        if cursor is not None and heard.off != cursor + 1:
            # Without `$hello` an application's join moves the cursor and gaps are passed, both in silence.
            silent = not told and (
                self.rejoining or heard.ep != self.ep or cursor < heard.off <= truth.floor(self.room) + 1
            )
            check(silent, f"{who} was sent offset {heard.off} behind {cursor}, expected offsets to rise by one")
        self.cursor, self.ep, self.id = heard.off, heard.ep, heard.id
        if not told:
            self.live_at = None

    def live(self, id: int, heard: Heard) -> None:
        """`$live`: once per join, as soon as the announced head is reached."""
        off = heard.payload.get("off")
        ok = (
            self.live_at is not None and off == self.live_at and (not self.stored or (self.cursor or 0) >= self.live_at)
        )
        if self.stored:
            check(ok, f"connection {id} in {self.room!r}: $live {off} at {self.cursor}, announced was {self.live_at}")
        self.live_at = None

    def gap(self, id: int, heard: Heard, truth: Truth) -> None:
        """`$gap`: only of what was trimmed, and right behind the cursor."""
        first, last, floor = heard.payload.get("from", 0), heard.payload.get("to", 0), truth.floor(self.room)
        check(
            self.cursor is not None and first == self.cursor + 1 and first <= last <= floor,
            f"connection {id} in {self.room!r}: $gap from {first} to {last} at {self.cursor}, trimmed up to {floor}",
        )
        who = f"connection {id} in {self.room!r}: {heard!r:.300}"
        self.cursor, self.id = last, check_id(who, heard.payload, last, self.room, truth)

    def reset(self, id: int, heard: Heard, truth: Truth) -> None:
        """`$reset`: the log is another one than this place was told of."""
        told = heard.payload
        reason, ep = told.get("reason"), truth.epoch(self.room)
        who = f"connection {id} in {self.room!r}: {heard!r:.300}"
        if reason == "epoch":
            check(self.ep != ep, f"{who}, but the log is still {ep!r}")
        else:
            check(self.room in truth.went_back, f"{who}, but the log has not gone back")
            check(reason in ("ahead", "fork") and self.ep == ep, f"{who}: expected ahead or fork in {ep!r}")
        start, head, floor = told.get("from", 0), told.get("head", 0), told.get("floor", 0)
        # Behind a log that went back an answer of the time before may still tell of its floor.
        low = 0 <= floor <= truth.floor(self.room) or truth.times_back > 0
        bounds = 0 <= start <= head <= truth.head(self.room) and low
        check(told.get("ep") == ep and bounds, f"{who}: the log is {ep!r}, up to {truth.head(self.room)}")
        self.ep, self.cursor, self.live_at = ep, start, None
        self.id = check_id(who, told, start, self.room, truth)

    def lacks(self, truth: Truth) -> str:
        """What is missing at the end; "" for nothing."""
        if not self.stored or (self.cursor is None and not self.was_told):
            return ""
        head = truth.head(self.room)
        if self.cursor != head and not self.rejoining:
            return f"it is at {self.cursor} of {self.room!r}, expected {head}"
        row = truth.row(self.room, head)
        if self.id is not None and row is not None and row.id != self.id and not self.rejoining:
            return f"it is at the entry {self.id} of {self.room!r}, the log has {row.id} there"
        if self.live_at is not None:
            return f"it was not told $live of {self.room!r}, announced at {self.live_at}"
        return ""


def check_id(who: str, told: Mapping[str, Any], off: int, room: str, truth: Truth) -> str | None:
    """The id that a word about a place carries: that of the entry there, "" at 0. Returns it, None where it is none."""
    row, id = truth.row(room, off), told.get("id")
    if room not in truth.stale:
        check(id == ("" if row is None else row.id), f"{who}: the entry at {off} is {row!r:.200}")
    return str(id) if id else None


def check_joined(id: int, place: Place, heard: Heard, asked: Asked | None, truth: Truth, turn: int) -> None:
    """`$joined`: judged by the rule of PROTOCOL §3 against the log's truth; `asked` is None for a handler's join.

    The log was asked at some time between the join and its answer, so each bound may be that of either time.
    """
    told = heard.payload
    place.rejoining = False
    place.was_told = True
    place.stored = bool(told.get("stored"))
    place.live_at = int(told.get("head", 0))
    if not place.stored:
        return
    start, head = int(told["from"]), int(told["head"])
    place.cursor, place.ep, place.id = start, str(told["ep"]), None
    if place.room in truth.stale or (asked is not None and asked.times_back != truth.times_back):
        return  # The log went back, and what is said may be of the time before.
    room, ep, head_now, floor_now = place.room, truth.epoch(place.room), truth.head(place.room), truth.floor(place.room)
    who = f"connection {id} in {room!r}: {heard!r:.300} to {asked!r:.300}"
    check(told["ep"] == ep, f"{who}: expected epoch {ep!r}")
    place.id = check_id(who, told, start, room, truth)
    low = int(told["floor"]) <= floor_now or truth.times_back > 0
    check(head <= head_now and low, f"{who}: expected {floor_now} to {head_now} at most")
    told_of = truth.told.get(room, 0)
    check(head >= told_of, f"{who}: expected a head of at least {told_of}, which the server was told of")
    if asked is None:
        return
    check(head >= asked.told, f"{who}: expected a head of at least {asked.told}")
    reason = told.get("reason")
    check(bool(told["recovered"]) is (reason is None), f"{who}: expected a reason exactly where it did not recover")
    since = asked.since
    if since is None:
        # Counted from the head that the log had when it was asked; the one that is announced may be newer.
        lowest = max(asked.floor, asked.told - asked.last) if asked.last else head
        highest = max(floor_now, head - asked.last) if asked.last else head
        check(reason == "fresh" and lowest <= start <= highest, f"{who}: expected {lowest} to {highest}")
        return
    off, entry = int(since["off"]), truth.row(room, int(since["off"]))
    forked = since.get("id") is not None and entry is not None and entry.id != since["id"]
    # In the turn of the join itself the log was not asked: the room's tail has what follows, trimmed or not.
    floor = 0 if turn == asked.turn else asked.floor
    may = {
        None: since["ep"] == ep and floor <= off <= head_now and not forked,
        "epoch": since["ep"] != ep,
        "trimmed": since["ep"] == ep and off < floor_now,
        "ahead": since["ep"] == ep and off > asked.head,
        "fork": since["ep"] == ep and asked.floor <= off and forked,
    }
    check(
        reason in may and may[reason], f"{who}: the log is {ep!r}, {floor_now} to {head_now}, there is {entry!r:.100}"
    )
    if reason is None:
        check(start == off, f"{who}: expected to start at {off}")
    elif reason == "trimmed" and asked.from_floor:
        check(asked.floor <= start <= floor_now, f"{who}: expected to start at the floor, {asked.floor} to {floor_now}")
    else:
        check(start == head, f"{who}: expected to start at the head")
