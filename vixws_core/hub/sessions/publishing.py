"""Publishes: from a client or the application, through the log, to the answer (PROTOCOL §4)."""

from __future__ import annotations

from hashlib import blake2b

from ...effects import Published, PublishFailed, StoreAppend
from ...entries import check_head, check_payload
from ...errors import BadRoom, LocalError
from ...inputs import Publish, StoreAppended, StoreFailed
from ...names import check_name
from ...wire import envelope as wire
from ...wire.envelope import Envelope
from ..asks import AppendAsked, Asks
from ..connection.outbox import Outbox
from ..connection.reading import Reading
from ..model import OPEN, Session
from ..rooms.members import Members
from ..step import Step
from .grants import Grants
from .lifecycle import Lifecycle
from .rates import Rates

__all__ = ["Publishing"]


class Publishing:
    """Asks the log to append, and tells publishers what became of it."""

    __slots__ = ("_asks", "_grants", "_lifecycle", "_members", "_outbox", "_rates", "_reading", "_step")

    def __init__(
        self,
        step: Step,
        reading: Reading,
        outbox: Outbox,
        asks: Asks,
        members: Members,
        lifecycle: Lifecycle,
        rates: Rates,
        grants: Grants,
    ) -> None:
        self._step = step
        self._reading = reading
        self._outbox = outbox
        self._asks = asks
        self._members = members
        self._lifecycle = lifecycle
        self._rates = rates
        self._grants = grants

    def publish_from(self, session: Session, envelope: Envelope) -> None:
        """A client's publish: a top-level `room` (PROTOCOL §1). Raises: `BadRoom`."""
        assert envelope.room is not None  # That makes it a publish.
        if session.identity is None and envelope.room[:1] == "@":
            raise BadRoom(f"room {envelope.room!r:.60} is reserved: there is nobody here whose room it could be")
        ask = Publish(
            check_name(envelope.room),
            envelope.type,
            bytes(envelope.payload),
            envelope.kind,
            envelope.mid,
            conn=session.connection.id,
            ref=envelope.ref,
        )
        self._publish(ask, session)

    def publish_asked(self, input: Publish) -> None:
        """The application's publish.

        Raises: `BadRoom`, also for another user's room in the name of a session without a grant for it: the name may
        come from a client. `LocalError` for what no client could publish: its type, kind, `mid` or payload; and in the
        name of a session that is over, which has none any more: it must not become the server's own.
        """
        config = self._step.config
        check_name(input.room)
        check_head(input.type, input.kind, input.mid, input.ref)
        check_payload(input.payload, config.message_bytes_max, config.json_depth_max)
        connection = None if input.conn is None else self._step.connections.get(input.conn)
        session = None if connection is None else connection.session
        if input.conn is not None and session is None:
            raise LocalError(f"session {input.conn} is over: expected one that is there, or the server's own name")
        if session is not None and input.room[0] == "@" and not self._may_write(session, input.room):
            raise BadRoom(f"room {input.room!r:.60} is another user's: expected a grant, or the server's own name")
        self._publish(input, session)

    def _may_write(self, session: Session, room: str) -> bool:
        identity = session.identity
        return identity is not None and (identity.owns(room) or self._grants.holds(session, "publish", room))

    def _publish(self, ask: Publish, session: Session | None) -> None:
        step = self._step
        ref = None if session is None else ask.ref
        sender = None if session is None or session.identity is None else session.identity.user
        if not ask.store or not self._members.is_stored(ask.room):
            text = wire.room_message(ask.type, ask.room, ask.payload, ask.kind, ask.mid, sender)
            self._members.broadcast_unstored(ask.room, text)
            if session is not None and (ref is not None or ask.mid is not None):
                payload = {"mid": ask.mid} if ask.mid else {}
                self._outbox.answer(session.connection, wire.answer("$ack", ref, ask.room, payload))
            if ask.request is not None:
                step.out.append(Published(ask.request, ask.room, "", 0, "", False))
            return
        conn = None if session is None else session.connection.id
        request = self._asks.put(AppendAsked(ask.room, conn, ref, ask.mid, ask.request))
        digest = None
        if ask.mid is not None:
            # Over what the client sent: a guard that stamps the time does not make a repeat another message.
            digest = _digest(ask.kind, ask.type, ask.payload if ask.sent is None else ask.sent)
        scope = ""
        if session is not None:
            scope = session.scope if sender is None else session.identity.scope  # type: ignore[union-attr] # it has a user
            self._reading.owe(session)
        step.out.append(StoreAppend(request, ask.room, ask.kind, ask.type, ask.payload, ask.mid, digest, scope, sender))

    # ---- what became of it ------------------------------------------------------------------------

    def appended(self, asked: AppendAsked, input: StoreAppended) -> None:
        """Tells a publisher that its message is stored."""
        connection = None if asked.conn is None else self._step.connections.get(asked.conn)
        if connection is not None and (session := connection.session) is not None:
            self._reading.paid(session)
            if input.off == 1 and not input.dup:
                self._rates.new_room(session)
            if asked.ref is not None or asked.mid is not None:
                barred = session.identity is not None and self._grants.is_barred(session, asked.room)
                self._outbox.answer(connection, _bare_ack(asked) if barred else _ack(asked, input))
            if connection.state is not OPEN or self._lifecycle.draining:
                self._lifecycle.settle(connection)
        if asked.request is not None:
            told = Published(asked.request, asked.room, input.ep, input.off, input.id, input.dup)
            self._step.out.append(told)

    def failed(self, asked: AppendAsked, input: StoreFailed) -> None:
        """Tells a publisher that the store could not."""
        connection = None if asked.conn is None else self._step.connections.get(asked.conn)
        if connection is not None and (session := connection.session) is not None:
            self._reading.paid(session)
            # A client's publish is never lost in silence; the application that asked is told below.
            if asked.ref is not None or asked.request is None:
                told = wire.store_error(input.code, input.message)
                room = None if self._grants.is_barred(session, asked.room) else asked.room
                text = wire.error(input.code, told, asked.ref, room, input.retry, input.expected)
                self._outbox.answer(connection, text)
            self._lifecycle.settle(connection)
        if asked.request is not None:
            failed = PublishFailed(asked.request, asked.room, input.code, input.message, input.retry, input.expected)
            self._step.out.append(failed)


def _digest(kind: str, type: str, payload: bytes) -> bytes:
    """What makes two messages with the same key the same: 16 bytes over kind, type and payload."""
    head = f"{len(kind)}:{kind}{len(type)}:{type}".encode()
    return blake2b(head + payload, digest_size=16).digest()


def _bare_ack(asked: AppendAsked) -> bytes:
    """That it is stored, and not a word of the room, for a session that was put out of it."""
    return wire.answer("$ack", asked.ref, payload={} if asked.mid is None else {"mid": asked.mid})


def _ack(asked: AppendAsked, input: StoreAppended) -> bytes:
    payload: dict[str, object] = {"ep": input.ep, "off": input.off, "id": input.id, "dup": input.dup}
    if asked.mid is not None:
        payload = {"mid": asked.mid, **payload}
    return wire.answer("$ack", asked.ref, asked.room, payload)
