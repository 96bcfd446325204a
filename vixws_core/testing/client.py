"""A well-behaved client of a world: the library's own client machine, its application, and what it saw."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from ..client import (
    ClientClosed,
    ClientConfig,
    ClientEffect,
    ClientInput,
    ClientJoin,
    ClientLeave,
    ClientMachine,
    ClientMessage,
    ClientOpened,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientStart,
    ClientState,
    ClientStop,
    MessageHandled,
    OpenTransport,
    Position,
    PublishSettled,
    RequestSettled,
    RoomGap,
    RoomJoined,
    RoomLeft,
    RoomLive,
    RoomReset,
    TransportFailed,
    TransportOpened,
)
from ..codes import CLOSE_NO_FRAME, CLOSE_NORMAL
from ..effects import CloseTransport, PauseReading, ResumeReading, SendBytes
from ..errors import LocalError
from ..inputs import BytesReceived, Disconnected, Since, TimePassed
from ..message import Json, encode_json
from ..pump import Pump
from .client_oracle import ClientOracle
from .journal import Journal
from .mangling import Mangler
from .network import Network
from .oracle import check
from .profile import Profile

__all__ = ["Client", "Seen", "Told"]


class Seen(msgspec.Struct, frozen=True, gc=False):
    """One stored message as a client's application saw it."""

    ep: str
    off: int
    id: str
    type: str
    payload: bytes


class Told(msgspec.Struct, frozen=True, gc=False):
    """One message as a client's application got it: `room` is "" where it came from none, `off` 0 from no log."""

    type: str
    payload: Json
    room: str = ""
    off: int = 0


class Client:
    """One client of a world, numbered by `index`. Its commands act at once; what they cause takes steps.

    `slow`: it is a slow reader. `lags`: its application handles messages some steps late. `told` holds all that its
    application got, `seen` the stored messages per room in the order told; offsets rise by one, or an oracle fails.
    `profile` says what it shows when it connects.
    """

    def __init__(
        self,
        index: int,
        network: Network,
        clock: Callable[[], float],
        seed: bytes,
        *,
        profile: Profile,
        mangler: Mangler,
        journal: Journal | None = None,
    ) -> None:
        self.index: int = index
        self.slow: bool = False
        self.lags: bool = False
        self.profile: Profile = profile
        self.machine: ClientMachine = ClientMachine(
            profile.url,
            seed=seed,
            token=profile.shown if profile.in_hello else None,
            headers=profile.request_headers,
            subprotocols=profile.subprotocols,
            hello=profile.hello,
            config=ClientConfig(ping_interval_s=7.0, ping_timeout_s=5.0, backoff_max_s=4.0, room_unhandled_max=12),
        )
        self.mangler: Mangler = mangler
        self.told: list[Told] = []
        self.closes: list[ClientClosed] = []
        """How its connections ended, and its attempts at one."""
        self.seen: dict[str, list[Seen]] = {}
        self.unhandled: list[int] = []
        self.asked: dict[int, ClientPublish | ClientRequest] = {}
        self._numbers: dict[str, tuple[int, int]] = {}
        self.published: Counter[tuple[str, bytes]] = Counter()
        """How often each payload was asked to be published into each room."""
        """What has no answer yet, by request number."""
        self.settled: dict[int, PublishSettled | RequestSettled] = {}
        self.wanted: set[str] = set()
        """Rooms joined and not left."""
        self.joined: dict[str, RoomJoined] = {}
        """Rooms the server let us into on the present connection."""
        self.live: set[str] = set()
        self._oracle = ClientOracle(repr(self), self.machine, clock)
        self._journal = journal
        self._network = network
        self._last_request = 0
        self._number = 0
        self._pump = Pump(self.machine, clock, (cast(Any, self),))
        self._tells: dict[type, Callable[[Any], None]] = {
            OpenTransport: self._opens,
            SendBytes: self._sends,
            CloseTransport: lambda effect: network.hang_up(self, effect.conn, effect.abort),
            PauseReading: lambda effect: self._reads(effect.conn, False),
            ResumeReading: lambda effect: self._reads(effect.conn, True),
            ClientOpened: self._opened,
            ClientClosed: self._closed,
            ClientMessage: self._message,
            RoomJoined: self._joined,
            RoomLive: self._lives,
            RoomGap: self._oracle.gap,
            RoomReset: self._oracle.reset,
            RoomLeft: self._left,
            PublishSettled: self._settled,
            RequestSettled: self._settled,
        }

    def __repr__(self) -> str:
        return f"client {self.index}"

    # ---- what a test (or a habit) lets it do ----------------------------------------------------

    @property
    def state(self) -> ClientState:
        """Where its machine is."""
        return self.machine.state

    @property
    def positions(self) -> dict[str, Position]:
        """Per stored room, where its handled messages end."""
        return self.machine.positions

    def start(self) -> None:
        """Begins to connect; a world starts its clients itself."""
        if self.state is ClientState.STOPPED:
            self._say("starts again")
        self._oracle.stops(False)
        self._put(ClientStart())

    def stop(self, code: int = CLOSE_NORMAL) -> None:
        """Closes and stays closed until `start`."""
        self._say("stops")
        self._oracle.stops(True)
        self._put(ClientStop(code))

    def join(self, room: str, *, since: Since | None = None, last: int = 0, from_floor: bool = False) -> None:
        """Joins a room, now and after each reconnect. Raises: `LocalError` where it is joined already."""
        ask = ClientJoin(room, since, last, from_floor)
        if room in self.machine.rooms:
            self._put(ask)  # It raises.
        self._oracle.joins(ask)
        try:
            self._put(ask)
        except LocalError:
            self._oracle.left(room)
            raise
        self.wanted.add(room)
        self._say(f"joins {room!r}")

    def leave(self, room: str) -> None:
        """Leaves a room."""
        self._say(f"leaves {room!r}")
        self._put(ClientLeave(room))

    def publish(self, room: str, type: str, payload: Json, *, mid: str | None = None, kind: str = "event") -> int:
        """Publishes into a room, until it is settled; returns the key of `settled`."""
        self._last_request += 1
        ask = ClientPublish(self._last_request, room, type, encode_json(payload), mid=mid, kind=kind)
        self.asked[self._last_request] = ask
        self.published[room, ask.payload] += 1
        self._say(f"publishes {type!r} {ask.payload.decode():.80} into {room!r}")
        self._put(ask)
        return self._last_request

    def next_number(self, room: str, *, anew: bool = False) -> str:
        """The next key of an ordered producer in a room; `anew`: it begins another epoch."""
        epoch, seq = self._numbers.get(room, (0, 0))
        self._numbers[room] = epoch, seq = (epoch + 1, 1) if anew else (epoch, seq + 1)
        return f"~o{self.index}:{epoch}:{seq}"

    def request(self, type: str, room: str | None = None, payload: Json = None) -> int:
        """Asks the server (`$history`, `$position`, …); returns the key of `settled`."""
        self._last_request += 1
        ask = ClientRequest(self._last_request, type, room, b"{}" if payload is None else encode_json(payload))
        self.asked[self._last_request] = ask
        self._put(ask)
        return self._last_request

    def send(self, type: str, payload: Json = None) -> bool:
        """Sends a message to the application; False (and nothing is sent) while not connected."""
        if self.state is not ClientState.OPEN:
            return False
        data = encode_json({} if payload is None else payload)
        self._say(f"sends {type!r} {data.decode():.80}")
        self._put(ClientSend(encode_json({"type": type, "payload": msgspec.Raw(data)})))
        return True

    def of_type(self, type: str) -> list[Json]:
        """The payloads of all messages of that type that its application got, in order."""
        return [one.payload for one in self.told if one.type == type]

    def offsets(self, room: str) -> list[int]:
        """The offsets of the stored messages it saw in a room, in order."""
        return [seen.off for seen in self.seen.get(room, [])]

    def handle_some(self, count: int) -> bool:
        """Lets a lagging application handle some of its messages."""
        numbers, self.unhandled = self.unhandled[:count], self.unhandled[count:]
        for number in numbers:
            self._put(MessageHandled(number))
        return bool(numbers)

    def time(self, now: float) -> bool:
        """Tells the machine that its time has come, where it has."""
        when = self.machine.next_deadline()
        if when is None or when > now:
            return False
        self._put(TimePassed())
        return True

    def check_alive(self) -> None:
        """Raises: `OracleFailed` where it does not notice that its connection is dead."""
        wire = self._network.find(self, self._number)
        self._oracle.check_alive(wire is not None and wire.client_reads)

    def _put(self, input: ClientInput) -> None:
        self._pump.put(cast(Any, input))

    def _say(self, what: str) -> None:
        if self._journal is not None:
            self._journal.say(f"{self} {what}")

    # ---- the network ----------------------------------------------------------------------------

    def opened(self, number: int) -> None:
        """The transport is there."""
        self._put(TransportOpened(number))

    def failed(self, number: int) -> None:
        """The transport could not be had."""
        self._put(TransportFailed(number, "simulated"))

    def received(self, number: int, data: bytes) -> None:
        """Bytes came."""
        data = self.mangler.feed(data)
        if data:
            self._oracle.hears(data)
            self._put(BytesReceived(number, data))

    def ended(self, number: int) -> None:
        """The transport ended."""
        self._put(Disconnected(number, "simulated"))

    def _reads(self, number: int, reads: bool) -> None:
        wire = self._network.find(self, number)
        if wire is not None:
            wire.client_reads = reads

    # ---- what the machine says ------------------------------------------------------------------

    def see(self, now: float, input: ClientInput, effects: Sequence[ClientEffect]) -> None:
        """Carries out and judges one step of the machine."""
        if isinstance(input, MessageHandled):
            self._oracle.handled(input.number)
        for effect in effects:
            tell = self._tells.get(type(effect))
            if tell is not None:
                tell(effect)
        self._oracle.check_positions()

    def _opens(self, told: OpenTransport) -> None:
        self._oracle.opens(told)
        self.mangler.begin()
        self._number = told.conn
        self._network.connect(self, told.conn)

    def _sends(self, told: SendBytes) -> None:
        self._oracle.sends(told.data)
        self._network.send(self, told.conn, told.data)

    def _opened(self, told: ClientOpened) -> None:
        self.joined.clear()
        self.live.clear()
        self._oracle.opened()

    def _closed(self, told: ClientClosed) -> None:
        self.joined.clear()
        self.live.clear()
        self._oracle.closed(told)
        self.closes.append(told)
        if told.code != CLOSE_NO_FRAME or told.status:
            self._say(f"is closed with {told.status or told.code} {told.reason!r}")

    def _message(self, told: ClientMessage) -> None:
        self._oracle.message(told)
        room = told.room or ""
        if told.off:
            self.seen.setdefault(room, []).append(Seen(told.ep, told.off, told.id, told.type, told.payload))
        if told.type:
            self.told.append(Told(told.type, json.loads(told.payload), room, told.off))
        if self.lags:
            self.unhandled.append(told.number)
        else:
            self._put(MessageHandled(told.number))

    def _joined(self, told: RoomJoined) -> None:
        self.joined[told.room] = told
        self.live.discard(told.room)
        self._oracle.joined(told)

    def _lives(self, told: RoomLive) -> None:
        self.live.add(told.room)
        self._oracle.lives(told)

    def _left(self, told: RoomLeft) -> None:
        self.wanted.discard(told.room)
        self.joined.pop(told.room, None)
        self.live.discard(told.room)
        self._oracle.left(told.room, told.code)
        if told.code:
            self._say(f"is put out of {told.room!r}: {told.code}")

    def _settled(self, told: PublishSettled | RequestSettled) -> None:
        check(told.request in self.asked, f"{self}: {told!r:.200} answers nothing that was asked, or a second time")
        self._oracle.settled(told, self.asked[told.request])
        del self.asked[told.request]
        self.settled[told.request] = told
        if not told.ok:
            self._say(f"is refused its request {told.request}: {told.code} {told.message}")

    # ---- at the end -----------------------------------------------------------------------------

    def lacks(self, head: Callable[[str], int]) -> str:
        """What keeps it from being settled; "" for nothing. `head` gives a stored room's newest offset."""
        if self.state in (ClientState.STOPPED, ClientState.IDLE):
            return ""
        if self.state is not ClientState.OPEN:
            refused = self.state is ClientState.WAITING and self.closes and self.closes[-1].status in (401, 403)
            return "" if refused else f"it is {self.state.value}"
        if self.asked:
            return f"no answer to {next(iter(self.asked.values()))!r:.200}"
        for room in sorted(self.wanted):
            told = self.joined.get(room)
            if told is None:
                return f"it is not in {room!r}"
            at = self._oracle.at(room)
            if told.stored and (at is None or at[1] != head(room)):
                return f"it is at {at} of {room!r}, expected {head(room)}"
        return ""
