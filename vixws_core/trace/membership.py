"""One connection as a member of one room, step by step: where its cursor stood, and how it went past an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from ..hub.hub import Hub
from ..hub.model import SENDABLE
from ..hub.place import Place
from ..hub.sessions.grants import REVOKED
from ..inputs import Authorized, Join, Leave, LeaveAll, Revoke, StoreRead
from ..wire.envelope import is_readable
from .happenings import Life, Moment, RoomLog, moment_of
from .hearing import Heard
from .replaying import Step

__all__ = ["Membership", "Memberships"]

_STARTS = {
    "fresh": "it joined without a position, so at the log's end",
    "epoch": "the position that it came with is of another log (epoch)",
    "trimmed": "what follows the position that it came with was trimmed",
    "ahead": "the position that it came with lies beyond the log's end",
    "fork": "the position that it came with is of a log that went another way (fork)",
}
_RESETS = {
    "epoch": "the room has another log now (epoch)",
    "ahead": "the log ends before what it had (ahead)",
    "fork": "the log has other messages than it had (fork)",
}


@dataclass(slots=True)
class Membership:
    """From one join to its end. `start` is the offset behind which its cursor began; None: not placed yet."""

    began: Moment
    place: Place
    start: int | None = None
    why_start: str = ""
    passed: Moment | None = None
    """When its cursor went past the offset without the message,"""
    why_passed: str = ""
    """and why."""
    waits: str = ""
    """Why it does not have the offset yet, as of the last step,"""
    since: Moment | None = None
    """and since when."""
    ended: Moment | None = None
    why_ended: str = ""
    asked: Moment | None = None
    """When it was first held or asked about."""


@dataclass(slots=True)
class Memberships:
    """All memberships of one connection in one room, and each time it was sent the message."""

    conn: int
    room: str
    off: int
    all: list[Membership] = field(default_factory=list[Membership])
    sent: list[tuple[Moment, int, bool]] = field(default_factory=list[tuple[Moment, int, bool]])
    """When, how many bytes it was sent up to the message's end, and whether it read on from the log."""
    by_history: list[Moment] = field(default_factory=list[Moment])
    """When it got the message in an answer to its `$history`."""
    now: Membership | None = None
    _before: Place | None = None

    def see(self, step: Step, heard: Sequence[Heard], hub: Hub, log: RoomLog, life: Life) -> None:
        """Takes one step; `log` and `life` have seen it."""
        moment, place = moment_of(step), hub.place_of(self.conn, self.room)
        mine = [each for each in heard if each.room == self.room]
        got = [each for each in mine if each.off == self.off and not each.type.startswith("$")]
        self.sent += [(moment, each.end, isinstance(step.input, StoreRead)) for each in got]
        for each in mine:
            if each.type == "$page" and any(one.get("off") == self.off for one in _rows(each)):
                self.by_history.append(moment)
        joined = next((each for each in mine if each.type == "$joined"), None)
        if self.now is not None and (place is None or self._is_new(step, place, joined)):
            self.now.ended, self.now.why_ended = moment, self._end(step, mine, place, hub, life)
            self.now = None
        if place is not None:
            if self.now is None:
                self.now = Membership(moment, place)
                self.all.append(self.now)
            self._go_on(step, self.now, place, mine, bool(got), joined, log, hub)
        self._before = place

    def _is_new(self, step: Step, place: Place, joined: Heard | None) -> bool:
        """Whether a member joined again, which gives it another cursor."""
        assert self.now is not None
        input = step.input
        by_app = isinstance(input, Join) and (input.conn, input.room) == (self.conn, self.room) and not step.raised
        placed = self.now.start is not None
        by_app = by_app and (input.since is not None or input.last > 0)
        return (
            by_app
            or (placed and place.asking and not place.held and not self.now.place.asking)
            or (placed and joined is not None and not self.now.place.asking)
        )

    def _go_on(
        self,
        step: Step,
        now: Membership,
        place: Place,
        mine: Sequence[Heard],
        got: bool,
        joined: Heard | None,
        log: RoomLog,
        hub: Hub,
    ) -> None:
        moment, off = moment_of(step), self.off
        if now.start is None and not place.asking:
            first = next((each.off for each in mine if each.off and not each.type.startswith("$")), place.position + 1)
            told = None if joined is None else joined.payload.get("from")
            now.start = told if isinstance(told, int) else min(first - 1, place.position)
            reason = None if joined is None else joined.payload.get("reason")
            now.why_start = _STARTS.get(reason, "") if isinstance(reason, str) else ""
        elif now.start is not None and not (got or place.asking or now.passed or self._has(now)):
            before = now.place.position
            resets = [each for each in mine if each.type == "$reset"]
            if before < off <= place.position or (resets and before < off <= int(resets[-1].payload.get("from", 0))):
                now.passed, now.why_passed = moment, self._why_passed(step, mine, place, log)
        now.place = place
        if now.passed is None and not self._has(now) and (now.start is None or now.start < off):
            waits = self._why_waiting(place, log, hub)
            if waits != now.waits:
                now.waits, now.since = waits, moment

    def _has(self, now: Membership) -> bool:
        return any(moment >= now.began for moment, _, _ in self.sent)

    def _why_passed(self, step: Step, mine: Sequence[Heard], place: Place, log: RoomLog) -> str:
        """Why its cursor went past the offset, in words that follow on "its cursor went past it: "."""
        off, input, told = self.off, step.input, ""
        silent = "" if place.told else "; it was told nothing, for it never said $hello"
        for each in mine:
            if each.type == "$reset":
                reason = str(each.payload.get("reason"))
                return (
                    f"{_RESETS.get(reason, reason)}: it was told $reset, and goes on behind {each.payload.get('from')}"
                )
            if each.type == "$gap" and each.payload.get("from", 0) <= off <= each.payload.get("to", 0):
                told = f"; it was told $gap from {each.payload['from']} to {each.payload['to']}"
        if self._before is not None and self._before.ep != place.ep:
            return f"the room has another log now (epoch {place.ep}){silent}"
        rows = input.rows if isinstance(input, StoreRead) else ()
        floor = input.floor if isinstance(input, StoreRead) else place.floor
        if floor >= off:
            why = f"it was trimmed: the log begins behind {floor} by now"
        elif not place.told and any(row.off == off and is_readable(row) for row in rows):
            why = "the log has other messages than it had (fork)"
        elif any(row.off == off for row in rows):
            why = "the log has it, but no client could read it: its type, payload or size is none of the protocol's"
        else:
            why = "the log has no such entry any more: it is damaged, or was lost"
        return why + (told or silent)

    def _why_waiting(self, place: Place, log: RoomLog, hub: Hub) -> str:
        """Why it does not have the offset yet, in words that follow on "it waited: "."""
        if place.held:
            return "whether it may stay was being asked of the application"
        failed = f"the log could not be read ({log.failure})" if log.failures else ""
        if place.asking:
            return failed or "its position was being asked of the log"
        if log.known is None:
            return ""
        if place.parked:
            return "it did not take what it was sent, and held more unsent bytes than unsentHigh (a slow reader)"
        if failed:
            return failed
        if place.reading:
            return "a page of the log was asked for, and had not come"
        if hub.unsent_bytes_of(self.conn) >= hub.config.unsent_bytes_low:
            return "it had not taken enough of what it was sent before (unsentLow)"
        if place.head < self.off:
            return "the hub had not been brought the entries up to it"
        return "its turn had not come"

    def _end(self, step: Step, mine: Sequence[Heard], place: Place | None, hub: Hub, life: Life) -> str:
        """What ended a membership, in words that follow on "it ended: "."""
        if place is not None:
            return "it joined again, from another position"
        input = step.input
        for each in mine:
            if each.type == "$kicked":
                return f"it was put out ($kicked, {each.payload.get('code')}): its right to be there was over"
        if hub.state_of(self.conn) not in SENDABLE:
            return life.why
        if isinstance(input, Leave | LeaveAll):
            return "the application took it out of the room"
        if isinstance(input, Revoke | Authorized):
            return f"its right to be there was over ({REVOKED})"
        if any(each.type == "$left" for each in mine):
            return "it left, by $leave"
        refusal = next((each.payload.get("code") for each in mine if each.type == "$err"), "an error")
        return f"its join was refused with $err {refusal}"


def _rows(heard: Heard) -> list[dict[str, object]]:
    """The entries in an answer to `$history`."""
    found = heard.payload.get("messages")
    if not isinstance(found, list):
        return []
    rows = cast("list[object]", found)
    return [cast("dict[str, object]", row) for row in rows if isinstance(row, dict)]
