"""Open questions: what was asked of the world, for whom, and what to do with the answer.

Whoever asks keeps one record here, under a fresh number; the answer gives the record back, once.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from ..inputs import EntryRedacted, StoreListed, StoreRead
from ..log import REDACTED_PAYLOAD
from .lookup import HistoryAsked
from .model import Member

__all__ = [
    "AppendAsked",
    "Ask",
    "Asks",
    "CursorAsked",
    "GrantAsked",
    "HistoryAsked",
    "ListAsked",
    "MembershipAsked",
    "PageAsked",
    "PositionAsked",
    "ProofAsked",
]


class AppendAsked(msgspec.Struct, frozen=True, gc=False):
    """A publish on its way to the log: whom to answer, a client (`conn`, `ref`), the application (`request`)."""

    room: str
    conn: int | None
    ref: str | None
    mid: str | None
    request: int | None


class CursorAsked(msgspec.Struct, frozen=True):
    """Where a member's cursor starts; with the room's epoch, position and changes when it was asked."""

    member: Member
    ep: str
    pos: int
    changes: int


class PageAsked(msgspec.Struct, frozen=True):
    """A page that members lack: the room and its `changes`, behind which offset, up to which, and how many bytes.

    `members` grows while the page is on its way: an identical read is asked for once. `load`: what the read weighs.
    """

    key: tuple[str, int, int, int]
    until: int
    members: list[Member]
    load: int


class PositionAsked(msgspec.Struct, frozen=True, gc=False):
    """A client's `$position`."""

    conn: int
    ref: str | None
    room: str


class ListAsked(msgspec.Struct, frozen=True, gc=False):
    """The application's question for stored messages: its own number, and the connection that it is for."""

    request: int
    conn: int | None
    weight: int
    room: str


class ProofAsked(msgspec.Struct, frozen=True, gc=False):
    """Who shows a token in a message."""

    conn: int


class GrantAsked(msgspec.Struct, frozen=True, gc=False):
    """Whether a message may do what it wants to, which waits for that."""

    conn: int
    action: str
    room: str
    revision: int


class MembershipAsked(msgspec.Struct, frozen=True):
    """Whether a member may stay; `code`: what it is told if not; `renewal`: a new proof is why."""

    member: Member
    code: str
    renewal: bool
    revision: int


Ask = (
    AppendAsked
    | CursorAsked
    | PageAsked
    | HistoryAsked
    | PositionAsked
    | ListAsked
    | ProofAsked
    | GrantAsked
    | MembershipAsked
)
"""Whatever was asked."""


Rows = TypeVar("Rows", StoreRead, StoreListed)


class Asks:
    """The questions of one hub that are not answered."""

    __slots__ = ("_last", "_open", "appends", "redactions")

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, Ask] = {}
        self.redactions: list[tuple[tuple[int, str], set[int]]] = []
        """Entries that were redacted while they may have been read, by offset and id, and the numbers of the reads."""
        self.appends: int = 0
        """Open appends: a hub that shuts down waits for them."""

    def put(self, ask: Ask) -> int:
        """Keeps a question; returns its number."""
        self._last = number = self._last + 1
        self._open[number] = ask
        if type(ask) is AppendAsked:
            self.appends += 1
        return number

    def take(self, number: int) -> Ask | None:
        """Gives a question back and forgets it; None where there is none with this number."""
        ask = self._open.pop(number, None)
        if type(ask) is AppendAsked:
            self.appends -= 1
        return ask

    # ---- what was read just before it was taken back ------------------------------------------------

    def redacted(self, input: EntryRedacted) -> None:
        """An entry was redacted: a read that is under way may bring what it was before."""
        reads = {number for number, ask in self._open.items() if _room_read(ask) == input.room}
        if reads:
            self.redactions.append(((input.off, input.id), reads))

    def as_now(self, input: Rows) -> Rows:
        """The answer to a read, with the entries as they are now."""
        places = {place for place, reads in self.redactions if input.request in reads}
        self.ended(input.request)
        if not places:
            return input
        rows = (
            replace(row, payload_json=REDACTED_PAYLOAD) if (row.off, row.id) in places else row for row in input.rows
        )
        return replace(input, rows=tuple(rows))

    def ended(self, number: int) -> None:
        """A read was answered, or failed."""
        for _, reads in self.redactions:
            reads.discard(number)
        self.redactions = [(place, reads) for place, reads in self.redactions if reads]


def _room_read(ask: Ask) -> str | None:
    """The room of which an ask reads messages."""
    if isinstance(ask, PageAsked):
        return ask.key[0]
    return ask.room if isinstance(ask, HistoryAsked | ListAsked) else None
