"""What happened to one connection, in one room's log, and to the connection as a member of it: facts of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..codes import CLOSE_REPLACED, CLOSES
from ..effects import Authorize, Closed, FindPosition, Opened, PeerMisbehaved, ReadStore, StoreAppend
from ..hub.hub import Hub
from ..hub.model import ASKED, ENDING, HEAD, SENDABLE, ConnectionState
from ..inputs import (
    Authorized,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    Join,
    PositionKnown,
    Respond,
    RoomAdvanced,
    StoreAppended,
    StoreFailed,
    StoreRead,
)
from ..message import StoredMessage
from .hearing import Heard
from .replaying import Step

__all__ = ["Life", "Moment", "RoomLog", "moment_of"]

_MEANINGS: Final = {close.code: close.meaning for close in CLOSES}
_NOTED_MAX: Final = 20
"""Repeats, refusals and the like that are kept of one kind; an answer needs no more."""


class Moment(NamedTuple):
    """When something happened: the step, and seconds since the first one."""

    step: int
    at: float


def moment_of(step: Step) -> Moment:
    """The moment of a step."""
    return Moment(step.number, step.at)


# ---- the connection -------------------------------------------------------------------------------


@dataclass(slots=True)
class Life:
    """The life of one connection."""

    conn: int
    connected: Moment | None = None
    peer: str = ""
    opened: Moment | None = None
    answered: int = 0
    """The status of an HTTP response instead of an upgrade."""
    ended: Moment | None = None
    """When nothing could be sent to it any more,"""
    why: str = ""
    """and what ended it."""
    gone: Moment | None = None
    """When its transport ended."""
    misbehaved: str = ""
    state: ConnectionState | None = None

    def see(self, step: Step, heard: Sequence[Heard], hub: Hub) -> None:
        """Takes one step."""
        input, conn = step.input, self.conn
        if isinstance(input, Connected) and input.conn == conn:
            self.connected, self.peer = moment_of(step), input.peer
        elif isinstance(input, Respond) and input.conn == conn and self.state is ASKED:
            self.answered = input.status
        elif isinstance(input, Disconnected) and input.conn == conn:
            self.gone = moment_of(step)
        for effect in step.effects:
            if isinstance(effect, Opened) and effect.conn == conn:
                self.opened = moment_of(step)
            elif isinstance(effect, PeerMisbehaved) and effect.conn == conn:
                self.misbehaved = f"{effect.kind}: {effect.detail}"
        before, self.state = self.state, hub.state_of(conn)
        if before in (HEAD, ASKED, *SENDABLE) and self.state not in (HEAD, ASKED, *SENDABLE) and self.ended is None:
            self.ended = moment_of(step)
            self.why = self._cause(step, heard, before)

    def _is_asked(self, step: Step) -> bool:
        """Whether it was the client's own bytes that ended it: a close frame is answered with its code alone."""
        input = step.input
        return isinstance(input, BytesReceived) and input.conn == self.conn

    def _cause(self, step: Step, heard: Sequence[Heard], before: ConnectionState | None) -> str:
        """What ended it, in words that follow on "it ended: "."""
        input = step.input
        frames = [each for each in heard if each.code]
        closed = [each for each in step.effects if isinstance(each, Closed) and each.conn == self.conn]
        code, reason = (frames[-1].code, frames[-1].reason) if frames else (0, "")
        words = (
            f"with {code}" + (f" ({_MEANINGS[code]})" if code in _MEANINGS else "") + (f", {reason}" if reason else "")
        )
        if isinstance(input, Disconnected):
            return f"its transport ended{', ' + input.reason if input.reason else ''}" + (
                "" if closed else ", before any close frame"
            )
        if isinstance(input, Close):
            return f"the application closed it {words}"
        if code == CLOSE_REPLACED and isinstance(input, BytesReceived):
            return f"connection {input.conn} took its session over; it was closed {words}"
        if not self.misbehaved and (before is ENDING or (code and not reason and self._is_asked(step))):
            return f"its client closed it {words}"
        if before in (HEAD, ASKED):
            return (
                f"its request was answered with HTTP {self.answered}"
                if self.answered
                else "it never became a WebSocket"
            )
        fault = f" as its client broke a rule ({self.misbehaved})" if self.misbehaved else ""
        return f"the server closed it {words}{fault}" if code else f"the server ended it without a close frame{fault}"


# ---- the log --------------------------------------------------------------------------------------


@dataclass(slots=True)
class RoomLog:
    """What the hub was told of one room's log, and of one offset in it."""

    room: str
    off: int
    head: int = 0
    """The highest offset that was told."""
    known: Moment | None = None
    """When the hub was told that the offset exists."""
    entry: StoredMessage | None = None
    epochs: dict[str, Moment] = field(default_factory=dict[str, Moment])
    repeats: list[tuple[Moment, int, str]] = field(default_factory=list[tuple[Moment, int, str]])
    """Publishes that were answered as repeats: when, of which offset, and their `mid`."""
    refusals: list[tuple[Moment, str]] = field(default_factory=list[tuple[Moment, str]])
    """What the store refused to append."""
    failures: int = 0
    """Reads of the log that failed one after another,"""
    failure: str = ""
    """and how the last one did."""
    _asked: dict[int, str] = field(default_factory=dict[int, str])
    """Open questions about the room: what is appended has its `mid`, a read none."""

    def see(self, step: Step) -> None:
        """Takes one step."""
        input = step.input
        if isinstance(input, RoomAdvanced) and input.room == self.room:
            self._told(step, input.ep, input.head, input.entries)
        elif isinstance(input, StoreRead) and input.request in self._asked:
            self.failures = 0
            self._told(step, input.ep, input.head, input.rows)
        elif isinstance(input, PositionKnown) and input.request in self._asked:
            self.failures = 0
            self._told(step, input.ep, input.head, ())
        elif isinstance(input, StoreAppended) and input.request in self._asked:
            self._told(step, input.ep, input.off, ())
            if input.dup:
                del self.repeats[:-_NOTED_MAX]
                self.repeats.append((moment_of(step), input.off, self._asked[input.request]))
        elif isinstance(input, StoreFailed) and input.request in self._asked:
            if self._asked[input.request] == READ:
                self.failures += 1
                self.failure = f"{input.code} at step {step.number}"
            else:
                del self.refusals[:-_NOTED_MAX]
                self.refusals.append((moment_of(step), input.code))
        if isinstance(input, StoreRead | PositionKnown | StoreAppended | StoreFailed):
            self._asked.pop(input.request, None)
        for effect in step.effects:
            if isinstance(effect, ReadStore | FindPosition) and effect.room == self.room:
                self._asked[effect.request] = READ
            elif isinstance(effect, StoreAppend) and effect.room == self.room:
                self._asked[effect.request] = effect.mid or ""

    def _told(self, step: Step, ep: str, head: int, entries: Sequence[StoredMessage]) -> None:
        self.epochs.setdefault(ep, moment_of(step))
        self.head = max(self.head, head)
        if self.known is None and head >= self.off:
            self.known = moment_of(step)
        for entry in entries:
            if entry.off == self.off:
                self.entry = entry


READ: Final = "\0read"
"""Stands for a question that is no append; no `mid` has it."""


# ---- what it may do -------------------------------------------------------------------------------


@dataclass(slots=True)
class Rights:
    """What one connection tried in one room, and was not let."""

    conn: int
    room: str
    refused: list[tuple[Moment, str]] = field(default_factory=list[tuple[Moment, str]])
    """What it was answered instead."""
    _asked: dict[int, str] = field(default_factory=dict[int, str])
    """Open questions whether it may: the action."""

    def see(self, step: Step, heard: Sequence[Heard]) -> None:
        """Takes one step."""
        input = step.input
        if isinstance(input, Authorized) and input.request in self._asked:
            action = self._asked.pop(input.request)
            if action not in input.actions or input.expires_in_s == 0:
                self._note(step, f"the application did not grant {action}{f' ({input.code})' if input.code else ''}")
        elif isinstance(input, Join) and step.raised and (input.conn, input.room) == (self.conn, self.room):
            self._note(step, f"the application's join failed: {step.raised}")
        for effect in step.effects:
            if isinstance(effect, Authorize) and (effect.conn, effect.room) == (self.conn, self.room):
                self._asked[effect.request] = effect.action
        for each in heard:
            if each.type == "$err" and each.room == self.room:
                self._note(step, f"it was answered $err {each.payload.get('code')}: {each.payload.get('msg')}")

    def waits(self) -> str:
        """The action that the application was asked about and has not answered; "" for none."""
        return next(iter(self._asked.values()), "")

    def _note(self, step: Step, words: str) -> None:
        del self.refused[:-_NOTED_MAX]
        self.refused.append((moment_of(step), words))
