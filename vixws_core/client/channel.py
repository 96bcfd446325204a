"""A client's WebSocket once it is upgraded: frames, `$hello`, the protocol's own messages, pings, back-pressure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ..codes import CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG, PROTOCOL_ERROR, TOO_LARGE, UNKNOWN_TYPE
from ..effects import CloseTransport, MessageSkipped, PauseReading, ResumeReading, SendBytes
from ..errors import BadMessage
from ..message import encode_json
from ..wire.envelope import Incoming, client_message, decode_incoming, find_place
from ..wire.frames import PING, PONG, CloseReceived, FrameFailed, FrameReader, PingReceived, Received, encode_close
from ..wire.payloads import DrainPayload, ErrorPayload, WelcomePayload, decode_payload
from .config import ClientConfig
from .link import FAR, Link
from .outbox import ClientOutbox
from .records import ServerRefused
from .rooms import ClientRooms

__all__ = ["Broken", "ClientChannel", "Ended", "Fact", "Opened"]

_EVENTS_MAX: Final = 64
"""Frames taken from the bytes received before the limits are looked at again."""
_EARLY_MAX: Final = 64
"""Messages kept that come before the `$welcome`."""
_HELLO: Final = "~hello"
"""The `ref` of our `$hello`."""


class Opened(NamedTuple):
    """Messages may flow: what the `$welcome` said (defaults without hello), and its JSON."""

    welcome: WelcomePayload
    payload: bytes


class Ended(NamedTuple):
    """The connection is over; `by_server`: the server said so, with this code; `stop`: for good."""

    code: int
    reason: str
    by_server: bool = False
    stop: bool = False


class Broken(NamedTuple):
    """The server broke the framing behind messages that are not handled: `fail` is due when they are."""

    code: int
    reason: str


Fact = Opened | Ended | Broken
"""What the channel finds out and its machine decides about. What was read behind it waits for `go_on`."""


class ClientChannel:
    """The upgraded connection of a client, one after another. Only the machine and its parts change it.

    `hello` None: no `$hello` is said; else what it says besides the session.
    """

    def __init__(
        self,
        link: Link,
        rooms: ClientRooms,
        outbox: ClientOutbox,
        config: ClientConfig,
        hello: dict[str, object] | None,
    ) -> None:
        self._link = link
        self._rooms = rooms
        self._outbox = outbox
        self._config = config
        self._hello = hello
        self._reader: FrameReader | None = None
        self._received: Iterator[Received] = iter(())  # What was taken and has not been looked at.
        self._looked = 0  # How many frames were taken last.
        self._paused = False
        self._closing = False
        self._early: list[str | bytes] = []
        self.session: str | None = None
        """The token with which the server resumes our presence."""
        self.reconnect_s: float = config.reconnect_first_s
        """Over how long the first reconnect is to be spread: the newest value told."""
        self.drain_at: float = FAR
        """When the server that drains wants us back."""
        self.ping_at: float = FAR
        self.dead_at: float = FAR
        """When the connection counts as dead, unless a byte comes."""
        self._says: dict[str, Callable[[Incoming], Fact | None]] = {
            "$joined": rooms.joined,
            "$live": rooms.live,
            "$gap": rooms.gap,
            "$reset": rooms.reset,
            "$kicked": rooms.kicked,
            "$left": rooms.left,
            "$err": self._said_error,
            "$pong": self._said_pong,
            "$ping": self._said_ping,
            "$drain": self._said_drain,
            "$welcome": self._said_welcome,
        }

    # ---- its life -------------------------------------------------------------------------------

    def begin(self) -> Fact | None:
        """Begins on an upgraded connection."""
        config = self._config
        self._reader = FrameReader(
            client=True, message_bytes_max=config.message_bytes_max, fragments_max=config.fragments_max
        )
        self._paused = self._closing = False
        self._early = []
        self.drain_at = FAR
        if self._hello is None:
            return Opened(WelcomePayload(), b"{}")
        payload = {**self._hello, "session": self.session}
        self._link.send(client_message("$hello", encode_json(payload), ref=_HELLO))
        return None

    def opened(self) -> None:
        """Takes the messages that came before the welcome, and begins to ping."""
        if self._config.ping_interval_s:
            self.ping_at = self._link.now + self._config.ping_interval_s
        early, self._early = self._early, []
        for item in early:
            self._message(item)

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame; from now on only answers to publishes and the server's close are looked at."""
        self.send_close(code, reason)
        self._closing = True
        self.ping_at = self.dead_at = FAR

    def fail(self, code: int, reason: str, *, stop: bool = False) -> Ended:
        """Ends a connection that is of no use."""
        if not self._closing:
            self.send_close(code, reason)
        self._link.tell(CloseTransport(self._link.conn))
        return Ended(code, reason, stop=stop)

    def end(self) -> None:
        """Forgets the connection."""
        self._reader = None
        self._received = iter(())
        self.ping_at = self.dead_at = FAR

    def send_close(self, code: int, reason: str = "") -> None:
        """Sends a close frame."""
        self._link.tell(SendBytes(self._link.conn, encode_close(code, reason, self._link.chance.mask())))

    def ping(self) -> None:
        """Sends a ping, if it is time for one."""
        now = self._link.now
        if now < self.ping_at:
            return
        self.ping_at = now + self._config.ping_interval_s
        if self._hello is None:
            self._link.send(b"", PING)
        else:
            self._link.send(b'{"type":"$ping"}')
        # What only reading can meet is not demanded while we do not read (PROTOCOL §5).
        if not self._paused and self.dead_at == FAR:
            self.dead_at = now + self._config.ping_timeout_s

    def balance(self) -> Fact | None:
        """Stops reading where the application lags, unless it may itself be waiting for what would be read."""
        while self._reader is not None:
            full = self._rooms.full and not self._outbox.awaited and not self._closing
            if full != self._paused:
                self._paused = full
                if full:
                    self.dead_at = FAR
                self._link.tell(PauseReading(self._link.conn) if full else ResumeReading(self._link.conn))
            if full:
                return None
            fact = self._take(b"")
            if fact is not None or self._looked < _EVENTS_MAX:
                return fact
        return None

    # ---- frames ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Fact | None:
        """Takes bytes of frames; those that come while reading is paused wait."""
        self.dead_at = FAR
        if self._reader is None:
            return None
        if self._paused:
            self._reader.feed(data, 0)
            return None
        return self._take(data)

    def _take(self, data: bytes) -> Fact | None:
        """Takes at most a handful of frames."""
        assert self._reader is not None
        received = self._reader.feed(data, _EVENTS_MAX)
        # Fragments too: behind them frames may wait, for which no further byte will come.
        self._looked = len(received) + self._reader.quiet
        self._received = iter(received)
        return self.go_on()

    def go_on(self) -> Fact | None:
        """Looks at what was taken, up to the next fact."""
        for item in self._received:
            fact = self._message(item) if isinstance(item, str | bytes) else self._frame(item)
            if fact is not None:
                return fact
        return None

    def _frame(self, item: Received) -> Fact | None:
        link = self._link
        if isinstance(item, PingReceived):
            # RFC 6455 §5.5.2: "an endpoint MUST send a Pong frame in response".
            if not self._closing:
                link.send(item.payload, PONG)
        elif isinstance(item, CloseReceived):
            # RFC 6455 §5.5.1: "the endpoint typically echos the status code it received".
            if not self._closing:
                self.send_close(item.code)
            link.tell(CloseTransport(link.conn))
            return Ended(item.code, item.reason, by_server=True)
        elif isinstance(item, FrameFailed):
            link.blame(TOO_LARGE if item.code == CLOSE_TOO_BIG else PROTOCOL_ERROR, item.reason)
            if self._hello is None and self._rooms.waiting and not self._closing:
                self.ping_at = self.dead_at = FAR
                return Broken(item.code, item.reason)
            return self.fail(item.code, item.reason)
        return None

    def _message(self, data: str | bytes) -> Fact | None:
        message = decode_incoming(data) if isinstance(data, str) else None
        if isinstance(data, str) and self._passed_over(data, message):
            pass
        elif message is not None and message.type[0] == "$":
            try:
                return self._said(message, data)
            except BadMessage as exc:
                self._link.blame(exc.code, f"{message.type}: {exc}")
        elif self._closing:
            pass  # After our close nobody listens.
        elif not self._link.is_open:
            # A server may greet before it has read our $hello; the application hears of it once we are open.
            if len(self._early) < _EARLY_MAX:
                self._early.append(data)
            else:
                self._link.tell(MessageSkipped(self._link.conn, "early"))
        elif isinstance(data, str) and message is not None and message.room is not None and self._of_room(message.room):
            self._rooms.message(data, message)
        else:
            self._rooms.tell(data, message)
        return None

    def _passed_over(self, data: str, message: Incoming | None) -> bool:
        """Whether it is an entry of a room that is no message, behind which the room goes on."""
        if message is not None and not (message.off and message.type[0] == "$"):
            return False
        if not self._link.is_open or self._closing:
            return False
        place = find_place(data)
        return place is not None and place.room in self._rooms and self._rooms.pass_over(place)

    def _of_room(self, room: str) -> bool:
        """Whether `room` beside the type means what the protocol says; a server without hello may mean its own."""
        return self._hello is not None or room in self._rooms

    # ---- the protocol's own messages ------------------------------------------------------------

    def _said(self, message: Incoming, data: str | bytes) -> Fact | None:
        kind = message.type
        if self._closing:
            # Our publishes may still be answered; nothing else matters any more.
            if kind == "$err":
                return self._said_error(message)
            if kind == "$ack":
                self._outbox.answer(message)
        elif not self._link.is_open:
            if kind in ("$welcome", "$err", "$drain"):
                return self._says[kind](message)
        elif (says := self._says.get(kind)) is not None:
            return says(message)
        elif not self._outbox.answer(message):
            if self._hello is not None:
                self._link.tell(MessageSkipped(self._link.conn, UNKNOWN_TYPE))
            else:
                self._rooms.tell(data, message)
        return None

    def _said_welcome(self, message: Incoming) -> Fact | None:
        if self._link.is_open or message.ref != _HELLO:
            return None
        try:
            welcome = decode_payload(WelcomePayload, message.payload)
        except BadMessage as exc:
            self._link.blame(exc.code, f"$welcome: {exc}")
            return self.fail(CLOSE_PROTOCOL_ERROR, "a good $welcome is expected")
        self.session = welcome.session
        self._take_reconnect(welcome)
        return Opened(welcome, bytes(message.payload))

    def _said_pong(self, message: Incoming) -> None:
        self._link.progress()
        self._take_reconnect(decode_payload(WelcomePayload, message.payload))

    def take_drain(self) -> float:
        """When a server that drains wants us back, once; `FAR` where it said nothing."""
        when, self.drain_at = self.drain_at, FAR
        return when

    def forget_session(self) -> None:
        """The session is given up: the next `$hello` names none."""
        self.session = None

    def _take_reconnect(self, told: WelcomePayload) -> None:
        if told.reconnect_ms is not None:
            config = self._config
            self.reconnect_s = min(max(told.reconnect_ms / 1000, config.reconnect_first_s), config.reconnect_told_max_s)

    def _said_ping(self, message: Incoming) -> None:
        self._link.send(client_message("$pong", b"{}", ref=message.ref))

    def _said_drain(self, message: Incoming) -> None:
        drain = decode_payload(DrainPayload, message.payload)
        if drain.reconnect_in_ms is not None:
            self.drain_at = self._link.now + min(drain.reconnect_in_ms / 1000, self._config.reconnect_told_max_s)

    def _said_error(self, message: Incoming) -> Ended | None:
        error = decode_payload(ErrorPayload, message.payload)
        if message.ref == _HELLO and not self._link.is_open:
            if not self._closing:
                reason = f"$hello was refused: {error.code} {error.msg}"[:300]
                return self.fail(CLOSE_NORMAL, reason, stop=not error.retry)
        elif not (self._outbox.refused(message.ref, error) or self._rooms.refused(message.ref, error)):
            self._link.tell(ServerRefused(error.code, error.msg, message.ref))
        return None
