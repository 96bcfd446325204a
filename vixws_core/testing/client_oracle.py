"""An oracle for one client of a world: what its machine tells its application, and what it does by itself.

PROTOCOL §3: what is told rises by one, except where a client is told why not; a position moves behind what is handled.
§4: no answer is not a failure. §11: when it comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..client import (
    ClientClosed,
    ClientConfig,
    ClientJoin,
    ClientMachine,
    ClientMessage,
    ClientPublish,
    ClientRequest,
    OpenTransport,
    Position,
    PublishSettled,
    RequestSettled,
    RoomGap,
    RoomJoined,
    RoomLive,
    RoomReset,
)
from ..codes import CLOSE_STOPS_FIRST, CLOSE_STOPS_LAST, INTERNAL, RETRY_CODES, TOO_LARGE
from ..wire.frames import FrameReader
from .decoding import Heard, heard_of
from .oracle import check

__all__ = ["ClientOracle"]

_EPS: Final = 1e-6
_LATE_S: Final = 8.0
"""How late a world may tell a client twice that its time has come: to ping, and to give up."""
_REF: Final = re.compile(r'\{"type":"(?:[^"]*)".*?"ref":"~p(\d+)"')
_ANSWERS: Final = ("$ack", "$err", "$page", "$position")


class _Book:
    """One room: what was told of it, in order, and what of that was handled."""

    __slots__ = ("at", "done", "entries", "handled")

    def __init__(self, at: Position | None) -> None:
        self.at: Position | None = at
        self.handled: Position | None = at
        self.entries: list[tuple[int, Position]] = []
        self.done: set[int] = set()

    def note(self, number: int, at: Position) -> None:
        """Something was told: the message of that number, or (0) a place that needs no handling."""
        self.at = at
        self.entries.append((number, at))

    def settle(self) -> None:
        """Moves the handled position over all that is handled."""
        while self.entries and (not self.entries[0][0] or self.entries[0][0] in self.done):
            number, self.handled = self.entries.pop(0)
            self.done.discard(number)


class ClientOracle:
    """Judges one client. `who` names it; `clock` is the world's."""

    def __init__(self, who: str, machine: ClientMachine, clock: Callable[[], float]) -> None:
        self._who = who
        self._machine = machine
        self._config: ClientConfig = machine.config
        self._clock = clock
        self._books: dict[str, _Book] = {}
        self._joined: dict[str, RoomJoined] = {}
        self._live: set[str] = set()
        self._reader: FrameReader | None = None
        self._head = b""
        self._out: FrameReader | None = None
        self._last_sent = 0
        self._refused: set[int] = set()
        """Publishes that it was told to send again."""
        self._answers: dict[str, Heard] = {}
        """What the server answered last, by `ref`."""
        self._drain_at: float | None = None
        self._failures = 0
        self._back_at = 0.0
        self._heard_at = 0.0
        self._asked_to_stop = False
        self._is_open = False
        self._given_up = ""
        """What was settled because the client ends, in words, until it does."""

    # ---- what it is asked -------------------------------------------------------------------------

    def joins(self, ask: ClientJoin) -> None:
        """It is to join a room."""
        since = ask.since
        self._books[ask.room] = _Book(None if since is None else (since.ep, since.off, since.id))

    def left(self, room: str, code: str = "") -> None:
        """It is in a room no longer; `code`: why the server put it out, or does not let it in."""
        check(code not in RETRY_CODES, f"{self._who} gives {room!r} up for {code}, expected it to try again")
        for table in (self._books, self._joined):
            table.pop(room, None)
        self._live.discard(room)

    def stops(self, stopping: bool) -> None:
        """It is to stop, or to start."""
        self._asked_to_stop = stopping

    def at(self, room: str) -> tuple[str, int] | None:
        """Where what was told of a room ends."""
        book = self._books.get(room)
        return None if book is None or book.at is None else book.at[:2]

    # ---- what it hears ----------------------------------------------------------------------------

    def hears(self, data: bytes) -> None:
        """Bytes of its server, as it gets them."""
        self._heard_at = self._clock()
        if self._reader is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, self._head = self._head[end + 4 :], b""
            self._reader = FrameReader(client=True, message_bytes_max=1 << 30)
        for item in self._reader.feed(data):
            if isinstance(item, str) and item.startswith('{"type":"$'):
                heard = heard_of(item)
                if heard.type in _ANSWERS and heard.ref is not None:
                    self._answers[heard.ref] = heard
                    if heard.ref[:2] == "~p" and heard.type == "$err" and heard.payload.get("retry"):
                        self._refused.add(int(heard.ref[2:]))
                elif heard.type == "$pong":
                    self._failures = 0
                elif heard.type == "$drain":
                    self._drain_at = self._clock() + heard.payload["reconnect_in_ms"] / 1000

    def sends(self, data: bytes) -> None:
        """It sends bytes: its publishes in order, those that were refused first (PROTOCOL §13.4)."""
        if self._out is None:
            self._out = FrameReader(message_bytes_max=1 << 30)
            if data.startswith(b"GET "):
                return
        for item in self._out.feed(data):
            found = _REF.match(item) if isinstance(item, str) else None
            if found is None:
                continue
            number = int(found[1])
            older = min(self._refused, default=number)
            check(older >= number, f"{self._who} sends {item!r:.100} before its request {older}, which was refused")
            again = number in self._refused
            self._refused.discard(number)
            check(number > self._last_sent or again, f"{self._who} sends {item!r:.100} behind {self._last_sent}")
            self._last_sent = max(number, self._last_sent)

    def opens(self, told: OpenTransport) -> None:
        """It connects: not before its time."""
        now = self._clock()
        check(
            now >= self._back_at - _EPS,
            f"{self._who} connects at {now:.3f}, expected it to wait until {self._back_at:.3f}",
        )
        self._reader, self._head, self._out = None, b"", None
        self._refused.clear()
        self._last_sent = 0
        self._heard_at = now
        self._drain_at = None
        self._answers.clear()

    def opened(self) -> None:
        """It is connected."""
        self._joined.clear()
        self._live.clear()
        self._is_open = True

    def closed(self, told: ClientClosed) -> None:
        """A connection, or an attempt, is over: it comes back at its time, or stays away (PROTOCOL §11)."""
        self._joined.clear()
        self._live.clear()
        self._is_open = False
        now = self._clock()
        stops = self._asked_to_stop or CLOSE_STOPS_FIRST <= told.code <= CLOSE_STOPS_LAST
        self._given_up = self._given_up if told.reconnecting else ""
        check(told.reconnecting is not stops, f"{self._who}: {told!r}, asked to stop: {self._asked_to_stop}")
        if "no byte" in told.reason:
            silent = now - self._heard_at
            check(
                silent >= self._config.ping_timeout_s - _EPS, f"{self._who}: {told!r}, a byte came {silent:.3f} s ago"
            )
        if not told.reconnecting:
            self._failures = 0
            self._back_at = now
            return
        config, drain = self._config, self._drain_at
        self._failures += 1
        most = min(config.backoff_max_s, config.backoff_min_s * 2.0 ** max(0, self._failures - 2))
        most = max(most, config.reconnect_first_s)
        if drain is not None:
            most = max(most, drain - now)
            least = max(0.0, drain - now)
            check(told.delay_s >= least - _EPS, f"{self._who}: {told!r}, its slot is in {least:.3f} s")
        check(0 <= told.delay_s <= most + _EPS, f"{self._who}: {told!r}, expected at most {most:.3f} s")
        self._back_at = now + told.delay_s

    # ---- what it is told --------------------------------------------------------------------------

    def message(self, told: ClientMessage) -> None:
        """A message of a room that it joined, or of none."""
        self._failures = 0
        room = told.room or ""
        book = self._books.get(room)
        if not told.off or book is None:
            return
        check(room in self._joined, f"{self._who} in {room!r}: told {told.off} while it is not in the room")
        at = None if book.at is None else book.at[:2]
        check(
            at == (told.ep, told.off - 1),
            f"{self._who} in {room!r}: told {told.ep} {told.off} behind {at}, expected offsets to rise by one",
        )
        book.note(told.number, (told.ep, told.off, told.id or None))

    def handled(self, number: int) -> None:
        """Its application handled a message."""
        for book in self._books.values():
            if any(found == number for found, _ in book.entries):
                book.done.add(number)

    def joined(self, told: RoomJoined) -> None:
        """It is let into a room."""
        self._joined[told.room] = told
        self._live.discard(told.room)
        book = self._books[told.room]
        if not told.stored:
            book.at = None
        elif told.recovered:
            check(
                book.at is not None and book.at[:2] == (told.ep, told.off),
                f"{self._who} in {told.room!r}: recovered at {told.ep} {told.off}, expected {book.at}",
            )
        else:
            book.note(0, (told.ep, told.off, told.id or None))

    def lives(self, told: RoomLive) -> None:
        """All that was announced was told, once."""
        self._failures = 0
        joined, at = self._joined.get(told.room), self.at(told.room)
        fits = joined is not None and told.off == joined.head and told.room not in self._live
        reached = joined is not None and (not joined.stored or (at is not None and at[1] >= told.off))
        check(fits and reached, f"{self._who}: {told!r} behind {joined!r}, at {at}")
        self._live.add(told.room)

    def gap(self, told: RoomGap) -> None:
        """Entries are no more: it goes on behind them."""
        if not told.first:  # Of a room that is not stored: so many were dropped, without offsets.
            return
        book = self._books[told.room]
        check(
            book.at is not None and book.at[1] == told.first - 1,
            f"{self._who} in {told.room!r}: a gap from {told.first}, expected it behind {book.at}",
        )
        if book.at is not None:
            book.note(0, (book.at[0], told.last, told.id or None))

    def reset(self, told: RoomReset) -> None:
        """The log is another one."""
        self._books[told.room].note(0, (told.ep, told.off, told.id or None))

    def settled(self, told: PublishSettled | RequestSettled, asked: ClientPublish | ClientRequest) -> None:
        """An answer is what the server said, and a publish is given up only where it said that it is of no use."""
        is_publish = isinstance(told, PublishSettled)
        ref = f"~p{told.request}" if is_publish else f"~q{told.request}"
        heard = self._answers.get(ref)
        who = f"{self._who}: {told!r:.300} for {asked!r:.200}, the server said {heard!r:.300}"
        if told.ok:
            self._failures = 0 if is_publish else self._failures
            check(heard is not None and heard.type != "$err", who)
            if heard is None:
                return
            said: dict[str, Any] = heard.payload
            if isinstance(told, PublishSettled):
                place = (said.get("ep") or "", said.get("off") or 0, said.get("id") or "", said.get("dup", False))
                check((told.ep, told.off, told.id, told.dup) == place, who)
                check(isinstance(asked, ClientPublish) and asked.mid in (None, told.mid), who)
            else:
                check((told.type, msgspec.json.decode(told.payload)) == (heard.type, said), who)
        elif told.code == "closed":
            self._given_up = who
        elif told.code != TOO_LARGE or heard is not None:
            refused = heard is not None and heard.type == "$err" and heard.payload.get("code") == told.code
            final = not is_publish or (refused and heard is not None and not heard.payload.get("retry"))
            check((refused and final) or told.code == INTERNAL, who)

    # ---- in between -------------------------------------------------------------------------------

    def check_positions(self) -> None:
        """What its machine says of its positions is what was told and handled."""
        check(not self._given_up or self._asked_to_stop, f"{self._given_up}, and the client goes on")
        self._given_up = ""
        for book in self._books.values():
            book.settle()
        handled = {name: book.handled for name, book in self._books.items() if book.handled is not None}
        told = {name: book.at for name, book in self._books.items() if book.at is not None}
        machine = self._machine
        check(machine.positions == handled, f"{self._who} has handled {machine.positions}, expected {handled}")
        check(machine.cursors == told, f"{self._who} is at {machine.cursors}, expected {told}")

    def check_alive(self, reads: bool) -> None:
        """A connection that gives no byte is noticed."""
        config = self._config
        if not reads or not self._is_open:
            self._heard_at = self._clock()
            return
        silent = self._clock() - self._heard_at
        most = config.ping_interval_s + config.ping_timeout_s + _LATE_S
        check(
            silent <= most,
            f"{self._who} heard nothing for {silent:.3f} s and did not notice, expected {most:.3f} at most",
        )
