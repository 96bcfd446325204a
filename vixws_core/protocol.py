"""What clients ask of the hub itself: `$` messages and publishes, and the store's answers to them."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from . import wire
from .effects import (
    FindPosition,
    HistoryListed,
    ListStore,
    MessageSkipped,
    PeerMisbehaved,
    Published,
    PublishFailed,
    ReadStore,
    StoreAppend,
)
from .errors import BadMessage, LocalError, Refused
from .inputs import (
    Join,
    ListHistory,
    PositionKnown,
    Publish,
    Refuse,
    Since,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
)
from .names import check_room
from .state import Conn, HubState, Pause, Phase
from .wire.envelope import Envelope
from .wire.payloads import HelloPayload, HistoryPayload, JoinPayload

if TYPE_CHECKING:
    from .deadlines import Deadlines
    from .rooms import Rooms
    from .session import Sessions

__all__ = ["Protocol"]

_NO_OFFSET: Final = 1 << 53


class _Append(msgspec.Struct, frozen=True, gc=False):
    """A publish on its way to the log: whom to answer."""

    room: str
    conn: int | None
    ref: str | None
    mid: str | None
    request: int | None


class _Question(msgspec.Struct, frozen=True, gc=False):
    """A client's `$history` or `$position` on its way to the store."""

    conn: int
    ref: str | None
    room: str
    newest_first: bool
    weight: int


class Protocol:
    """Answers clients and the application."""

    __slots__ = ("_lists", "_questions", "_state", "_takes", "appends", "deadlines", "rooms", "sessions")

    deadlines: Deadlines
    rooms: Rooms
    sessions: Sessions

    def __init__(self, state: HubState) -> None:
        self._state = state
        self.appends: dict[int, _Append] = {}
        self._questions: dict[int, _Question] = {}
        self._lists: dict[int, tuple[int, int | None]] = {}
        """The application's questions: its request, and the connection that it is for."""
        self._takes = {
            "$hello": self._hello,
            "$ping": self._ping,
            "$join": self._join,
            "$leave": self._leave,
            "$history": self._history,
            "$position": self._position,
        }

    def take(self, conn: Conn, envelope: Envelope) -> None:
        """Handles one message that is the hub's business; of a connection that is gone only its publishes are."""
        if conn.gone and envelope.type[0] == "$":
            return
        try:
            if envelope.type[0] != "$":
                conn.heard = True
                self._publish_from(conn, envelope)
                return
            handle = self._takes.get(envelope.type)
            if handle is not None:
                handle(conn, envelope)
            elif envelope.ref is not None:
                raise BadMessage("unknown_type", f"expected one of {' '.join(self._takes)}")
            else:
                self._state.out.append(MessageSkipped(conn.id, "unknown_type"))
            if envelope.type != "$ping":
                conn.heard = True
        except (BadMessage, Refused) as exc:
            self.refuse(conn, exc.code, str(exc), envelope.ref, envelope.room)

    def refuse(self, conn: Conn, code: str, message: str, ref: str | None, room: str | None = None) -> None:
        """Answers a message that broke a rule; nobody else notices."""
        self._state.out.append(PeerMisbehaved(conn.id, code, message))
        self.sessions.answer(conn, wire.error(code, message, ref, room if room and len(room) <= 128 else None))

    def refuse_asked(self, input: Refuse) -> None:
        """The application refuses a message."""
        conn = self._state.conns.get(input.conn)
        if conn is not None:
            self.refuse(conn, input.code, input.message, input.ref)

    # ---- $ messages -----------------------------------------------------------------------------

    def _hello(self, conn: Conn, envelope: Envelope) -> None:
        if conn.heard or conn.hello:
            self._state.out.append(PeerMisbehaved(conn.id, "protocol_error", "a second or late $hello"))
            self.sessions.close(conn, 4002, "protocol_error: a second or late $hello")
            return
        hello = wire.decode_payload(HelloPayload, envelope.payload)
        if 1 not in hello.v:
            self._state.out.append(PeerMisbehaved(conn.id, "version", "no common version"))
            self.sessions.close(conn, 4010, "version: expected 1 in v")
            return
        state, config = self._state, self._state.config
        conn.hello = True
        if hello.pub:
            # No key of this process: a publish that is sent again after a restart must meet its own key.
            conn.scope = blake2b(hello.pub.encode(), digest_size=16, person=b"vixws scope").hexdigest()
        welcome: dict[str, object] = {
            "v": 1,
            "session": "s_" + state.token("session"),
            "resumed": False,
            "user": None,
            "caps": [],
            "limits": {
                "message_bytes": config.message_bytes_max,
                "rooms": config.rooms_max,
                "unsent_bytes": config.unsent_bytes_high,
            },
            "ping_ms": round(config.ping_interval_s * 1000),
            "reconnect_ms": self._reconnect_ms(),
            "durable": config.durable,
        }
        self.sessions.answer(conn, wire.answer("$welcome", envelope.ref, payload=welcome))

    def _reconnect_ms(self) -> int:
        """Over how long clients are told to spread their first reconnect (PROTOCOL §2)."""
        config = self._state.config
        return round(1000 * max(config.reconnect_first_s, 1.25 * self._state.sessions / config.handshakes_per_s))

    def _ping(self, conn: Conn, envelope: Envelope) -> None:
        payload = {"reconnect_ms": self._reconnect_ms()}
        self.sessions.answer(conn, wire.answer("$pong", envelope.ref, payload=payload))

    def _room_of(self, envelope: Envelope) -> str:
        if envelope.room is None:
            raise BadMessage("bad_message", f"expected a room beside {envelope.type}")
        return check_room(envelope.room)

    def _join(self, conn: Conn, envelope: Envelope) -> None:
        room = self._room_of(envelope)
        asked = wire.decode_payload(JoinPayload, envelope.payload)
        if asked.on_fail not in ("head", "floor"):
            raise BadMessage("bad_message", f"on_fail must be head or floor, got {asked.on_fail!r:.60}")
        since = None if asked.since is None else Since(asked.since.ep, asked.since.off, asked.since.id)
        ask = Join(conn.id, room, since, asked.last, asked.on_fail == "floor")
        self.rooms.join(conn, ask, envelope.ref, True)

    def _leave(self, conn: Conn, envelope: Envelope) -> None:
        room = self._room_of(envelope)
        self.rooms.leave(conn, room)
        self.sessions.answer(conn, wire.answer("$left", envelope.ref, room))

    def _history(self, conn: Conn, envelope: Envelope) -> None:
        room = self._stored_room(envelope)
        asked = wire.decode_payload(HistoryPayload, envelope.payload)
        if asked.before is not None and asked.after is not None:
            raise BadMessage("bad_message", "expected before or after, not both")
        newest_first = asked.after is None
        after = 0 if asked.after is None else asked.after
        until = _NO_OFFSET if asked.before is None else max(0, asked.before - 1)
        request = self._ask(conn, envelope, room, newest_first, self._page_weight())
        size = self._state.config.message_bytes_max
        self._state.out.append(ReadStore(request, room, after, until, asked.limit, size, newest_first))

    def _position(self, conn: Conn, envelope: Envelope) -> None:
        room = self._stored_room(envelope)
        self._state.out.append(FindPosition(self._ask(conn, envelope, room), room))

    def _stored_room(self, envelope: Envelope) -> str:
        room = self._room_of(envelope)
        if not self.rooms.is_stored(room):
            raise BadMessage("unknown_room", f"room {room!r:.60} keeps no history")
        return room

    def _page_weight(self) -> int:
        """A question that is answered by a page counts as many: sixteen of them are all that may be unanswered."""
        return max(1, self._state.config.publishes_max // 16)

    def _ask(self, conn: Conn, envelope: Envelope, room: str, newest_first: bool = False, weight: int = 1) -> int:
        request = self._state.request()
        self._questions[request] = _Question(conn.id, envelope.ref, room, newest_first, weight)
        self._owe(conn, weight)
        return request

    def _asker(self, question: _Question) -> Conn | None:
        conn = self._state.conns.get(question.conn)
        if conn is not None:
            self._settle(conn, question.weight)
        return conn

    def history_read(self, input: StoreRead) -> None:
        """Answers `$history` with as many messages as fit into one (PROTOCOL §3)."""
        question = self._questions.pop(input.request, None)
        conn = None if question is None else self._asker(question)
        if question is None or conn is None:
            return
        # No server message exceeds message_bytes + 4 KiB; 1 KiB is kept for the page's own head.
        left = self._state.config.message_bytes_max + 3072
        messages: list[bytes] = []
        for row in input.rows:
            text = wire.stored_message(row)
            left -= len(text) + 1
            if left < 0 and messages:
                break
            messages.append(text)
        more = False
        if input.rows:
            last = input.rows[len(messages) - 1].off
            more = last > input.floor + 1 if question.newest_first else last < input.head
        page = b'{"messages":[%b],"more":%b}' % (b",".join(messages), b"true" if more else b"false")
        self.sessions.answer(conn, wire.answer("$page", question.ref, question.room, msgspec.Raw(page)))
        self._drain(conn)

    def position_known(self, input: PositionKnown) -> None:
        """Answers `$position`."""
        question = self._questions.pop(input.request, None)
        conn = None if question is None else self._asker(question)
        if question is None or conn is None:
            return
        payload = {"ep": input.ep, "head": input.head, "floor": input.floor, "id": input.id}
        self.sessions.answer(conn, wire.answer("$position", question.ref, question.room, payload))
        self._drain(conn)

    # ---- publishing -----------------------------------------------------------------------------

    def _publish_from(self, conn: Conn, envelope: Envelope) -> None:
        """A client's publish: a top-level `room` (PROTOCOL §1)."""
        assert envelope.room is not None
        room = check_room(envelope.room)
        payload = bytes(envelope.payload)
        self._publish(room, envelope.type, payload, envelope.kind, envelope.mid, True, conn, envelope.ref, None)

    def publish_asked(self, input: Publish) -> None:
        """The application's publish. Raises: `BadRoom`, `LocalError` for a type that is the protocol's."""
        check_room(input.room)
        if not input.type or input.type[0] == "$":
            raise LocalError(f"type must be a non-empty string that does not begin with $, got {input.type!r:.60}")
        conn = None if input.conn is None else self._state.conns.get(input.conn)
        ref = None if conn is None else input.ref
        self._publish(
            input.room, input.type, input.payload, input.kind, input.mid, input.store, conn, ref, input.request
        )

    def _publish(
        self,
        room: str,
        type: str,
        payload: bytes,
        kind: str,
        mid: str | None,
        store: bool,
        conn: Conn | None,
        ref: str | None,
        app_request: int | None,
    ) -> None:
        state = self._state
        if not store or not self.rooms.is_stored(room):
            self.rooms.broadcast_unstored(room, wire.room_message(type, room, payload, kind, mid))
            if conn is not None and (ref is not None or mid is not None):
                self.sessions.answer(conn, wire.answer("$ack", ref, room, {"mid": mid} if mid else {}))
            if app_request is not None:
                state.out.append(Published(app_request, room, "", 0, "", False))
            return
        request = state.request()
        digest = None if mid is None else _digest(kind, type, payload)
        scope = conn.scope if conn is not None else ""
        self.appends[request] = _Append(room, None if conn is None else conn.id, ref, mid, app_request)
        if conn is not None:
            self._owe(conn)
        state.out.append(StoreAppend(request, room, kind, type, payload, mid, digest, scope))

    def _owe(self, conn: Conn, weight: int = 1) -> None:
        conn.owed += weight
        if conn.owed >= self._state.config.publishes_max:
            self.sessions.pause(conn, Pause.OWED)

    def _settle(self, conn: Conn, weight: int = 1) -> None:
        conn.owed -= weight
        if conn.pauses & Pause.OWED and conn.owed <= self._state.config.publishes_max // 2:
            self.sessions.resume(conn, Pause.OWED)

    def _drain(self, conn: Conn) -> None:
        """An answer was the last thing that a hub which shuts down had to wait for, perhaps."""
        if self._state.draining:
            self.deadlines.drain(conn)

    def appended(self, input: StoreAppended) -> None:
        """Tells a publisher that its message is stored (PROTOCOL §4)."""
        append = self.appends.pop(input.request, None)
        if append is None:
            return
        if append.conn is not None and (conn := self._state.conns.get(append.conn)) is not None:
            self._settle(conn)
            if append.ref is not None or append.mid is not None:
                self.sessions.answer(conn, _ack(append, input))
            self._drain(conn)
        if append.request is not None:
            self._state.out.append(Published(append.request, append.room, input.ep, input.off, input.id, input.dup))

    def failed(self, input: StoreFailed) -> None:
        """Tells whoever asked that the store could not."""
        told = wire.store_error(input.code, input.message)
        append = self.appends.pop(input.request, None)
        if append is not None:
            if append.conn is not None and (conn := self._state.conns.get(append.conn)) is not None:
                self._settle(conn)
                # A client's publish is never lost in silence; the application that asked is told below.
                if append.ref is not None or append.request is None:
                    text = wire.error(input.code, told, append.ref, append.room, input.retry)
                    self.sessions.answer(conn, text)
                self._drain(conn)
            if append.request is not None:
                self._state.out.append(
                    PublishFailed(append.request, append.room, input.code, input.message, input.retry)
                )
        elif (question := self._questions.pop(input.request, None)) is not None:
            asker = self._asker(question)
            if asker is not None:
                text = wire.error(input.code, told, question.ref, question.room, input.retry)
                self.sessions.answer(asker, text)
                self._drain(asker)
        elif (request := self._take_list(input.request)) is not None:
            self._state.out.append(HistoryListed(request, (), input.code, input.message))

    # ---- the application's history --------------------------------------------------------------

    def list_asked(self, input: ListHistory) -> None:
        """The application asks for stored messages. Raises: `BadRoom`."""
        check_room(input.room)
        request = self._state.request()
        conn = None if input.conn is None else self._state.conns.get(input.conn)
        self._lists[request] = (input.request, None if conn is None else conn.id)
        if conn is not None:
            self._owe(conn, self._page_weight())
        self._state.out.append(ListStore(request, input.room, input.limit, input.before_id))

    def listed(self, input: StoreListed) -> None:
        """Answers the application's question."""
        request = self._take_list(input.request)
        if request is not None:
            self._state.out.append(HistoryListed(request, input.rows))

    def _take_list(self, request: int) -> int | None:
        asked, id = self._lists.pop(request, (None, None))
        conn = None if id is None else self._state.conns.get(id)
        if conn is not None:
            self._settle(conn, self._page_weight())
            if self._state.draining and conn.phase is Phase.OPEN:
                self._state.ready[conn.id] = None  # Drained in the next step, behind what the application answers.
        return asked


def _digest(kind: str, type: str, payload: bytes) -> bytes:
    """What makes two messages with the same key the same: 16 bytes over kind, type and payload."""
    head = f"{len(kind)}:{kind}{len(type)}:{type}".encode()
    return blake2b(head + payload, digest_size=16).digest()


def _ack(append: _Append, input: StoreAppended) -> bytes:
    payload: dict[str, object] = {"ep": input.ep, "off": input.off, "id": input.id, "dup": input.dup}
    if append.mid is not None:
        payload = {"mid": append.mid, **payload}
    return wire.answer("$ack", append.ref, append.room, payload)
