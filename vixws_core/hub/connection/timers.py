"""When a connection is looked at next. Finding that time does nothing else; `hub/deadlines.py` acts on it."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ..model import ASKED, ENDING, FAR, GONE, HEAD, OPEN, Connection, Pause
from ..step import Step

__all__ = ["Timers"]

_STALE_MAX = 64
"""Replaced entries that are kept besides one for each connection."""


class Timers:
    """A heap of times, re-armed lazily: a message costs attribute stores, and an entry that fires early is put back."""

    __slots__ = ("_heap", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._heap: list[tuple[float, int]] = []

    def arm(self, connection: Connection, when: float) -> None:
        """Sees to it that `connection` is looked at no later than `when`."""
        if when < connection.armed:
            connection.armed = when
            heappush(self._heap, (when, connection.id))
            if len(self._heap) > 2 * len(self._step.connections) + _STALE_MAX:
                self._drop_stale()

    def _drop_stale(self) -> None:
        """Lets go of entries that another one replaced: at most one for each connection stays."""
        connections = self._step.connections.values()
        self._heap = [(one.armed, one.id) for one in connections if one.armed != FAR]
        heapify(self._heap)

    @property
    def size(self) -> int:
        """Entries in the heap, those included that another one replaced."""
        return len(self._heap)

    def due(self) -> Connection | None:
        """Takes the next connection whose time to be looked at has come."""
        heap = self._heap
        while heap and heap[0][0] <= self._step.now:
            when, id = heappop(heap)
            connection = self._step.connections.get(id)
            if connection is not None and connection.armed == when:
                connection.armed = FAR
                return connection
        return None

    def deadline(self) -> float | None:
        """When to look next; None where nothing waits for time."""
        heap = self._heap
        while heap:
            when, id = heap[0]
            connection = self._step.connections.get(id)
            if connection is not None and connection.armed == when:
                return when
            heappop(heap)
        return None

    def next_of(self, connection: Connection) -> float:
        """When something is due for a connection as it is now; `FAR` where nothing is."""
        config, state = self._step.config, connection.state
        if state is not OPEN:
            if state is GONE:
                return FAR
            opening = state is HEAD or state is ASKED
            when = connection.since + (config.handshake_timeout_s if opening else config.close_timeout_s)
            if state is ENDING and (session := connection.session) is not None and session.identity is not None:
                when = min(when, session.identity.next_at)
            return when
        when = connection.resume_at
        if connection.parked:
            when = min(when, connection.last_flush + config.flush_stall_s)
        if (session := connection.session) is not None:
            when = min(when, session.retry_at)
            if session.identity is not None:
                when = min(when, session.identity.next_at)
        if connection.pauses == Pause.CROWDED:
            return min(when, connection.message_since + config.message_timeout_s)
        if connection.pauses:
            return when  # Every deadline that only reading can meet is suspended (PROTOCOL §5).
        silent = self.silent_since(connection)
        if connection.ping_sent > silent:
            when = min(when, connection.ping_sent + config.pong_timeout_s)
        elif config.ping_interval_s:
            when = min(when, silent + config.ping_interval_s)
        if config.idle_timeout_s:
            when = min(when, self.idle_since(connection) + config.idle_timeout_s)
        return min(when, connection.message_since + config.message_timeout_s)

    @staticmethod
    def silent_since(connection: Connection) -> float:
        """Since when it gave no sign of life, while it was read: no byte came, and it took none of those that wait.

        A ping of ours stands behind what waits, and a peer that reads slowly answers it late.
        """
        return max(connection.last_received, connection.resumed_at, connection.last_flush)

    @staticmethod
    def idle_since(connection: Connection) -> float:
        """Since when no data frame went either way, while it was read."""
        return max(connection.last_data, connection.resumed_at)

    def rearm(self, connection: Connection) -> None:
        """Sees to it that a connection is looked at in time; an entry that is early stays, and is put back later."""
        self.arm(connection, self.next_of(connection))

    # ---- what the deadlines are measured by ------------------------------------------------------

    def begin_anew(self, connection: Connection) -> None:
        """It is read (again): what it was to do in time begins now."""
        connection.resumed_at = self._step.now
        if connection.message_since != FAR:
            connection.message_since = self._step.now

    def pinged(self, connection: Connection) -> None:
        """A ping was sent."""
        connection.ping_sent = self._step.now

    def begin_message(self, connection: Connection) -> None:
        """A message began that is not complete yet."""
        connection.message_since = self._step.now
        self.arm(connection, self._step.now + self._step.config.message_timeout_s)

    def end_message(self, connection: Connection) -> None:
        """No message is incomplete, or its time does not count."""
        connection.message_since = FAR
