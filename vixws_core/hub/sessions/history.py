"""Questions about a room's log: `$history`, `$position`, and the application's own (PROTOCOL §3)."""

from __future__ import annotations

from typing import Final

import msgspec

from ...codes import BAD_MESSAGE, DENIED, UNKNOWN_ROOM
from ...effects import FindPosition, HistoryListed, ListStore
from ...errors import BadMessage
from ...inputs import ListHistory, PositionKnown, StoreFailed, StoreListed, StoreRead
from ...names import check_name
from ...wire import envelope as wire
from ...wire.payloads import HistoryPayload
from ..asks import Asks, HistoryAsked, ListAsked, PositionAsked
from ..connection.outbox import Outbox
from ..connection.reading import Reading
from ..model import ENDING, OPEN, Session
from ..rooms.members import Members
from ..rooms.pages import Pages, load_of
from ..step import Step
from .grants import Grants
from .lifecycle import Lifecycle
from .rates import ROWS_PER_ASK, Rates

__all__ = ["History"]

_NO_OFFSET: Final = 1 << 53


class History:
    """Asks the store what somebody wants to know, and answers them."""

    __slots__ = (
        "_asks",
        "_grants",
        "_lifecycle",
        "_members",
        "_outbox",
        "_page_weight",
        "_pages",
        "_rates",
        "_reading",
        "_step",
    )

    def __init__(
        self,
        step: Step,
        reading: Reading,
        outbox: Outbox,
        asks: Asks,
        pages: Pages,
        members: Members,
        lifecycle: Lifecycle,
        rates: Rates,
        grants: Grants,
    ) -> None:
        self._step = step
        self._reading = reading
        self._outbox = outbox
        self._asks = asks
        self._pages = pages
        self._members = members
        self._lifecycle = lifecycle
        self._rates = rates
        self._grants = grants
        self._page_weight = max(1, step.config.publishes_max // 16)
        """A question that is answered by a page counts as many: sixteen of them are all that may be unanswered."""

    # ---- a client's -------------------------------------------------------------------------------

    def history(self, session: Session, room: str, asked: HistoryPayload, ref: str | None) -> None:
        """A client asks for messages of a stored room. Raises: `BadMessage`."""
        if asked.before is not None and asked.after is not None:
            raise BadMessage(BAD_MESSAGE, "expected before or after, not both")
        newest_first = asked.after is None
        after = 0 if asked.after is None else asked.after
        until = _NO_OFFSET if asked.before is None else max(0, asked.before - 1)
        self._rates.asks(session, 1)
        self._reading.owe(session, self._page_weight)
        conn, weight, limit = session.connection.id, self._page_weight, asked.limit
        size = self._step.config.message_bytes_max
        load = load_of(limit, size)
        self._pages.look_up(
            session, HistoryAsked(conn, ref, room, newest_first, weight, after, until, limit, size, load)
        )

    def position(self, session: Session, room: str, ref: str | None) -> None:
        """A client asks where a room stands. Raises: `BadMessage`."""
        self.check_stored(room)
        self._rates.asks(session, 1)
        request = self._asks.put(PositionAsked(session.connection.id, ref, room))
        self._reading.owe(session)
        self._step.out.append(FindPosition(request, room))

    def check_stored(self, room: str) -> None:
        """Raises: `BadMessage` for a room that keeps no history."""
        if not self._members.is_stored(room):
            raise BadMessage(UNKNOWN_ROOM, f"room {room!r:.60} keeps no history")

    def history_read(self, asked: HistoryAsked, input: StoreRead) -> None:
        """Answers `$history`; the next ones are read afterwards, as the session may be parked by the answer."""
        self._answer_page(asked, input)
        self._pages.looked_up(asked)

    def _answer_page(self, asked: HistoryAsked, input: StoreRead) -> None:
        """Answers with as many messages as fit into one."""
        session = self._answered(asked.conn, asked.weight)
        if session is None or self._denied(session, asked):
            return
        self._rates.asks(session, len(input.rows) // ROWS_PER_ASK)
        # No server message exceeds message_bytes + 4 KiB; 1 KiB is kept for the page's own head.
        most = left = self._step.config.message_bytes_max + 3072
        messages: list[bytes] = []
        last = 0
        for row in input.rows:
            text = wire.stored_message(row)
            if len(text) + 1 > most or not wire.is_readable(row):
                text = wire.unreadable(row)
            left -= len(text) + 1
            if left < 0:
                break
            messages.append(text)
            last = row.off
        more = False
        if input.rows:
            more = last > input.floor + 1 if asked.newest_first else last < input.head
        page = b'{"messages":[%b],"more":%b}' % (b",".join(messages), b"true" if more else b"false")
        self._outbox.answer(session.connection, wire.answer("$page", asked.ref, asked.room, msgspec.Raw(page)))
        self._lifecycle.settle(session.connection)

    def position_known(self, asked: PositionAsked, input: PositionKnown) -> None:
        """Answers `$position`."""
        session = self._answered(asked.conn, 1)
        if session is not None and not self._denied(session, asked):
            payload = {"ep": input.ep, "head": input.head, "floor": input.floor, "id": input.id}
            self._outbox.answer(session.connection, wire.answer("$position", asked.ref, asked.room, payload))
            self._lifecycle.settle(session.connection)

    def failed(self, asked: HistoryAsked | PositionAsked, input: StoreFailed) -> None:
        """Tells a client that the store could not."""
        if isinstance(asked, HistoryAsked):
            self._pages.looked_up(asked)
        session = self._answered(asked.conn, asked.weight if isinstance(asked, HistoryAsked) else 1)
        if session is not None:
            told = wire.store_error(input.code, input.message)
            room = asked.room if self._grants.holds(session, "read", asked.room) else None
            self._outbox.answer(session.connection, wire.error(input.code, told, asked.ref, room, input.retry))
            self._lifecycle.settle(session.connection)

    def _denied(self, session: Session, asked: HistoryAsked | PositionAsked) -> bool:
        """Whether what was asked may not be read any more: a grant may end while the store looks."""
        if self._grants.holds(session, "read", asked.room):
            return False
        self._outbox.answer(session.connection, wire.error(DENIED, "not granted any more", asked.ref))
        self._lifecycle.settle(session.connection)
        return True

    def _answered(self, conn: int | None, weight: int) -> Session | None:
        connection = None if conn is None else self._step.connections.get(conn)
        session = None if connection is None else connection.session
        if session is not None:
            self._reading.paid(session, weight)
        return session

    # ---- the application's --------------------------------------------------------------------------

    def list_asked(self, input: ListHistory) -> None:
        """The application asks for stored messages. Raises: `BadRoom`."""
        check_name(input.room)
        connection = None if input.conn is None else self._step.connections.get(input.conn)
        session = None if connection is None else connection.session
        conn = None if session is None else session.connection.id
        request = self._asks.put(ListAsked(input.request, conn, self._page_weight, input.room))
        if session is not None:
            self._reading.owe(session, self._page_weight)
        self._step.out.append(ListStore(request, input.room, input.limit, input.before_id))

    def listed(self, asked: ListAsked, input: StoreListed) -> None:
        """Answers the application's question."""
        self._list_answered(asked)
        self._step.out.append(HistoryListed(asked.request, input.rows))

    def list_failed(self, asked: ListAsked, input: StoreFailed) -> None:
        """Tells the application that the store could not."""
        self._list_answered(asked)
        self._step.out.append(HistoryListed(asked.request, (), input.code, input.message))

    def _list_answered(self, asked: ListAsked) -> None:
        session = self._answered(asked.conn, asked.weight)
        if session is None:
            return
        connection = session.connection
        if connection.state is ENDING or (self._lifecycle.draining and connection.state is OPEN):
            # Ended in the next step, behind what the application answers.
            self._reading.come_back(connection)
