"""The fold: what passes the door, added up as plain ints.

It knows the records and nothing of Prometheus; `collector.py` names and describes what is counted here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from vixws_core.codes import BAD_MESSAGE, ERRORS, FENCED, MID_CONFLICT, MISBEHAVIOUR, SEQ_GAP, STALE_MID
from vixws_core.effects import (
    Broadcast,
    Closed,
    Effect,
    Joined,
    Left,
    MessageReceived,
    Opened,
    PauseReading,
    PeerMisbehaved,
    ResumeReading,
    SendBytes,
    StoreAppend,
)
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    Send,
    StoreAppended,
    StoreFailed,
    TimePassed,
)

__all__ = ["ERROR_KINDS", "Fold", "Histogram"]

ERROR_KINDS = tuple(
    sorted({*(error.code for error in ERRORS), *(fault.word for fault in MISBEHAVIOUR), "handler", "other", "store"})
)
"""The kinds errors are counted by, sorted: a peer's (`vixws_core.codes`), `handler` for a handler that raised, `store`
for a store that could not, `other` for every word not listed here."""

_NOT_THE_STORES_FAULT = frozenset({BAD_MESSAGE, FENCED, MID_CONFLICT, SEQ_GAP, STALE_MID})
"""Codes of `StoreFailed` that tell of what was asked, not of the store."""

_FIRST_BOUND_S = 0.0001
"""The upper bound of the bucket that most plain handlers fall into."""

_FROM_CLIENTS = frozenset({Accept, BytesReceived, HandlerFinished, TimePassed})
"""Inputs at which a client's message gets its turn: an append or a broadcast of such a step is a client's publish,
all others are the application's or the log's."""

_COUNT = itemgetter(1)

_Take = Callable[[Any, float], None]


class Histogram:
    """Counts of seconds by bucket, and their sum.

    `bounds` are the buckets' inclusive upper bounds, rising; one more bucket takes what is above the last.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, *bounds: float) -> None:
        self.bounds: tuple[float, ...] = tuple(float(bound) for bound in bounds)
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.sum: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration; a negative one counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Fold:
    """A consumer that counts. `see` belongs to the event loop's thread; any thread may read the numbers.

    Every field is an int that is replaced, or a container whose copy (`dict(…)`, `list(…)`) and length are taken in
    one go, so a reader in another thread sees each number whole, though not all of the same instant. Memory: one
    entry for each room with members, each append that waits for its answer and each connection not read.
    """

    __slots__ = (
        "_effects",
        "_effects_from_clients",
        "_inputs",
        "active_connections",
        "active_sessions",
        "append_seconds",
        "appends_waiting",
        "broadcasts",
        "connections",
        "deliveries",
        "errors",
        "gave_way",
        "handler_seconds",
        "joins",
        "leaves",
        "log_bytes",
        "members",
        "not_read",
        "received_bytes",
        "received_messages",
        "refused",
        "sent_bytes",
        "sent_messages",
        "sessions",
    )

    def __init__(self) -> None:
        self.connections: int = 0
        """Transports accepted."""
        self.active_connections: int = 0
        self.refused: int = 0
        """Connections turned away over a limit. This and the next are told by whoever accepts: no step has them."""
        self.gave_way: int = 0
        """Handshakes ended for the sake of a newcomer of another address."""
        self.sessions: int = 0
        """WebSockets opened."""
        self.active_sessions: int = 0
        self.received_bytes: int = 0
        self.received_messages: int = 0
        self.sent_bytes: int = 0
        self.sent_messages: int = 0
        self.errors: dict[str, int] = dict.fromkeys(ERROR_KINDS, 0)
        """Its keys never change."""
        self.joins: int = 0
        self.leaves: int = 0
        self.members: dict[str, int] = {}
        """Members of each room that has any."""
        self.broadcasts: int = 0
        self.deliveries: int = 0
        self.not_read: set[int] = set()
        """Connections that are not read from."""
        self.appends_waiting: dict[int, float] = {}
        """When each append that is not answered yet was asked, by its request."""
        self.log_bytes: Callable[[], int] = int
        """Bytes of the store's write-ahead log; the store is asked, for no step has them."""
        self.handler_seconds: Histogram = Histogram(
            _FIRST_BOUND_S, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5
        )
        self.append_seconds: Histogram = Histogram(
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5
        )
        self._inputs: dict[type, _Take] = {
            BytesFlushed: self._bytes_flushed,
            StoreAppended: self._appended,
            StoreFailed: self._store_failed,
            Connected: self._connected,
            Disconnected: self._disconnected,
        }
        self._effects: dict[type, _Take] = {
            MessageReceived: self._messages_received,
            SendBytes: self._sent,
            Broadcast: self._broadcast,
            StoreAppend: self._append,
            Joined: self._joined,
            Left: self._left,
            PauseReading: self._paused,
            ResumeReading: self._resumed,
            PeerMisbehaved: self._misbehaved,
            Opened: self._opened,
            Closed: self._closed,
        }
        self._effects_from_clients: dict[type, _Take] = {
            **self._effects,
            Broadcast: self._broadcast_of_client,
            StoreAppend: self._append_of_client,
        }

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Counts one step of the door."""
        # What an echo consists of is counted here, not through the tables: that took 0.9 µs of its 15.
        if type(input) is Send:
            if len(effects) == 1 and type(effects[0]) is SendBytes:
                self.sent_messages += 1
                return
        elif type(input) is BytesReceived:
            self.received_bytes += len(input.data)
            if len(effects) == 1 and type(effect := effects[0]) is MessageReceived:
                self.received_messages += len(effect.messages)
                return
        elif type(input) is HandlerFinished:
            seconds, histogram = input.seconds, self.handler_seconds
            if 0.0 <= seconds <= _FIRST_BOUND_S:
                histogram.counts[0] += 1
                histogram.sum += seconds
            else:
                histogram.add(seconds)
            if input.failed:
                self.errors["handler"] += 1
        elif (take := self._inputs.get(type(input))) is not None:
            take(input, now)
        if effects:
            takes = self._effects_from_clients if type(input) in _FROM_CLIENTS else self._effects
            for each in effects:
                take = takes.get(type(each))
                if take is not None:
                    take(each, now)

    # ---- who never comes to the door ------------------------------------------------------------

    def count_refused(self) -> None:
        """A connection was turned away over a limit."""
        self.refused += 1

    def count_gave_way(self) -> None:
        """A handshake was cut for the sake of a newcomer of another address."""
        self.gave_way += 1

    def watch_log(self, size: Callable[[], int]) -> None:
        """The size of the store's write-ahead log is asked for here, in any thread."""
        self.log_bytes = size

    # ---- inputs ---------------------------------------------------------------------------------

    def _connected(self, _: Connected, now: float) -> None:
        self.connections += 1
        self.active_connections += 1

    def _disconnected(self, input: Disconnected, now: float) -> None:
        self.active_connections -= 1
        self.not_read.discard(input.conn)  # The end of a connection that is not read tells of no `ResumeReading`.

    def _bytes_flushed(self, input: BytesFlushed, now: float) -> None:
        self.sent_bytes += sum(map(_COUNT, input.flushed))

    def _appended(self, input: StoreAppended, now: float) -> None:
        asked = self.appends_waiting.pop(input.request, None)
        if asked is not None:
            self.append_seconds.add(now - asked)

    def _store_failed(self, input: StoreFailed, now: float) -> None:
        asked = self.appends_waiting.pop(input.request, None)  # None: it was a read that failed.
        if asked is not None:
            self.append_seconds.add(now - asked)
        self.errors[input.code if input.code in _NOT_THE_STORES_FAULT else "store"] += 1

    # ---- effects --------------------------------------------------------------------------------

    def _opened(self, _: Opened, now: float) -> None:
        self.sessions += 1
        self.active_sessions += 1

    def _closed(self, _: Closed, now: float) -> None:
        self.active_sessions -= 1

    def _messages_received(self, effect: MessageReceived, now: float) -> None:
        self.received_messages += len(effect.messages)

    def _sent(self, effect: SendBytes, now: float) -> None:
        self.sent_messages += effect.frames

    def _broadcast(self, effect: Broadcast, now: float) -> None:
        frames = effect.frames
        copies = frames * len(effect.conns)
        self.broadcasts += frames
        self.deliveries += copies
        self.sent_messages += copies

    def _broadcast_of_client(self, effect: Broadcast, now: float) -> None:
        self.received_messages += effect.frames
        self._broadcast(effect, now)

    def _append(self, effect: StoreAppend, now: float) -> None:
        self.appends_waiting[effect.request] = now

    def _append_of_client(self, effect: StoreAppend, now: float) -> None:
        self.received_messages += 1
        self.appends_waiting[effect.request] = now

    def _joined(self, effect: Joined, now: float) -> None:
        self.joins += 1
        self.members[effect.room] = self.members.get(effect.room, 0) + 1

    def _left(self, effect: Left, now: float) -> None:
        self.leaves += 1
        left = self.members.pop(effect.room, 0) - 1
        if left > 0:
            self.members[effect.room] = left

    def _paused(self, effect: PauseReading, now: float) -> None:
        self.not_read.add(effect.conn)

    def _resumed(self, effect: ResumeReading, now: float) -> None:
        self.not_read.discard(effect.conn)

    def _misbehaved(self, effect: PeerMisbehaved, now: float) -> None:
        self.errors[effect.kind if effect.kind in self.errors else "other"] += 1
