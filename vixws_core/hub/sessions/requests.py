"""What clients ask of the hub itself: the `$` messages; a publish goes on to `publishing`."""

from __future__ import annotations

from hashlib import blake2b

from ...codes import (
    BAD_MESSAGE,
    CLOSE_BAD_PROTOCOL,
    CLOSE_VERSION,
    PROTOCOL_ERROR,
    UNKNOWN_TYPE,
    VERSION,
)
from ...effects import MessageSkipped, PeerMisbehaved
from ...errors import BadMessage, Refused
from ...inputs import Join, Refuse, Since
from ...names import check_room
from ...wire import envelope as wire
from ...wire.envelope import Envelope
from ...wire.payloads import HelloPayload, HistoryPayload, JoinPayload, decode_payload
from ..connection.outbox import Outbox
from ..model import GONE, Connection, Session
from ..rooms.members import Members
from ..step import Step
from .history import History
from .lifecycle import Lifecycle
from .publishing import Publishing

__all__ = ["Requests"]


class Requests:
    """Handles the messages that no handler needs."""

    __slots__ = ("_history", "_lifecycle", "_members", "_outbox", "_publishing", "_step", "_types")

    def __init__(
        self,
        step: Step,
        outbox: Outbox,
        members: Members,
        lifecycle: Lifecycle,
        publishing: Publishing,
        history: History,
    ) -> None:
        self._step = step
        self._outbox = outbox
        self._members = members
        self._lifecycle = lifecycle
        self._publishing = publishing
        self._history = history
        self._types = {
            "$hello": self._hello,
            "$ping": self._ping,
            "$join": self._join,
            "$leave": self._leave,
            "$history": self._read_history,
            "$position": self._find_position,
        }

    def handle(self, session: Session, envelope: Envelope) -> None:
        """Handles one message that is the hub's business; of a connection that is gone only its publishes are."""
        connection, type = session.connection, envelope.type
        if type[0] == "$" and connection.state is GONE:
            return
        try:
            if type[0] != "$":
                session.greeting_over = True
                self._publishing.publish_from(session, envelope)
                return
            handle = self._types.get(type)
            if handle is not None:
                handle(session, envelope)
            elif envelope.ref is not None:
                raise BadMessage(UNKNOWN_TYPE, f"expected one of {' '.join(self._types)}")
            else:
                self._step.out.append(MessageSkipped(connection.id, UNKNOWN_TYPE))
            if type != "$ping":
                session.greeting_over = True
        except (BadMessage, Refused) as exc:
            self.refuse(connection, exc.code, str(exc), envelope.ref, envelope.room)

    def end_greeting(self, session: Session) -> None:
        """A message was handled: it is too late for a `$hello`."""
        session.greeting_over = True

    def refuse(self, connection: Connection, code: str, message: str, ref: str | None, room: str | None = None) -> None:
        """Answers a message that broke a rule; nobody else notices."""
        self._step.out.append(PeerMisbehaved(connection.id, code, message))
        named = room if room and len(room) <= 128 else None
        self._outbox.answer(connection, wire.error(code, message, ref, named))

    def refuse_asked(self, input: Refuse) -> None:
        """The application refuses a message."""
        connection = self._step.connections.get(input.conn)
        if connection is not None:
            self.refuse(connection, input.code, input.message, input.ref)

    # ---- the `$` messages ---------------------------------------------------------------------------

    def _hello(self, session: Session, envelope: Envelope) -> None:
        connection = session.connection
        if session.greeting_over or session.hello:
            self._step.out.append(PeerMisbehaved(connection.id, PROTOCOL_ERROR, "a second or late $hello"))
            self._lifecycle.close(connection, CLOSE_BAD_PROTOCOL, "protocol_error: a second or late $hello")
            return
        hello = decode_payload(HelloPayload, envelope.payload)
        if 1 not in hello.v:
            self._step.out.append(PeerMisbehaved(connection.id, VERSION, "no common version"))
            self._lifecycle.close(connection, CLOSE_VERSION, "version: expected 1 in v")
            return
        config = self._step.config
        session.hello = True
        if hello.pub:
            # No key of this process: a publish that is sent again after a restart must meet its own key.
            session.scope = blake2b(hello.pub.encode(), digest_size=16, person=b"vixws scope").hexdigest()
        welcome: dict[str, object] = {
            "v": 1,
            "session": "s_" + self._step.token("session"),
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
        self._outbox.answer(connection, wire.answer("$welcome", envelope.ref, payload=welcome))

    def _reconnect_ms(self) -> int:
        """Over how long clients are told to spread their first reconnect (PROTOCOL §2)."""
        config = self._step.config
        return round(1000 * max(config.reconnect_first_s, 1.25 * self._lifecycle.sessions / config.handshakes_per_s))

    def _ping(self, session: Session, envelope: Envelope) -> None:
        payload = {"reconnect_ms": self._reconnect_ms()}
        self._outbox.answer(session.connection, wire.answer("$pong", envelope.ref, payload=payload))

    def _join(self, session: Session, envelope: Envelope) -> None:
        room = _room_of(envelope)
        asked = decode_payload(JoinPayload, envelope.payload)
        if asked.on_fail not in ("head", "floor"):
            raise BadMessage(BAD_MESSAGE, f"on_fail must be head or floor, got {asked.on_fail!r:.60}")
        since = None if asked.since is None else Since(asked.since.ep, asked.since.off, asked.since.id)
        ask = Join(session.connection.id, room, since, asked.last, asked.on_fail == "floor")
        self._members.join(session, ask, envelope.ref, True)

    def _leave(self, session: Session, envelope: Envelope) -> None:
        room = _room_of(envelope)
        self._members.leave(session, room)
        self._outbox.answer(session.connection, wire.answer("$left", envelope.ref, room))

    def _read_history(self, session: Session, envelope: Envelope) -> None:
        room = _room_of(envelope)
        self._history.check_stored(room)
        self._history.history(session, room, decode_payload(HistoryPayload, envelope.payload), envelope.ref)

    def _find_position(self, session: Session, envelope: Envelope) -> None:
        self._history.position(session, _room_of(envelope), envelope.ref)


def _room_of(envelope: Envelope) -> str:
    """The room beside a `$` message. Raises: `BadMessage`, `BadRoom`."""
    if envelope.room is None:
        raise BadMessage(BAD_MESSAGE, f"expected a room beside {envelope.type}")
    return check_room(envelope.room)
