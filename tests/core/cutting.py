"""One stream, cut in several ways: what a hub answers must be the same, byte for byte.

The world beside the hub (store, application, whoever knows users) answers at the stream's stops and at its end, never
between: what it answers in the midst of a read is no business of how bytes are cut. A bystander sits in the rooms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple

from vixws_core import Hub, HubConfig
from vixws_core.config import Policy
from vixws_core.effects import (
    AppMessage,
    Authenticate,
    Authorize,
    Broadcast,
    Closed,
    CloseTransport,
    Effect,
    MessageReceived,
    Opened,
    Requested,
    SendBytes,
)
from vixws_core.inputs import (
    Accept,
    Authenticated,
    Authorized,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    Respond,
    Send,
    TimePassed,
)
from vixws_core.log import STORE_ASKS, PureLog, run_asks
from vixws_core.wire.frames import PONG, encode_frame

from .harness import EPOCH, MASK, REQUEST, TS, text_frame
from .mutating import Stream

__all__ = ["CUTS", "Around", "Heard", "Setting", "compare", "cut_in_bytes", "cut_whole", "setting_of", "smallest"]

BYSTANDER = 0
PONG_FRAME = encode_frame(PONG, b"", MASK)
QUEUE_MAX = 64 + 64
"""`pending_messages_max` and what one step may add to it."""


class Setting(NamedTuple):
    """A hub and its application."""

    config: HubConfig = HubConfig()
    policy: Policy = Policy()
    typed: bool = True
    guarded: frozenset[str] = frozenset()
    user: str | None = None


# The bystander says nothing for hours.
_CONFIG = HubConfig(unstored_rooms=("tmp.*",), idle_timeout_s=0)
_SETTINGS: dict[str, Setting] = {
    "open": Setting(_CONFIG),
    "raw": Setting(_CONFIG, typed=False),
    "guarded": Setting(_CONFIG, guarded=frozenset(("note",))),
    "proved": Setting(_CONFIG, Policy(authenticated=True, authorized=True)),
    "granted": Setting(_CONFIG, Policy(authorized=True), user="ada"),
    "small": Setting(replace(_CONFIG, message_bytes_max=128, fragments_max=2, rooms_max=3, head_bytes_max=256)),
}


def setting_of(name: str) -> Setting:
    """What the name of a setting means."""
    return _SETTINGS[name]


class Heard(NamedTuple):
    """All that a stream led to."""

    out: bytes
    """What its connection was sent."""
    other: bytes
    """What the bystander was sent."""
    ends: tuple[tuple[int, bool], ...]
    """When its transport was ended, after so many bytes, and whether at once."""
    closed: tuple[tuple[int, str], ...]
    """How its end was told."""
    app: tuple[AppMessage | str | bytes, ...]
    """What the application got."""


class Around:
    """A hub, and a world that answers when it is told to. One serves many streams, each on a new connection."""

    def __init__(self, setting: str) -> None:
        self.setting = setting_of(setting)
        self.hub = Hub(self.setting.config, policy=self.setting.policy)
        self.log = PureLog(EPOCH)
        self.now = 1000.0
        self.conn = BYSTANDER
        self.sent: dict[int, list[bytes]] = {}
        self._records: deque[Opened | MessageReceived] = deque()
        self._asked: deque[Effect] = deque()
        self._flushed: list[tuple[int, int]] = []
        self._gone: list[int] = []
        self._ends: list[tuple[int, bool]] = []
        self._closed: list[tuple[int, str]] = []
        self._app: list[AppMessage | str | bytes] = []
        self._connect(BYSTANDER)
        for room in ("a", "b", "tmp.x"):
            self.put(BytesReceived(BYSTANDER, text_frame({"type": "$join", "room": room})))
        self.answer()

    # ---- the hub and what it asks -----------------------------------------------------------------

    def put(self, input: Input) -> list[Effect]:
        """Hands one input in, notes what is to be done, and returns it."""
        effects = self.hub.handle(input, self.now)
        if effects:
            self._note(effects)
        return effects

    def _note(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is SendBytes:
                self._send(effect.conn, effect.data)  # type: ignore[union-attr]  # `kind` says what it is.
            elif kind in STORE_ASKS or kind is Authenticate or kind is Authorize:
                self._asked.append(effect)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    self._send(conn, effect.data)
            elif isinstance(effect, Opened | MessageReceived):
                self._records.append(effect)
            elif isinstance(effect, Requested):
                self._requested(effect)
            elif isinstance(effect, CloseTransport):
                self._gone.append(effect.conn)
                if effect.conn == self.conn:
                    self._ends.append((sum(map(len, self.sent[self.conn])), effect.abort))
            elif isinstance(effect, Closed) and effect.conn == self.conn:
                self._closed.append((effect.code, effect.reason))

    def _send(self, conn: int, data: bytes) -> None:
        self.sent.setdefault(conn, []).append(data)
        self._flushed.append((conn, len(data)))

    def _requested(self, effect: Requested) -> None:
        setting, conn = self.setting, effect.conn
        if effect.upgrade:
            user = "eve" if conn == BYSTANDER else setting.user
            self.put(Accept(conn, typed=setting.typed, guarded=setting.guarded, user=user))
        else:
            self.put(Respond(conn, 404))

    def go_on(self) -> None:
        """Gives the hub the steps that are due now, as for bytes that wait for their turn."""
        while (due := self.hub.next_deadline()) is not None and due <= self.now:
            self.put(TimePassed())

    def answer(self) -> None:
        """The world answers all that was asked: first the application, then everything else, one at a time."""
        while self._records or self._asked or self._flushed or self._gone:
            if self._records:
                self._handle(self._records.popleft())
            elif self._asked:
                self._tell(self._asked.popleft())
            elif self._flushed:
                flushed, self._flushed = tuple(self._flushed), []
                self.put(BytesFlushed(flushed))
            else:
                self.put(Disconnected(self._gone.pop(0)))
            self.go_on()

    def _handle(self, record: Opened | MessageReceived) -> None:
        conn = record.conn
        if isinstance(record, MessageReceived):
            for message in record.messages:
                if conn == self.conn:
                    self._app.append(message)
                size = len(message.text if isinstance(message, AppMessage) else message)
                self.put(Send(conn, b'{"type":"echo","payload":{"size":%d}}' % size, answer=True))
        self.put(HandlerFinished(conn))

    def _tell(self, ask: Effect) -> None:
        if isinstance(ask, Authenticate):
            self.put(_who(ask))
        elif isinstance(ask, Authorize):
            self.put(_may(ask))
        else:
            for told in run_asks(self.log, (ask,), TS):  # type: ignore[arg-type]  # Nothing else is kept.
                self.put(told)

    # ---- one stream ---------------------------------------------------------------------------------

    def _connect(self, conn: int, request: bytes = REQUEST) -> None:
        self.put(Connected(conn))
        if request:
            self.put(BytesReceived(conn, request))
            self.answer()

    def play(self, stream: Stream, cut: Callable[[bytes], Iterable[bytes]]) -> Heard:
        """Feeds a stream to a new connection, each part between two stops cut by `cut`; says what it led to."""
        self.conn += 1
        self.sent = {self.conn: [], BYSTANDER: []}
        self._ends, self._closed, self._app = [], [], []
        self._connect(self.conn, b"" if stream.request else REQUEST)
        data, at = stream.request + stream.data, 0
        for stop, seconds in (*stream.stops, (len(stream.data), 0.0)):
            stop += len(stream.request)
            self._feed(cut(data[at:stop]))
            at = stop
            self.answer()
            if seconds:
                self._pass(seconds)
        if not self._ends:
            self.put(Disconnected(self.conn, "the peer is gone"))
            self.go_on()
            self.answer()
        self._check_nothing_held()
        return Heard(
            b"".join(self.sent[self.conn]),
            b"".join(self.sent[BYSTANDER]),
            tuple(self._ends),
            tuple(self._closed),
            tuple(self._app),
        )

    def _feed(self, pieces: Iterable[bytes]) -> None:
        conn, handle, now = self.conn, self.hub.handle, self.now
        for piece in pieces:
            effects = handle(BytesReceived(conn, piece), now)
            if effects:
                self._note(effects)
                if self._ends:
                    break
            if len(piece) > 64:  # So many frames are taken in a step, and none is shorter than two bytes.
                self.go_on()
        self.go_on()
        assert self.hub.queued_messages_of(conn) < QUEUE_MAX, "more messages wait than may"

    def _pass(self, seconds: float) -> None:
        """Lets time pass; the bystander shows that it is there."""
        until = self.now + seconds
        while (due := self.hub.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.put(BytesReceived(BYSTANDER, PONG_FRAME))
            self.put(TimePassed())
            self.answer()
        self.now = until

    def _check_nothing_held(self) -> None:
        """Behind the end of a connection only the bystander is left."""
        hub = self.hub
        assert hub.connections == hub.sessions == 1 and hub.unsent_bytes == 0, "something of a connection is left"
        assert set(hub.rooms()) <= {"a", "b", "tmp.x"}, f"rooms are left: {hub.rooms()}"


def _who(ask: Authenticate) -> Authenticated:
    if ask.token in ("ada", "bob"):
        return Authenticated(ask.request, ask.token)
    if ask.token == "short":
        return Authenticated(ask.request, "ada", 5.0, 1_005.0)
    if ask.token == "fail":
        return Authenticated(ask.request, code="internal")
    return Authenticated(ask.request, message="nobody")


def _may(ask: Authorize) -> Authorized:
    if ask.room == "deny" and ask.conn != BYSTANDER:
        return Authorized(ask.request)
    if ask.room == "fail":
        return Authorized(ask.request, code="internal")
    return Authorized(ask.request, ("join", "read", "publish"), 3.0 if ask.room == "soon" else None)


# ---- cuts -------------------------------------------------------------------------------------------


def cut_whole(data: bytes) -> Iterable[bytes]:
    """All in one read."""
    return (data,) if data else ()


def cut_in_bytes(data: bytes) -> Iterable[bytes]:
    """Each byte in a read of its own."""
    return (data[at : at + 1] for at in range(len(data)))


def cut_by_chance(stream: Random, data: bytes) -> Iterable[bytes]:
    """Reads of 1 to 40 bytes, many of them short."""
    at = 0
    while at < len(data):
        size = stream.choice((1, 2, 3, 7, 20, 40))
        yield data[at : at + size]
        at += size


CUTS: dict[str, Callable[[str], Callable[[bytes], Iterable[bytes]]]] = {
    "whole": lambda _: cut_whole,
    "bytes": lambda _: cut_in_bytes,
    "chance": lambda seed: partial(cut_by_chance, Random(seed)),
}
"""The ways to cut, by name; each is given a seed."""


def compare(stream: Stream, seed: str, arounds: Sequence[Around] | None = None) -> str:
    """Plays a stream in every cut; returns how the answers differ from those to the whole, or "".

    `arounds`: one for each of `CUTS`, all with one history; fresh ones where none are given.
    """
    each = arounds or [Around(stream.setting) for _ in CUTS]
    heard = {name: around.play(stream, cut(seed)) for around, (name, cut) in zip(each, CUTS.items(), strict=True)}
    whole = heard["whole"]
    return "\n".join(
        f"{field} {name}: {two!r:.1000}\n{field} whole: {one!r:.1000}"
        for name, found in heard.items()
        for field, one, two in zip(Heard._fields, whole, found, strict=True)
        if one != two
    )


def smallest(stream: Stream, fails: Callable[[Stream], object]) -> Stream:
    """A stream that fails too and from which nothing more can be taken away."""
    if stream.request and fails(stream._replace(request=b"")):
        stream = stream._replace(request=b"")
    for at in reversed(range(len(stream.stops))):
        less = stream._replace(stops=stream.stops[:at] + stream.stops[at + 1 :])
        if fails(less):
            stream = less
    size = max(1, len(stream.data) // 2)
    while True:
        at = shrunk = 0
        while at < len(stream.data):
            data = stream.data[:at] + stream.data[at + size :]
            stops = tuple((max(at, stop - size) if stop > at else stop, seconds) for stop, seconds in stream.stops)
            less = stream._replace(data=data, stops=stops)
            if fails(less):
                stream, shrunk = less, shrunk + 1
            else:
                at += size
        if size == 1 and not shrunk:
            return stream
        size = max(1, size // 2)
