"""What clients ask of the hub itself: the `$` messages; a publish goes on to `publishing`."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from ...codes import (
    BAD_MESSAGE,
    CLOSE_BAD_PROTOCOL,
    CLOSE_BAD_TOKEN,
    CLOSE_VERSION,
    DENIED,
    PROTOCOL_ERROR,
    UNKNOWN_TYPE,
    VERSION,
)
from ...effects import AppMessage, MessageSkipped, PeerMisbehaved
from ...errors import BadMessage, Refused
from ...inputs import Join, Refuse, Since
from ...names import check_name, check_texts
from ...wire import envelope as wire
from ...wire.envelope import Envelope
from ...wire.payloads import AuthPayload, HelloPayload, HistoryPayload, JoinPayload, decode_payload
from ..connection.outbox import Outbox
from ..model import GONE, Connection, Pending, Session
from ..rooms.members import Members
from ..step import Step
from .grants import Grants
from .history import History
from .identity import Identities
from .lifecycle import Lifecycle
from .publishing import Publishing
from .rates import Rates
from .resume import Resume

__all__ = ["Requests"]


class Requests:
    """Handles the messages that no handler needs."""

    __slots__ = (
        "_grants",
        "_history",
        "_identities",
        "_lifecycle",
        "_members",
        "_outbox",
        "_publishing",
        "_rates",
        "_resume",
        "_step",
        "_types",
    )

    def __init__(
        self,
        step: Step,
        outbox: Outbox,
        members: Members,
        lifecycle: Lifecycle,
        rates: Rates,
        grants: Grants,
        identities: Identities,
        publishing: Publishing,
        history: History,
        resume: Resume,
    ) -> None:
        self._step = step
        self._resume = resume
        self._outbox = outbox
        self._members = members
        self._lifecycle = lifecycle
        self._rates = rates
        self._grants = grants
        self._identities = identities
        self._publishing = publishing
        self._history = history
        self._types: dict[str, Callable[[Session, Envelope], bool]] = {
            "$hello": self._hello,
            "$ping": self._ping,
            "$join": self._join,
            "$leave": self._leave,
            "$history": self._read_history,
            "$position": self._find_position,
            "$auth": self._auth,
        }

    def handle(self, session: Session, envelope: Envelope) -> bool:
        """Handles one message that is the hub's business; of a connection that is gone only its publishes are.

        False: it waits for the application's word, and is handled again after it.
        """
        connection, type = session.connection, envelope.type
        if type[0] == "$" and connection.state is GONE:
            return True
        try:
            if type[0] != "$":
                session.greeting_over = True
                if session.identity is not None and not self._may(session, "publish", _room_of(envelope)):
                    return False
                self._publishing.publish_from(session, envelope)
                return True
            handle = self._types.get(type)
            if handle is not None:
                if not handle(session, envelope):
                    return False
            elif envelope.ref is not None:
                raise BadMessage(UNKNOWN_TYPE, f"expected one of {' '.join(self._types)}")
            else:
                self._step.out.append(MessageSkipped(connection.id, UNKNOWN_TYPE))
            if type != "$ping":
                session.greeting_over = True
        except (BadMessage, Refused) as exc:
            self.refuse(connection, exc.code, str(exc), envelope.ref, envelope.room)
        return True

    def _may(self, session: Session, action: str, room: str) -> bool:
        """True where it is granted; False: the message waits for the application's word. Raises: `Refused`."""
        granted = self._grants.may(session, action, room)
        if granted is False:
            raise Refused(f"{action} is not granted in this room")
        return granted is True

    def admits(self, session: Session, item: Pending, first: bool) -> bool | None:
        """Whether a message of a session with an identity has its turn; None: it was refused.

        False: it waits, for the application's word or, unless it is the `first`, for its turn to be asked about.
        """
        identity, connection = session.identity, session.connection
        assert identity is not None  # Others are not asked about.
        kind, ref, room = "", None, None
        if isinstance(item, Envelope | AppMessage):
            kind, ref, room = item.type, item.ref, item.room
        if not identity.proved:
            if kind in ("$hello", "$ping"):
                return True
            if connection.state is GONE:
                return None
            if isinstance(item, str | bytes):
                self._step.out.append(PeerMisbehaved(connection.id, DENIED, "a message before any proof"))
                self._lifecycle.close(connection, CLOSE_BAD_TOKEN, "bad_token: expected $hello with a token first")
            else:
                self.refuse(connection, DENIED, "expected $hello with a token first", ref)
            return None
        if not isinstance(item, AppMessage) or room is None:
            return True
        try:
            check_name(room)
            if self._grants.holds(session, "publish", room):
                return True
            return first and self._may(session, "publish", room)
        except Refused as exc:
            self.refuse(connection, exc.code, str(exc), ref, room)
            return None

    def end_greeting(self, session: Session) -> None:
        """A message was handled: it is too late for a `$hello`."""
        session.greeting_over = True

    def refuse(self, connection: Connection, code: str, message: str, ref: str | None, room: str | None = None) -> None:
        """Answers a message that broke a rule; nobody else notices."""
        self._step.out.append(PeerMisbehaved(connection.id, code, message))
        named = room if room and len(room) <= 128 else None
        self._outbox.answer(connection, wire.error(code, message, ref, named))

    def refuse_asked(self, input: Refuse) -> None:
        """The application refuses a message. Raises: `LocalError` for text that UTF-8 cannot hold."""
        check_texts(input.code, input.message, input.ref)
        connection = self._step.connections.get(input.conn)
        if connection is not None:
            self.refuse(connection, input.code, input.message, input.ref)

    # ---- the `$` messages ---------------------------------------------------------------------------

    def _hello(self, session: Session, envelope: Envelope) -> bool:
        connection = session.connection
        if session.greeting_over or session.hello:
            self._step.out.append(PeerMisbehaved(connection.id, PROTOCOL_ERROR, "a second or late $hello"))
            self._lifecycle.close(connection, CLOSE_BAD_PROTOCOL, "protocol_error: a second or late $hello")
            return True
        hello = decode_payload(HelloPayload, envelope.payload)
        if 1 not in hello.v:
            self._step.out.append(PeerMisbehaved(connection.id, VERSION, "no common version"))
            self._lifecycle.close(connection, CLOSE_VERSION, "version: expected 1 in v")
            return True
        identity = session.identity
        if identity is not None and not identity.proved:
            if hello.token is not None:
                self._identities.ask(session, hello.token)
                return False
            self._step.out.append(PeerMisbehaved(connection.id, DENIED, "a $hello without a token"))
            self._lifecycle.close(connection, CLOSE_BAD_TOKEN, "bad_token: expected a token in $hello")
            return True
        config = self._step.config
        session.hello = True
        if hello.pub:
            # No key of this process: a publish that is sent again after a restart must meet its own key.
            session.scope = blake2b(hello.pub.encode(), digest_size=16, person=b"vixws scope").hexdigest()
        token, resumed = self._resume.begin(session, hello.session)
        welcome: dict[str, object] = {
            "v": 1,
            "session": token,
            "resumed": resumed,
            "user": None if identity is None else identity.user,
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
        if identity is not None:
            self._grants.rearm(session)
        return True

    def _auth(self, session: Session, envelope: Envelope) -> bool:
        return self._identities.renew(session, envelope.ref, decode_payload(AuthPayload, envelope.payload).token)

    def _reconnect_ms(self) -> int:
        """Over how long clients are told to spread their first reconnect (PROTOCOL §2)."""
        config = self._step.config
        return round(1000 * max(config.reconnect_first_s, 1.25 * self._lifecycle.sessions / config.handshakes_per_s))

    def _ping(self, session: Session, envelope: Envelope) -> bool:
        payload = {"reconnect_ms": self._reconnect_ms()}
        self._outbox.answer(session.connection, wire.answer("$pong", envelope.ref, payload=payload))
        return True

    def _join(self, session: Session, envelope: Envelope) -> bool:
        room = _room_of(envelope)
        asked = decode_payload(JoinPayload, envelope.payload)
        if asked.on_fail not in ("head", "floor"):
            raise BadMessage(BAD_MESSAGE, f"on_fail must be head or floor, got {asked.on_fail!r:.60}")
        if (session.identity is not None or room[0] == "@") and not self._may(session, "join", room):
            return False
        since = None if asked.since is None else Since(asked.since.ep, asked.since.off, asked.since.id)
        last = asked.last
        if (since is not None or last) and session.identity is not None:
            reads = self._grants.may(session, "read", room)
            if reads is None:
                return False
            if not reads:  # What was published before is not for it: it starts at the head, as one who is new.
                since, last = None, 0
        ask = Join(session.connection.id, room, since, last, asked.on_fail == "floor")
        self._rates.asks(session, 1)
        self._members.join(session, ask, envelope.ref, True)
        if session.identity is not None:
            self._grants.rearm(session)
        return True

    def _leave(self, session: Session, envelope: Envelope) -> bool:
        room = _room_of(envelope)
        self._members.leave(session, room)
        self._outbox.answer(session.connection, wire.answer("$left", envelope.ref, room))
        return True

    def _read_history(self, session: Session, envelope: Envelope) -> bool:
        room, asked = _room_of(envelope), decode_payload(HistoryPayload, envelope.payload)
        if not self._may(session, "read", room):
            return False
        self._history.check_stored(room)
        self._history.history(session, room, asked, envelope.ref)
        return True

    def _find_position(self, session: Session, envelope: Envelope) -> bool:
        room = _room_of(envelope)
        if not self._may(session, "read", room):
            return False
        self._history.position(session, room, envelope.ref)
        return True


def _room_of(envelope: Envelope) -> str:
    """The room beside a `$` message. Raises: `BadMessage`, `BadRoom`."""
    if envelope.room is None:
        raise BadMessage(BAD_MESSAGE, f"expected a room beside {envelope.type}")
    return check_name(envelope.room)
