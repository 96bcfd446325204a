"""A client as a pure machine, with the same kind of door as the hub: `ClientMachine.handle(input, now)`.

It connects, says `$hello`, joins its rooms again after every loss, each from its own position, keeps every
publish until it is settled, notices a dead connection and comes back with jitter. It has no clock, draws
nothing and opens nothing: a shell (or a simulator) carries out its effects; drive it with `pump.Pump`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ..codes import (
    CLOSE_GOING_AWAY,
    CLOSE_NO_FRAME,
    CLOSE_NORMAL,
    CLOSE_OWN_FIRST,
    CLOSE_OWN_LAST,
    CLOSE_SERVER_FAULT,
    CLOSE_STOPS_FIRST,
    CLOSE_STOPS_LAST,
)
from ..effects import CloseTransport, SendBytes
from ..errors import LocalError
from ..inputs import BytesReceived, Disconnected, TimePassed
from ..names import check_name
from ..wire.frames import BINARY, TEXT
from ..wire.payloads import WelcomePayload
from .channel import Broken, ClientChannel, Fact, Opened
from .config import ClientConfig
from .cursor import Position
from .handshake import AnswerReader, Refusal, Switched, Target, parse_url, upgrade_request
from .link import FAR, Link
from .outbox import ClientOutbox
from .records import (
    ClientCancel,
    ClientClosed,
    ClientEffect,
    ClientInput,
    ClientJoin,
    ClientLeave,
    ClientOpened,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientStart,
    ClientState,
    ClientStop,
    MessageHandled,
    OpenTransport,
    TransportFailed,
    TransportOpened,
)
from .rooms import ClientRooms

__all__ = ["MOVES", "ClientMachine"]

_S = ClientState
MOVES: Final[dict[ClientState, frozenset[ClientState]]] = {
    _S.IDLE: frozenset((_S.CONNECTING, _S.STOPPED)),
    _S.WAITING: frozenset((_S.CONNECTING, _S.STOPPED)),
    _S.CONNECTING: frozenset((_S.UPGRADING, _S.WAITING, _S.STOPPED)),
    _S.UPGRADING: frozenset((_S.GREETING, _S.OPEN, _S.WAITING, _S.STOPPED)),
    _S.GREETING: frozenset((_S.OPEN, _S.CLOSING, _S.WAITING, _S.STOPPED)),
    _S.OPEN: frozenset((_S.ENDING, _S.CLOSING, _S.WAITING, _S.STOPPED)),
    _S.ENDING: frozenset((_S.WAITING, _S.STOPPED)),
    _S.CLOSING: frozenset((_S.STOPPED,)),
    _S.STOPPED: frozenset((_S.CONNECTING,)),
}
"""The moves a client's state can make."""

_CLOSES: Final = (CLOSE_NORMAL, CLOSE_GOING_AWAY, CLOSE_SERVER_FAULT)
"""Close codes below 3000 that a client's program may send."""
_OPENING: Final = frozenset((_S.CONNECTING, _S.UPGRADING, _S.GREETING))
_WORDS: Final = {
    _S.CONNECTING: "no connection",
    _S.UPGRADING: "no answer to the upgrade",
    _S.GREETING: "no $welcome (hello=False is for servers that know none)",
}


class ClientMachine:
    """One client of `url` (`ws:` or `wss:`). Only `handle` changes it.

    `seed`: 1–64 bytes, unguessable; all masks, nonces and jitter come from it, so the same inputs give the same
    effects. `hello` False: no `$hello`, for servers that do not speak the protocol. `pub`: the secret that
    scopes this client's `mid`s (PROTOCOL §2), made from the seed unless given; keep it where publishes outlive
    the program. `token` is shown to the server in `$hello`.

    Raises: `LocalError` for a bad URL, header, subprotocol or seed.
    """

    def __init__(
        self,
        url: str,
        *,
        seed: bytes,
        config: ClientConfig | None = None,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        hello: bool = True,
        pub: str | None = None,
        token: str | None = None,
    ) -> None:
        self.config: ClientConfig = config if config is not None else ClientConfig()
        self.target: Target = parse_url(url)
        self._link = Link(seed)
        self._headers = tuple(headers)
        self._subprotocols = tuple(subprotocols)
        upgrade_request(self.target, bytes(16), self._headers, self._subprotocols)
        self._hello = hello
        greeting: dict[str, object] = {"v": [1], "pub": pub if pub is not None else self._link.chance.secret("pub")}
        if token is not None:
            greeting["token"] = token
        self._rooms = ClientRooms(self._link, self.config)
        self._outbox = ClientOutbox(self._link, self.config)
        self._channel = ClientChannel(self._link, self._rooms, self._outbox, self.config, greeting if hello else None)
        self._answer: AnswerReader | None = None
        self._subprotocol: str | None = None
        self._state = ClientState.IDLE
        self._broken = Broken(0, "")  # Why it is ENDING, while it is.
        self._until = FAR  # When the present state is over, unless something happens.
        self._conns = 0
        self._opened_before = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            ClientStart: self._start,
            ClientStop: self._stop,
            ClientSend: self._send,
            ClientJoin: self._rooms.join,
            ClientLeave: self._rooms.leave,
            ClientPublish: self._publish,
            ClientRequest: self._request,
            ClientCancel: self._outbox.cancel,
            MessageHandled: self._handled,
            TransportOpened: self._transport_opened,
            TransportFailed: self._transport_failed,
            BytesReceived: self._bytes,
            Disconnected: self._disconnected,
            TimePassed: self._time_passed,
        }

    # ---- what may be looked at ------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        """Where the client is."""
        return self._state

    @property
    def positions(self) -> dict[str, Position]:
        """Per stored room, where its *handled* messages end: what to keep for a join by a later program."""
        return self._rooms.positions()

    @property
    def cursors(self) -> dict[str, Position]:
        """Per stored room, where the messages told end: where this client itself goes on after a loss."""
        return self._rooms.cursors()

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that are wanted."""
        return self._rooms.names()

    @property
    def publishes_pending(self) -> int:
        """Publishes without a final answer."""
        return self._outbox.publishes

    @property
    def duplicates_dropped(self) -> int:
        """Stored messages that came a second time and were dropped."""
        return self._rooms.duplicates

    @property
    def jumps(self) -> int:
        """Times a room was joined again because offsets were missing without a word."""
        return self._rooms.jumps

    @property
    def late_dropped(self) -> int:
        """Messages of rooms dropped because we were not (or not yet again) in them."""
        return self._rooms.late

    # ---- the door -------------------------------------------------------------------------------

    def handle(self, input: ClientInput, now: float, /) -> list[ClientEffect]:
        """Takes one input and returns what must be done, in order.

        Raises: `LocalError` for an ask that cannot be carried out; then nothing has changed. What the world
        tells never makes it raise.
        """
        link = self._link
        out: list[ClientEffect] = []
        link.now = now
        link.out = out
        self._handlers[type(input)](input)
        while (fact := self._channel.balance()) is not None:
            self._settle(fact)
        return out

    def next_deadline(self) -> float | None:
        """When `TimePassed` is due; None: not before another input."""
        channel = self._channel
        at = min(self._until, channel.ping_at, channel.dead_at, self._outbox.retry_at, self._rooms.retry_at)
        return None if at == FAR else at

    def _move(self, state: ClientState, until: float = FAR) -> None:
        assert state in MOVES[self._state], f"no move from {self._state} to {state}"
        self._state = state
        self._until = until
        self._link.is_open = state is ClientState.OPEN

    # ---- the application ------------------------------------------------------------------------

    def _start(self, _: ClientStart) -> None:
        if self._state in (ClientState.IDLE, ClientState.STOPPED):
            self._connect()

    def _stop(self, ask: ClientStop) -> None:
        if ask.code not in _CLOSES and not CLOSE_OWN_FIRST <= ask.code <= CLOSE_OWN_LAST:
            raise LocalError(f"close code must be one of {_CLOSES} or from 3000 to 4999, got {ask.code}")
        state = self._state
        if state in (ClientState.GREETING, ClientState.OPEN):
            self._channel.close(ask.code, ask.reason)
            self._move(ClientState.CLOSING, self._link.now + self.config.close_timeout_s)
        elif state is ClientState.ENDING:
            self._fail(stop=True)
        elif state not in (ClientState.CLOSING, ClientState.STOPPED):
            self._drop()
            self._ended(ask.code, ask.reason, stop=True)

    def _send(self, ask: ClientSend) -> None:
        if self._state not in (ClientState.OPEN, ClientState.ENDING):
            raise LocalError(f"messages can be sent while the client is open, it is {self._state.value}")
        most = self._outbox.message_bytes_max
        if most and len(ask.data) > most:
            raise LocalError(f"the message has {len(ask.data)} bytes, the server takes {most}")
        self._link.send(ask.data, BINARY if ask.binary else TEXT)

    def _publish(self, ask: ClientPublish) -> None:
        check_name(ask.room)
        self._outbox.publish(ask)

    def _request(self, ask: ClientRequest) -> None:
        if ask.room is not None:
            check_name(ask.room)
        self._outbox.request(ask)

    def _handled(self, told: MessageHandled) -> None:
        self._rooms.handled(told.number)
        if self._state is ClientState.ENDING and not self._rooms.waiting:
            self._fail()

    # ---- the transport --------------------------------------------------------------------------

    def _connect(self) -> None:
        self._conns += 1
        self._link.conn = self._conns
        self._move(ClientState.CONNECTING, self._link.now + self.config.opening_timeout_s)
        self._link.tell(OpenTransport(self._conns, self.target.host, self.target.port, self.target.secure))

    def _transport_opened(self, told: TransportOpened) -> None:
        if told.conn != self._link.conn or self._state is not ClientState.CONNECTING:
            return
        config = self.config
        key = self._link.chance.draw(16)
        self._answer = AnswerReader(key, self._subprotocols, config.head_bytes_max, config.body_bytes_max)
        self._move(ClientState.UPGRADING, self._until)
        request = upgrade_request(self.target, key, self._headers, self._subprotocols)
        self._link.tell(SendBytes(self._link.conn, request))

    def _transport_failed(self, told: TransportFailed) -> None:
        if told.conn == self._link.conn:
            self._ended(CLOSE_NO_FRAME, told.reason)

    def _disconnected(self, told: Disconnected) -> None:
        if told.conn != self._link.conn:
            return
        if self._answer is not None:
            self._refused(self._answer.end())
        elif self._state is ClientState.ENDING:
            self._ended(self._broken.code, self._broken.reason)
        else:
            self._ended(CLOSE_NO_FRAME, told.reason or "the connection ended without a close frame")

    def _bytes(self, told: BytesReceived) -> None:
        if told.conn != self._link.conn:
            return
        if self._answer is None:
            self._settle(self._channel.feed(told.data))
            return
        answer = self._answer.feed(told.data)
        if isinstance(answer, Refusal):
            self._drop()
            self._refused(answer)
        elif isinstance(answer, Switched):
            self._answer = None
            self._subprotocol = answer.subprotocol
            if self._hello:
                self._move(ClientState.GREETING, self._until)
            self._settle(self._channel.begin())
            self._settle(self._channel.feed(answer.rest))

    def _settle(self, fact: Fact | None) -> None:
        """Decides what follows from what the channel found out, and lets it go on."""
        while fact is not None:
            if isinstance(fact, Opened):
                self._opened(fact.welcome, fact.payload)
            elif isinstance(fact, Broken):
                self._broken = fact
                self._move(ClientState.ENDING, self._link.now + self.config.close_timeout_s)
            else:
                self._ended(fact.code, fact.reason, by_server=fact.by_server, stop=fact.stop)
            fact = self._channel.go_on()

    def _refused(self, answer: Refusal) -> None:
        self._ended(CLOSE_NO_FRAME, answer.reason, status=answer.status)

    def _opened(self, welcome: WelcomePayload, payload: bytes) -> None:
        self._move(ClientState.OPEN)
        reconnect, self._opened_before = self._opened_before, True
        user, link = welcome.user or "", self._link
        link.tell(ClientOpened(link.conn, reconnect, welcome.resumed, user, payload, self._subprotocol))
        self._channel.opened()
        self._rooms.opened()
        # Without hello nobody has told how much the server takes.
        self._outbox.opened(welcome.limits.message_bytes if self._hello else 0)

    # ---- the end of a connection ----------------------------------------------------------------

    def _fail(self, *, stop: bool = False) -> None:
        """Ends a connection whose framing is broken: what came before is handled, or its time is over."""
        self._settle(self._channel.fail(self._broken.code, self._broken.reason, stop=stop))

    def _drop(self) -> None:
        """Ends the transport at once, if there is one."""
        if self._link.conn:
            self._link.tell(CloseTransport(self._link.conn, True))

    def _ended(self, code: int, reason: str, *, status: int = 0, by_server: bool = False, stop: bool = False) -> None:
        """Takes note that the transport (or the attempt at one) is over; decides what next."""
        link = self._link
        link.conn = 0
        link.is_open = False
        self._answer = None
        self._channel.end()
        self._rooms.lost()
        self._outbox.lost(code if by_server else 0)
        # PROTOCOL §11: after 4000–4099 the client stops.
        if stop or self._state is ClientState.CLOSING or (by_server and CLOSE_STOPS_FIRST <= code <= CLOSE_STOPS_LAST):
            self._outbox.stopped()
            link.progress()
            self._channel.forget_session()
            self._move(ClientState.STOPPED)
            link.tell(ClientClosed(code, reason, False, status=status))
            return
        delay = self._delay()
        self._move(ClientState.WAITING, link.now + delay)
        link.tell(ClientClosed(code, reason, True, delay, status))

    def _delay(self) -> float:
        """Seconds to the next attempt (PROTOCOL §11)."""
        link, config = self._link, self.config
        failures = link.fail()
        drain_at = self._channel.take_drain()
        if failures:
            delay = link.chance.backoff(failures - 1, config.backoff_min_s, config.backoff_max_s)
            # A server that only ever drains is no reason to hurry.
            return delay if drain_at == FAR else max(delay, drain_at - link.now)
        if drain_at != FAR:
            return max(0.0, drain_at - link.now)
        return link.chance.uniform(self._channel.reconnect_s)

    # ---- time -----------------------------------------------------------------------------------

    def _time_passed(self, _: TimePassed) -> None:
        now = self._link.now
        if now >= self._until:
            self._state_over()
        elif now >= self._channel.dead_at:
            self._drop()
            self._ended(CLOSE_NO_FRAME, f"no byte for {self.config.ping_timeout_s:g} s after a ping")
        else:
            self._channel.ping()
            self._outbox.due()
            self._rooms.due()

    def _state_over(self) -> None:
        state = self._state
        if state is ClientState.WAITING:
            self._connect()
        elif state is ClientState.ENDING:
            self._fail()
        else:
            self._drop()
            if state in _OPENING:
                self._ended(CLOSE_NO_FRAME, f"{_WORDS[state]} within {self.config.opening_timeout_s:g} s")
            else:
                self._ended(CLOSE_NO_FRAME, f"no close frame within {self.config.close_timeout_s:g} s")
