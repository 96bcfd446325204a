"""What arrives: connections, requests and their answers, and bytes, each given to who understands it."""

from __future__ import annotations

from ..codes import BAD_HANDSHAKE
from ..effects import Opened, PeerMisbehaved, Requested
from ..errors import LocalError
from ..inputs import Accept, BytesReceived, Connected, Respond
from ..names import check_name, user_room
from ..wire.deflate import agree
from ..wire.frames import FrameReader
from ..wire.http import HeadReader, HeadRefused, extension_offers, http_switching
from ..wire.inflate import InflatingReader
from .connection.outbox import Outbox
from .connection.reading import BACKLOG_BYTES, Reading
from .connection.timers import Timers
from .model import ASKED, CLOSING, HEAD, OPEN, Connection, Handshake, Pause, Session
from .sessions.identity import Identities
from .sessions.inbox import Inbox
from .sessions.lifecycle import Lifecycle
from .sessions.rates import Rates
from .step import Step

__all__ = ["Arrivals"]


class Arrivals:
    """Takes connections from their first byte to their first message."""

    __slots__ = ("_identities", "_inbox", "_lifecycle", "_outbox", "_rates", "_reading", "_step", "_timers")

    def __init__(
        self,
        step: Step,
        timers: Timers,
        reading: Reading,
        outbox: Outbox,
        lifecycle: Lifecycle,
        identities: Identities,
        rates: Rates,
        inbox: Inbox,
    ) -> None:
        self._step = step
        self._timers = timers
        self._reading = reading
        self._outbox = outbox
        self._lifecycle = lifecycle
        self._identities = identities
        self._rates = rates
        self._inbox = inbox

    def connected(self, input: Connected) -> None:
        """A transport was accepted: its request is awaited, or it is ended where the hub drains."""
        step, config = self._step, self._step.config
        handshake = Handshake(HeadReader(config.head_bytes_max, config.headers_max), input.limited)
        connection = Connection(input.conn, input.peer, step.now - input.waited_s, handshake)
        self._lifecycle.begin(connection)
        if self._lifecycle.draining:
            self._lifecycle.end_transport(connection, abort=True)
        else:
            self._timers.arm(connection, connection.since + config.handshake_timeout_s)

    def received(self, input: BytesReceived) -> None:
        """Bytes came: they are read as what the connection waits for."""
        connection = self._step.connections.get(input.conn)
        if connection is None:
            return
        state = connection.state
        if state is OPEN:
            connection.last_received = self._step.now
            self._inbox.feed(connection, input.data)
        elif state is HEAD:
            self._read_head(connection, input.data)
        elif state is ASKED:
            self._keep(connection, input.data)
        elif state is CLOSING:
            self._lifecycle.read_to_close(connection, input.data)

    def _read_head(self, connection: Connection, data: bytes) -> None:
        handshake = connection.handshake
        assert handshake is not None  # It is not accepted yet.
        found, rest = handshake.head.feed(data)
        if found is None:
            return
        if isinstance(found, HeadRefused):
            self._step.out.append(PeerMisbehaved(connection.id, BAD_HANDSHAKE, found.reason))
            self._lifecycle.answer_http(connection, found.status, found.headers, f"{found.reason}\n".encode())
            return
        connection.move(ASKED, connection.since)  # One time for the whole handshake.
        handshake.request = found
        handshake.trailing_data = rest
        self._step.out.append(
            Requested(connection.id, found.method, found.target, found.headers, found.upgrade, found.subprotocols)
        )

    def _keep(self, connection: Connection, data: bytes) -> None:
        """Bytes behind a request that is not answered yet."""
        handshake = connection.handshake
        assert handshake is not None  # It is not accepted yet.
        handshake.trailing_data += data
        if len(handshake.trailing_data) > BACKLOG_BYTES:
            self._reading.pause(connection, Pause.BACKLOG)

    def accept(self, input: Accept) -> None:
        """The application completes an upgrade. Raises: `LocalError` for a plain request, a subprotocol or a header."""
        step, config = self._step, self._step.config
        connection = step.connections.get(input.conn)
        if connection is None or connection.state is not ASKED:
            return
        handshake = connection.handshake
        assert handshake is not None and handshake.request is not None  # It is not accepted yet, and asked.
        request = handshake.request
        if not request.upgrade:
            raise LocalError(f"connection {connection.id} asked for no WebSocket: expected Respond")
        if input.subprotocol is not None and input.subprotocol not in request.subprotocols:
            raise LocalError(f"subprotocol {input.subprotocol!r:.60} was not offered: {request.subprotocols}")
        agreed = agree(extension_offers(request.headers)) if config.deflate else None
        extension = None if agreed is None else agreed[0]
        if input.user is not None:
            check_name(user_room(input.user))
            if input.expires_in_s == 0:
                self._lifecycle.answer_http(connection, 401, (("www-authenticate", "Bearer"),), b"the proof is over\n")
                return
        switching = http_switching(request.key, input.subprotocol, input.headers, extension)
        limited = handshake.limited if input.limited is None else input.limited
        connection.handshake = None
        session = Session(connection, input.typed, input.guarded, self._identities.begin(input))
        connection.begin(session)
        reader = FrameReader if agreed is None else InflatingReader
        connection.reader = reader(message_bytes_max=config.message_bytes_max, fragments_max=config.fragments_max)
        if agreed is not None:
            connection.codec = agreed[1]
        self._lifecycle.opened(connection, step.now)
        self._rates.begin(connection, limited)
        self._outbox.send(connection, switching)
        self._identities.began(session, Opened(connection.id, request.target, input.subprotocol))
        self._timers.begin_anew(connection)
        self._timers.rearm(connection)
        self._reading.resume(connection, Pause.BACKLOG)
        if handshake.trailing_data:
            self._inbox.feed(connection, handshake.trailing_data)

    def respond(self, input: Respond) -> None:
        """The application answers a request with a plain response. Raises: `LocalError` for a bad header."""
        connection = self._step.connections.get(input.conn)
        if connection is not None and connection.state is ASKED:
            self._lifecycle.answer_http(connection, input.status, input.headers, input.body)
