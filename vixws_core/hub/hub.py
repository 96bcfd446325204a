"""The hub: one pure state machine that decides everything, behind one door.

How it works, for whoever changes it.

A hub is a function of its inputs: `handle(input, now)` takes one record and returns, in order, what must be done. It
has no clock, no chance and no IO, so its inputs with their times are its history, and any incident can be run again.
Records that ask are imperative (`Join`, `SendBytes`), records that tell are past (`BytesReceived`, `Opened`). A peer's
fault is data (`PeerMisbehaved` and a close code), a caller's an exception (`LocalError`), the disk's an input
(`StoreFailed`). Nothing that a peer sends makes `handle` raise.

Three laws keep the inside simple, and tests hold them:

1. Calls go down, facts come up (`tests/layers.py`). Each part is given what it may call in its constructor below. What
   a lower part finds out it returns, or leaves as a fact of the step: `step.parked` (connections that passed their
   mark, taken by the cursors before any room moves), `step.ready` (connections to look at in the next step) and
   `step.lost` (sessions whose connection was lost, which may come back).
2. One writer per field. The data is in `model.py`; for each field `tests/test_owners.py` names the one module that
   assigns it, all others read it or call its owner.
3. Allowed moves are a table. A connection's state is one field, and `MOVES` says what may follow what.

A peer has two halves. `Connection` is bytes: `connection/timers` knows when to look at it, `reading` whether it is
read, `outbox` what it is sent. `Session` is messages: `sessions/lifecycle` ends it, `identity` knows who it is and
`grants` what it may do, `rates` how much, `publishing` and `history` ask the log for it, `requests` answers its `$`
messages, `inbox` gives each message its turn; one that needs a grant which is not known waits first in line. Between
them stand the rooms: a room is a log, a member is one integer in it, and `rooms/cursors` is the only thing that moves
either; `members` asks the log for positions, `pages` for pages.

The path of one publish:

    BytesReceived   arrivals gives the bytes to the inbox, whose reader takes whole frames; each text becomes an
                    envelope with a raw payload, and waits its turn behind a busy handler. One that a guard wants
                    goes to the application first; any other with a room requests hands to publishing, which checks
                    it, keeps whom to answer (asks), and asks StoreAppend. Nobody has seen it yet.
    RoomAdvanced    the log has it, at the room's next offset. cursors encodes it once, keeps it in the room's tail, and
                    shares the same bytes with all live members: one Broadcast (for each 64 KiB and codec). Whoever
                    is over its mark by that is parked: its cursor stays, and costs nothing until it reads again.
    StoreAppended   asks gives back whom to answer: `$ack`, or Published for the application.
    BytesFlushed    outboxes shrank. Who was parked, or is behind, reads on: from the tail, or a page of the store.
    TimePassed      deadlines acts on whose time has come, and on bytes that waited.

Answers of the world go to whoever asked: `asks.take(number)` gives back the record that was kept, and its type says
who. Time costs a message two stores: heap entries are armed lazily and put back when they fire early.

To add a feature: a new record in `inputs.py` or `effects.py`; its data in `model.py`, each field with an owner; its
code in a module at the height where it may call what it needs, with a line in `tests/layers.py`; a row in the dispatch
below; an oracle in `testing/` that fails without it, and a bug in `tests/core/test_planted_bugs.py` that it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import HubConfig, Policy
from ..effects import Effect
from ..errors import LocalError
from ..inputs import (
    Accept,
    Authenticated,
    Authorized,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    EntryRedacted,
    HandlerFinished,
    Input,
    Join,
    Leave,
    LeaveAll,
    ListHistory,
    PositionKnown,
    Publish,
    Refuse,
    Respond,
    Revoke,
    RoomAdvanced,
    Send,
    SendToAll,
    Shutdown,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
    TimePassed,
)
from .arrivals import Arrivals
from .asks import (
    AppendAsked,
    Asks,
    CursorAsked,
    GrantAsked,
    HistoryAsked,
    ListAsked,
    MembershipAsked,
    PageAsked,
    PositionAsked,
    ProofAsked,
)
from .connection.outbox import Outbox
from .connection.reading import Reading
from .connection.timers import Timers
from .deadlines import Deadlines
from .model import SENDABLE, ConnectionState
from .place import Place, place_of
from .rooms.cursors import Cursors
from .rooms.members import Members
from .rooms.pages import Pages
from .rooms.unstored import Unstored
from .sessions.grants import Grants
from .sessions.history import History
from .sessions.identity import Identities
from .sessions.inbox import Inbox
from .sessions.lifecycle import Lifecycle
from .sessions.publishing import Publishing
from .sessions.rates import Rates
from .sessions.requests import Requests
from .sessions.resume import Resume
from .step import Step

__all__ = ["Hub"]


class Hub:
    """Rooms, sessions and the wire protocol, without IO.

    `handle(input, now)` is the only thing that changes it: it returns what must be done, in order. `now` is
    in monotonic seconds and never goes back. Tokens come from `secret`, or from `seed` where none is given, so that
    the same inputs give the same effects; a server draws it at random.
    """

    __slots__ = (
        "_asks",
        "_cursors",
        "_deadlines",
        "_dispatch",
        "_grants",
        "_history",
        "_identities",
        "_inbox",
        "_lifecycle",
        "_members",
        "_outbox",
        "_publishing",
        "_rates",
        "_reading",
        "_resume",
        "_step",
    )

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        seed: bytes = b"\0",
        secret: bytes | None = None,
        policy: Policy | None = None,
    ) -> None:
        if not 1 <= len(seed) <= 64 or (secret is not None and not 1 <= len(secret) <= 64):
            raise LocalError("seed and secret must have 1 to 64 bytes")
        step = self._step = Step(config or HubConfig(), secret if secret is not None else seed)
        # From the bottom up: each part is given what it may call.
        asks = self._asks = Asks()
        timers = Timers(step)
        reading = self._reading = Reading(step, timers)
        outbox = self._outbox = Outbox(step, timers, reading)
        unstored = Unstored(outbox)
        pages = Pages(step, timers, asks)
        cursors = self._cursors = Cursors(step, outbox, unstored, pages)
        members = self._members = Members(step, outbox, unstored, asks, pages, cursors)
        rates = self._rates = Rates(step, reading)
        lifecycle = self._lifecycle = Lifecycle(step, timers, reading, outbox, asks, members, rates)
        policy = policy or Policy()
        grants = self._grants = Grants(step, timers, outbox, asks, members, lifecycle, rates, policy)
        identities = self._identities = Identities(step, outbox, asks, lifecycle, rates, grants, policy)
        publishing = self._publishing = Publishing(step, reading, outbox, asks, members, lifecycle, rates, grants)
        history = self._history = History(step, reading, outbox, asks, pages, members, lifecycle, rates, grants)
        resume = self._resume = Resume(step, lifecycle)
        requests = Requests(step, outbox, members, lifecycle, rates, grants, identities, publishing, history, resume)
        inbox = self._inbox = Inbox(step, timers, reading, outbox, lifecycle, rates, requests)
        arrivals = Arrivals(step, timers, reading, outbox, lifecycle, identities, rates, inbox)
        deadlines = Deadlines(step, timers, reading, outbox, members, lifecycle, identities, inbox)
        self._deadlines = deadlines
        self._dispatch: dict[type, Callable[[Any], object]] = {
            BytesReceived: arrivals.received,
            BytesFlushed: cursors.flushed,
            Send: outbox.send_asked,
            HandlerFinished: inbox.finished,
            Connected: arrivals.connected,
            Disconnected: lifecycle.disconnected,
            Accept: arrivals.accept,
            Respond: arrivals.respond,
            Close: lifecycle.close_asked,
            Join: members.join_asked,
            Leave: members.leave_asked,
            LeaveAll: members.leave_all_asked,
            SendToAll: outbox.send_to_all,
            Publish: publishing.publish_asked,
            ListHistory: history.list_asked,
            Refuse: requests.refuse_asked,
            Revoke: grants.revoke,
            Authenticated: self._authenticated,
            Authorized: self._authorized,
            StoreAppended: self._appended,
            StoreFailed: self._store_failed,
            StoreRead: self._store_read,
            StoreListed: self._listed,
            PositionKnown: self._position_known,
            RoomAdvanced: cursors.advanced,
            EntryRedacted: members.redacted,
            Shutdown: lifecycle.shutdown,
            TimePassed: deadlines.time_passed,
        }

    # ---- the door -------------------------------------------------------------------------------

    def handle(self, input: Input, now: float) -> list[Effect]:
        """Takes one input at the time `now` and returns what must be done, in order.

        Nothing that a peer sends makes it raise. Raises: `LocalError` for a command that its caller should
        not have given; such a command changes nothing.
        """
        step = self._step
        step.now = now
        out: list[Effect] = []
        step.out = out
        self._dispatch[type(input)](input)
        if self._lifecycle.draining:
            self._lifecycle.check_drained()
        return out

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due: a time that is not after `now` means at once, in the next tick."""
        return self._deadlines.next()

    # ---- what can be seen without changing anything ---------------------------------------------

    @property
    def config(self) -> HubConfig:
        """The limits and delays it obeys."""
        return self._step.config

    @property
    def sessions(self) -> int:
        """Open WebSockets."""
        return self._lifecycle.sessions

    @property
    def connections(self) -> int:
        """Connections of any kind, those in a handshake or closing included."""
        return len(self._step.connections)

    @property
    def draining(self) -> bool:
        """Whether `Shutdown` was asked."""
        return self._lifecycle.draining

    @property
    def unsent_bytes(self) -> int:
        """Bytes in all outboxes."""
        return self._outbox.unsent_total

    @property
    def received_bytes(self) -> int:
        """Bytes that were received and are not handled yet, of all connections."""
        return self._reading.received_total

    @property
    def users_remembered(self) -> int:
        """Users whose allowances are remembered, those included who are gone for a while."""
        return self._rates.remembered

    @property
    def sessions_remembered(self) -> int:
        """Sessions that said `$hello` and are open, or may be taken up again (PROTOCOL §2)."""
        return self._resume.remembered

    @property
    def debts_remembered(self) -> int:
        """Addresses and users whose connections ended with less than all of their allowances, not long ago."""
        return self._rates.debts

    @property
    def tail_bytes(self) -> int:
        """Bytes of newest messages that rooms keep at hand."""
        return self._cursors.tail_bytes

    @property
    def timers(self) -> int:
        """Entries in the heap of deadlines: one for each connection, and a bounded number of replaced ones."""
        return self._deadlines.timers

    def rooms(self) -> list[str]:
        """Names of the rooms that have members, sorted."""
        return sorted(self._step.rooms)

    def members(self, room: str) -> tuple[int, ...]:
        """The connections in a room, in the order of joining."""
        found = self._step.rooms.get(room)
        return tuple(found.members) if found is not None else ()

    def place_of(self, conn: int, room: str) -> Place | None:
        """How a connection stands in a room; None where it is no member."""
        found = self._step.rooms.get(room)
        member = None if found is None else found.members.get(conn)
        return None if member is None else place_of(member, self._step.now)

    def rooms_of(self, conn: int) -> tuple[str, ...]:
        """The rooms of a connection, in the order of joining."""
        found = self._step.connections.get(conn)
        session = None if found is None else found.session
        return tuple(session.memberships or ()) if session is not None else ()

    def state_of(self, conn: int) -> ConnectionState | None:
        """Where a connection is in its life; None where it is over, or never was."""
        found = self._step.connections.get(conn)
        return None if found is None else found.state

    def is_open(self, conn: int) -> bool:
        """Whether something can still be sent to the connection."""
        return self.state_of(conn) in SENDABLE

    def unsent_bytes_of(self, conn: int) -> int:
        """Bytes in the outbox of one connection."""
        found = self._step.connections.get(conn)
        return found.unsent if found is not None else 0

    def queued_messages_of(self, conn: int) -> int:
        """Messages of one connection that wait behind the one its application handles."""
        found = self._step.connections.get(conn)
        session = None if found is None else found.session
        return len(session.queue or ()) if session is not None else 0

    # ---- answers of the world: to whoever asked ---------------------------------------------------

    def _appended(self, input: StoreAppended) -> None:
        asked = self._asks.take(input.request)
        if type(asked) is AppendAsked:
            self._publishing.appended(asked, input)

    def _store_read(self, input: StoreRead) -> None:
        if self._asks.redactions:
            input = self._asks.as_now(input)
        asked = self._asks.take(input.request)
        if type(asked) is PageAsked:
            self._cursors.read(asked, input)
        elif type(asked) is HistoryAsked:
            self._history.history_read(asked, input)

    def _position_known(self, input: PositionKnown) -> None:
        asked = self._asks.take(input.request)
        if type(asked) is CursorAsked:
            self._members.position_known(asked, input)
            self._lifecycle.settle(asked.member.connection)
        elif type(asked) is PositionAsked:
            self._history.position_known(asked, input)

    def _listed(self, input: StoreListed) -> None:
        if self._asks.redactions:
            input = self._asks.as_now(input)
        asked = self._asks.take(input.request)
        if type(asked) is ListAsked:
            self._history.listed(asked, input)

    def _authenticated(self, input: Authenticated) -> None:
        asked = self._asks.take(input.request)
        session = self._identities.answered(asked, input) if type(asked) is ProofAsked else None
        if session is not None:
            self._inbox.go_on(session)
            self._identities.forget_proof(session)

    def _authorized(self, input: Authorized) -> None:
        asked = self._asks.take(input.request)
        if type(asked) is MembershipAsked:
            self._grants.stays(asked, input)
        elif type(asked) is GrantAsked and (session := self._grants.decided(asked, input)) is not None:
            self._inbox.go_on(session)
            self._grants.forget_verdict(session)

    def _store_failed(self, input: StoreFailed) -> None:
        self._asks.ended(input.request)
        asked = self._asks.take(input.request)
        if type(asked) is AppendAsked:
            self._publishing.failed(asked, input)
        elif type(asked) is PageAsked:
            self._cursors.read_failed(asked)
        elif type(asked) is CursorAsked:
            self._members.position_failed(asked, input)
            self._lifecycle.settle(asked.member.connection)
        elif type(asked) is HistoryAsked or type(asked) is PositionAsked:
            self._history.failed(asked, input)
        elif type(asked) is ListAsked:
            self._history.list_failed(asked, input)
