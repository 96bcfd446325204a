"""Why one connection did, or did not, get the message at one offset of a room: an answer in words, from a replay."""

from __future__ import annotations

from datetime import UTC, datetime

from ..hub.hub import Hub
from ..names import matches
from .happenings import Life, Moment, Rights, RoomLog
from .hearing import Hearing
from .lines import Head
from .membership import Membership, Memberships
from .replaying import Step

__all__ = ["Explainer"]


class Explainer:
    """Watches a replay for one connection, room and offset; `answer` says what it found, the answer first."""

    def __init__(self, head: Head, conn: int, room: str, off: int) -> None:
        self.conn: int = conn
        self.room: str = room
        self.off: int = off
        self._head = head
        self._hearing = Hearing(conn)
        self._life = Life(conn)
        self._log = RoomLog(room, off)
        self._rights = Rights(conn, room)
        self._members = Memberships(conn, room, off)
        self._flushed: dict[int, Moment] = {}
        """When what the connection was sent up to a message's end was flushed."""
        self._began: float | None = None
        self._last: Moment | None = None
        self._conns: tuple[int, int] | None = None
        """The lowest and the highest connection."""

    def see(self, step: Step, hub: Hub) -> None:
        """Takes one step, which the hub has just done."""
        if self._began is None:
            self._began = step.now
        self._last = Moment(step.number, step.at)
        if step.name == "Connected" and step.input is not None:
            id = step.input.conn
            self._conns = (id, id) if self._conns is None else (min(self._conns[0], id), max(self._conns[1], id))
        heard = tuple(self._hearing.see(step.input, step.effects))
        self._log.see(step)
        self._life.see(step, heard, hub)
        self._rights.see(step, heard)
        self._members.see(step, heard, hub, self._log, self._life)
        for _, end, _ in self._members.sent:
            if end <= self._hearing.flushed and end not in self._flushed:
                self._flushed[end] = self._last

    # ---- the answer ---------------------------------------------------------------------------------

    def answer(self) -> list[str]:
        """The answer: lines of text, of which the first says it all."""
        return [self._verdict(), *self._about_message(), *self._about_connection(), *self._about_memberships()]

    def _verdict(self) -> str:
        what = f"offset {self.off} of room {self.room!r}"
        if self._life.connected is None:
            known = "there is none" if self._conns is None else f"they go from {self._conns[0]} to {self._conns[1]}"
            return f"No: there is no connection {self.conn} in this trace; {known}."
        if any(matches(pattern, self.room) for pattern in self._head.hub.unstored_rooms):
            return f"Room {self.room!r} is not stored (unstored), so its messages have no offsets."
        if self._members.sent:
            return self._was_sent(what)
        if self._members.by_history:
            return f"Only as an answer to its $history: it was sent {what} {self._when(self._members.by_history[0])}."
        no = f"No: connection {self.conn} was not sent {what}"
        if self._log.known is None:
            return f"{no}, for the hub was never told of it: {self._log_ends()}."
        if self._life.opened is None and not self._members.all:
            return f"{no}, for it never was open: {self._life.why or 'its request was not accepted'}."
        found = self._decisive()
        if found is None:
            return f"{no}, for it never was a member of the room{self._refused()}."
        return f"{no}: {self._why(found)}."

    def _was_sent(self, what: str) -> str:
        moment, end, by_page = self._members.sent[0]
        how = ", read from the log," if by_page else ""
        words = f"Yes: connection {self.conn} was sent {what}{how} {self._when(moment)}"
        flushed = self._flushed.get(end)
        if flushed is not None:
            return f"{words}, and all its bytes were handed to the operating system {self._when(flushed)}."
        left = end - self._hearing.flushed
        if self._life.gone is not None:
            fate = f"the connection was over {self._when(self._life.gone)}: the client did not get them all"
        else:
            fate = "the trace ends before they were"
        return f"{words}, but {left} bytes up to its end were not handed to the operating system: {fate}."

    def _decisive(self) -> Membership | None:
        """The membership on which it hung: the one when the message came, else the next, else the last."""
        known = self._log.known
        assert known is not None  # The hub was told of it.
        for found in self._members.all:
            if found.ended is None or found.ended >= known:
                return found
        return self._members.all[-1] if self._members.all else None

    def _why(self, found: Membership) -> str:
        known, off = self._log.known, self.off
        assert known is not None  # The hub was told of it.
        if found.passed is not None:
            return f"{self._when(found.passed)} its cursor went past it, for {found.why_passed}"
        if found.start is not None and found.start >= off:
            why = f" ({found.why_start})" if found.why_start else ""
            return f"it joined {self._when(found.began)} with a later position, behind offset {found.start}{why}"
        if found.ended is not None and found.ended < known:
            return f"its membership had ended before, {self._when(found.ended)}: {found.why_ended}"
        since = f" since {self._when(found.since)}" if found.since is not None else ""
        waits = f"{found.waits}{since}" if found.waits else "nothing held it up"
        if found.ended is None:
            return f"at the end of the trace it still waits: {waits}"
        return f"its membership ended {self._when(found.ended)} ({found.why_ended}) while it waited: {waits}"

    def _refused(self) -> str:
        if self._rights.refused:
            moment, words = self._rights.refused[-1]
            return f": {self._when(moment)} {words}"
        action = self._rights.waits()
        return f": the application was asked whether it may {action}, and has not answered" if action else ""

    def _log_ends(self) -> str:
        if not self._log.epochs:
            return "nothing was read from or written to the room's log"
        words = f"the log ends with {self._log.head}, as far as it was told"
        if self._log.repeats:
            moment, off, mid = self._log.repeats[-1]
            words += f"; what was published {self._when(moment)} (mid {mid}) was a repeat of offset {off}, and got none"
        elif self._log.refusals:
            moment, code = self._log.refusals[-1]
            words += f"; the store refused what was published, {self._when(moment)}: {code}"
        return words

    # ---- the facts behind it ------------------------------------------------------------------------

    def _about_message(self) -> list[str]:
        log, lines = self._log, list[str]()
        entry = log.entry
        if log.known is not None:
            text = f"the message: the hub was told of it {self._when(log.known)}"
            if entry is not None:
                sender = f", from {entry.sender}" if entry.sender else ""
                mid = f", mid {entry.mid}" if entry.mid else ""
                text += f"; type {entry.type}, id {entry.id}{sender}{mid}, {len(entry.payload_json)} bytes of payload"
            lines.append(text)
        lines += [
            f"published again {self._when(moment)} (mid {mid}): a repeat, which is not sent again"
            for moment, off, mid in log.repeats
            if off == self.off
        ]
        if len(log.epochs) > 1:
            told = ", ".join(f"{ep} {self._when(moment)}" for ep, moment in log.epochs.items())
            lines.append(f"the room's log changed; epochs: {told}. An offset may stand for a message of each")
        return lines

    def _about_connection(self) -> list[str]:
        life = self._life
        if life.connected is None:
            return []
        words = f"connection {self.conn}: from {life.peer or 'somewhere'}, connected {self._when(life.connected)}"
        if life.opened is not None:
            words += f", open {self._when(life.opened)}"
        if life.ended is not None:
            words += f", ended {self._when(life.ended)}: {life.why}"
        return [words, *(f"{self._when(moment)} {text}" for moment, text in self._rights.refused[:5])]

    def _about_memberships(self) -> list[str]:
        return [self._told(found) for found in self._members.all]

    def _told(self, found: Membership) -> str:
        start = "not placed" if found.start is None else f"its cursor began behind offset {found.start}"
        end = "still one at the end of the trace"
        if found.ended is not None:
            end = f"until {self._when(found.ended)}: {found.why_ended}"
        return f"a member {self._when(found.began)}, {start}, {end}"

    def _when(self, moment: Moment) -> str:
        now = (self._began or 0.0) + moment.at
        wall = self._head.wall + now - self._head.clock
        try:
            text = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        except (ValueError, OverflowError, OSError):
            text = f"Unix time {wall}"
        return f"at step {moment.step} ({text})"
