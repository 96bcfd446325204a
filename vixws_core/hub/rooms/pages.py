"""What is read of rooms' logs: pages for readers behind the tail, each once for all who want it, and `$history`.

The store is asked for a bounded amount at a time, for all sessions together: what it answers has to be encoded in one
turn of the loop, during which nobody else is served. The rest waits, and goes in turns: a page, a `$history` of the
next session. Who takes no bytes asks for none.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ...effects import ReadStore
from ..asks import Asks, PageAsked
from ..connection.timers import Timers
from ..lookup import HistoryAsked
from ..model import FAR, SENDABLE, Member, Room, Session
from ..step import Step

__all__ = ["READS_MAX", "REST_MOST", "ROW_BYTES", "Pages", "is_current", "load_of"]

READS_MAX: Final = 1_000
"""Rows under way from the store above which no more are asked for: some 5 ms of encoding, with one page on top."""

REST_MOST: Final = 16
"""How many times its first rest a room's rest may become."""

ROW_BYTES: Final = 4_096
"""So many bytes weigh as much as a row."""


def load_of(rows: int, size: int) -> int:
    """What a read weighs that may bring so many rows and bytes."""
    return max(1, rows, size // ROW_BYTES)


def is_current(member: Member) -> bool:
    """Whether a membership was neither ended nor replaced."""
    memberships = member.session.memberships
    return memberships is not None and memberships.get(member.room.name) is member


class Pages:
    """Asks for pages. A session waits for one at a time, and for any number of answers to `$history`."""

    __slots__ = ("_asks", "_page_next", "_shared", "_step", "_timers", "_turns", "_waiting", "under_way")

    def __init__(self, step: Step, timers: Timers, asks: Asks) -> None:
        self._step = step
        self._timers = timers
        self._asks = asks
        self._shared: dict[tuple[str, int, int, int], PageAsked] = {}
        """Pages on their way, by what is read: room, of which log, after which offset, how many bytes."""
        self._waiting: deque[PageAsked] = deque()
        """Pages that are not asked for yet: one for each session, at most."""
        self._turns: dict[int, Session] = {}
        """Sessions whose `$history` waits, in turn; not those that are parked."""
        self._page_next = True
        self.under_way: int = 0
        """Rows that the store was asked for and has not answered."""

    def ask(self, member: Member) -> None:
        """Reads the next page for a member; the same page that another one waits for is asked for once."""
        config, connection, room = self._step.config, member.connection, member.room
        member.session.page_pending = True
        size = min(config.page_bytes_max, config.unsent_bytes_low - connection.unsent)
        size = max(1, size - size % 16_384)  # In steps, so that readers who hold about the same share a read.
        key = (room.name, room.changes, member.cursor, size)
        page = self._shared.get(key)
        if page is not None:
            page.members.append(member)
            return
        load = max(1, min(config.page_rows_max, room.pos - member.cursor), size // ROW_BYTES)
        page = self._shared[key] = PageAsked(key, room.pos, [member], load)
        if self.under_way >= READS_MAX or self._waiting:
            self._waiting.append(page)
            return
        self.under_way += load
        request = self._asks.put(page)
        self._step.out.append(ReadStore(request, room.name, member.cursor, room.pos, config.page_rows_max, size))

    def answered(self, asked: PageAsked, *, read: bool = True) -> list[Member]:
        """A page came, or could not be read: returns who asked for it, and waits no more."""
        self._shared.pop(asked.key, None)
        for member in asked.members:
            member.session.page_pending = False
            if read:
                member.room.pause_s = 0.0
            else:
                self.rest(member.room)
        self.under_way -= asked.load
        if self._waiting or self._turns:
            self._go_on()
        return asked.members

    # ---- $history -----------------------------------------------------------------------------------

    def look_up(self, session: Session, asked: HistoryAsked) -> None:
        """Reads what a `$history` asks for, in the session's turn."""
        if session.lookups is None:
            session.lookups = deque()
        session.lookups.append(asked)
        self._turns[session.connection.id] = session
        self._go_on()

    def looked_up(self, asked: HistoryAsked) -> None:
        """A `$history` was read, or could not be."""
        self.under_way -= asked.load
        if self._waiting or self._turns:
            self._go_on()

    def unparked(self, session: Session) -> None:
        """It takes bytes again: what it asked for goes on."""
        if session.lookups:
            self._turns[session.connection.id] = session
            self._go_on()

    # ---- in turn ------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Asks for what waits, while little enough is under way: pages and `$history` by turns."""
        while self.under_way < READS_MAX and (self._waiting or self._turns):
            if self._waiting and (self._page_next or not self._turns):
                self._page_next = False
                self._read_page(self._waiting.popleft())
            else:
                self._page_next = True
                self._read_history(self._turns.pop(next(iter(self._turns))))

    def _read_page(self, page: PageAsked) -> None:
        room, _, after, size = page.key
        if not any(member.connection.state in SENDABLE for member in page.members):
            self._shared.pop(page.key, None)
            return
        self.under_way += page.load
        request, rows = self._asks.put(page), self._step.config.page_rows_max
        self._step.out.append(ReadStore(request, room, after, page.until, rows, size))

    def _read_history(self, session: Session) -> None:
        lookups, connection = session.lookups, session.connection
        assert lookups  # Else it had no turn.
        if connection.state not in SENDABLE:
            session.lookups = None
            return
        if connection.parked:
            return  # Its turn comes again when it takes bytes.
        asked = lookups.popleft()
        if lookups:
            self._turns[connection.id] = session
        else:
            session.lookups = None
        self.under_way += asked.load
        request = self._asks.put(asked)
        self._step.out.append(
            ReadStore(request, asked.room, asked.after, asked.until, asked.limit, asked.size, asked.newest_first)
        )

    # ---- again --------------------------------------------------------------------------------------

    def rest(self, room: Room) -> None:
        """Its log could not be read: it is left alone, each time for longer; other rooms go on."""
        now, config = self._step.now, self._step.config
        if now >= room.rests_until:
            most = REST_MOST * config.store_retry_s
            room.pause_s = min(most, 2 * room.pause_s) if room.pause_s else config.store_retry_s
            room.rests_until = now + room.pause_s

    def rests(self, room: Room, session: Session) -> bool:
        """Whether a room is left alone now; the session is looked at when that is over."""
        if self._step.now >= room.rests_until:
            return False
        session.retry_at = min(session.retry_at, room.rests_until)
        self._timers.arm(session.connection, room.rests_until)
        return True

    @staticmethod
    def well(room: Room) -> None:
        """Its log was read."""
        room.pause_s = 0.0

    @staticmethod
    def retried(session: Session) -> None:
        """The time has come: it is looked at."""
        session.retry_at = FAR
