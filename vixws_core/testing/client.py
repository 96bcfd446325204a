"""A well-behaved client of a world: the library's own client machine, its application, and what it saw."""

from __future__ import annotations

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
from ..codes import CLOSE_NORMAL
from ..effects import CloseTransport, PauseReading, ResumeReading, SendBytes
from ..inputs import BytesReceived, Disconnected, Since, TimePassed
from ..message import Json, encode_json
from ..pump import Pump
from .network import Network
from .oracle import check

__all__ = ["Client", "Seen"]


class Seen(msgspec.Struct, frozen=True, gc=False):
    """One stored message as a client's application saw it."""

    ep: str
    off: int
    id: str
    type: str
    payload: bytes


class Client:
    """One client of a world, numbered by `index`. Its commands act at once; what they cause takes steps.

    `slow`: it is a slow reader. `lags`: its application handles messages some steps late. `seen` holds the
    stored messages per room in the order told; offsets rise by one, or an oracle fails.
    """

    def __init__(
        self, index: int, network: Network, clock: Callable[[], float], seed: bytes, token: str | None = None
    ) -> None:
        self.index: int = index
        self.slow: bool = False
        self.lags: bool = False
        self.machine: ClientMachine = ClientMachine(
            "ws://sim/",
            seed=seed,
            token=token,
            config=ClientConfig(ping_interval_s=7.0, ping_timeout_s=5.0, backoff_max_s=4.0, room_unhandled_max=12),
        )
        self.seen: dict[str, list[Seen]] = {}
        self.unhandled: list[int] = []
        self.asked: dict[int, ClientPublish | ClientRequest] = {}
        self.published: Counter[tuple[str, bytes]] = Counter()
        """How often each payload was asked to be published into each room."""
        """What has no answer yet, by request number."""
        self.settled: dict[int, PublishSettled | RequestSettled] = {}
        self.wanted: set[str] = set()
        """Rooms joined and not left."""
        self.joined: dict[str, RoomJoined] = {}
        """Rooms the server let us into on the present connection."""
        self.live: set[str] = set()
        self._at: dict[str, tuple[str, int]] = {}
        self._network = network
        self._last_request = 0
        self._pump = Pump(self.machine, clock, (cast(Any, self),))
        self._tells: dict[type, Callable[[Any], None]] = {
            OpenTransport: lambda effect: network.connect(self, effect.conn),
            SendBytes: lambda effect: network.send(self, effect.conn, effect.data),
            CloseTransport: lambda effect: network.hang_up(self, effect.conn, effect.abort),
            PauseReading: lambda effect: self._reads(effect.conn, False),
            ResumeReading: lambda effect: self._reads(effect.conn, True),
            ClientOpened: self._opened,
            ClientClosed: self._closed,
            ClientMessage: self._message,
            RoomJoined: self._joined,
            RoomLive: self._lives,
            RoomGap: self._gap,
            RoomReset: self._reset,
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
        self._put(ClientStart())

    def stop(self, code: int = CLOSE_NORMAL) -> None:
        """Closes and stays closed until `start`."""
        self._put(ClientStop(code))

    def join(self, room: str, *, since: Since | None = None, last: int = 0, from_floor: bool = False) -> None:
        """Joins a room, now and after each reconnect. Raises: `LocalError` where it is joined already."""
        self._put(ClientJoin(room, since, last, from_floor))
        self.wanted.add(room)

    def leave(self, room: str) -> None:
        """Leaves a room."""
        self._put(ClientLeave(room))

    def publish(self, room: str, type: str, payload: Json, *, mid: str | None = None) -> int:
        """Publishes into a room, until it is settled; returns the key of `settled`."""
        self._last_request += 1
        ask = ClientPublish(self._last_request, room, type, encode_json(payload), mid=mid)
        self.asked[self._last_request] = ask
        self.published[room, ask.payload] += 1
        self._put(ask)
        return self._last_request

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
        self._put(ClientSend(encode_json({"type": type, "payload": {} if payload is None else payload})))
        return True

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

    def _put(self, input: ClientInput) -> None:
        self._pump.put(cast(Any, input))

    # ---- the network ----------------------------------------------------------------------------

    def opened(self, number: int) -> None:
        """The transport is there."""
        self._put(TransportOpened(number))

    def failed(self, number: int) -> None:
        """The transport could not be had."""
        self._put(TransportFailed(number, "simulated"))

    def received(self, number: int, data: bytes) -> None:
        """Bytes came."""
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
        for effect in effects:
            tell = self._tells.get(type(effect))
            if tell is not None:
                tell(effect)

    def _opened(self, told: ClientOpened) -> None:
        self.joined.clear()
        self.live.clear()

    def _closed(self, told: ClientClosed) -> None:
        self.joined.clear()
        self.live.clear()

    def _message(self, told: ClientMessage) -> None:
        if told.off:
            room = told.room or ""
            at = self._at.get(room)
            check(
                at == (told.ep, told.off - 1),
                f"{self} in {room!r}: told {told.ep} {told.off} behind {at}, expected offsets to rise by one",
            )
            self._at[room] = (told.ep, told.off)
            self.seen.setdefault(room, []).append(Seen(told.ep, told.off, told.id, told.type, told.payload))
        if self.lags:
            self.unhandled.append(told.number)
        else:
            self._put(MessageHandled(told.number))

    def _joined(self, told: RoomJoined) -> None:
        self.joined[told.room] = told
        self.live.discard(told.room)
        if not told.stored:
            return
        at = self._at.get(told.room)
        if told.recovered:
            check(
                at is None or at == (told.ep, told.off),
                f"{self} in {told.room!r}: recovered at {told.ep} {told.off}, expected {at}",
            )
        self._at[told.room] = (told.ep, told.off)

    def _lives(self, told: RoomLive) -> None:
        self.live.add(told.room)

    def _gap(self, told: RoomGap) -> None:
        if not told.first:  # Of a room that is not stored: so many were dropped, without offsets.
            return
        at = self._at.get(told.room)
        check(
            at is not None and at[1] == told.first - 1,
            f"{self} in {told.room!r}: a gap from {told.first}, expected it behind {at}",
        )
        if at is not None:
            self._at[told.room] = (at[0], told.last)

    def _reset(self, told: RoomReset) -> None:
        self._at[told.room] = (told.ep, told.off)

    def _left(self, told: RoomLeft) -> None:
        self.wanted.discard(told.room)
        self.joined.pop(told.room, None)
        self.live.discard(told.room)
        self._at.pop(told.room, None)

    def _settled(self, told: PublishSettled | RequestSettled) -> None:
        check(told.request in self.asked, f"{self}: {told!r:.200} answers nothing that was asked, or a second time")
        del self.asked[told.request]
        self.settled[told.request] = told

    # ---- at the end -----------------------------------------------------------------------------

    def lacks(self, head: Callable[[str], int]) -> str:
        """What keeps it from being settled; "" for nothing. `head` gives a stored room's newest offset."""
        if self.state in (ClientState.STOPPED, ClientState.IDLE):
            return ""
        if self.state is not ClientState.OPEN:
            return f"it is {self.state.value}"
        if self.asked:
            return f"no answer to {next(iter(self.asked.values()))!r:.200}"
        for room in sorted(self.wanted):
            told = self.joined.get(room)
            if told is None:
                return f"it is not in {room!r}"
            if told.stored and self._at.get(room, ("", -1))[1] != head(room):
                return f"it is at {self._at.get(room)} of {room!r}, expected {head(room)}"
        return ""
