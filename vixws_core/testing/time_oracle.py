"""An oracle for time: who is pinged and when, who is given up and why, and how a server that goes ends.

PROTOCOL §5: "in this as in any reading pause every deadline that only reading can meet is suspended"; §11: the closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..codes import (
    CLOSE_DRAIN,
    CLOSE_GOING_AWAY,
    CLOSE_POLICY,
    CLOSE_RESTART,
    CLOSE_SERVER_FAULT,
    CLOSE_SLOW,
)
from ..config import HubConfig
from ..inputs import HandlerFinished, Input, Shutdown, TimePassed
from .decoding import Heard
from .door import Conn
from .oracle import check

__all__ = ["TimeOracle"]

_LATE_S: Final = 4.0
"""How late a world may tell a hub that its time has come: its longest step, and some more."""

_EPS: Final = 1e-6

_FAREWELL_MAX_S: Final = 1.0
"""Longest time between the last close frames of a drain and its end (PROTOCOL §11)."""


class TimeOracle:
    """Judges when a hub does what it does by itself."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._now = 0.0
        self._input: Input = TimePassed()
        self._looked = 0.0
        self._drain_from: float | None = None
        self._drain_until = 0.0
        self._close_at = 0.0
        self._slots: list[float] = []
        self._drain_told: set[int] = set()

    def note(self, now: float, input: Input) -> None:
        """A step begins."""
        self._now, self._input = now, input
        if isinstance(input, Shutdown):
            ends = now + input.drain_s
            close_at = ends - min(_FAREWELL_MAX_S, input.drain_s / 8)
            if self._drain_from is None:
                self._drain_from, self._drain_until, self._close_at = now, ends, close_at
            else:
                self._drain_until, self._close_at = min(self._drain_until, ends), min(self._close_at, close_at)

    # ---- what is put out --------------------------------------------------------------------------

    def pings(self, id: int, conn: Conn) -> None:
        """A ping is sent."""
        since = max(conn.heard_at, conn.read_at)
        silent = self._now - since
        check(
            not conn.paused and silent >= self._config.ping_interval_s - _EPS,
            f"connection {id} is pinged after {silent:.3f} s, paused: {conn.paused}; expected to read it, and silence "
            f"of {self._config.ping_interval_s} s",
        )
        conn.ping_at = self._now

    def closes(self, id: int, conn: Conn, heard: Heard) -> None:
        """A close frame is sent: its reason holds."""
        code, now, config = heard.code, self._now, self._config
        who = f"connection {id} is closed with {code} {heard.reason!r} at {now:.3f}"
        if conn.ending:
            # RFC 6455 §5.5.1: "the endpoint typically echos the status code it received".
            own = code in (CLOSE_SERVER_FAULT, CLOSE_RESTART) or code >= 4000
            check(code == conn.peer_code or own or not conn.peer_code, f"{who}: the peer closed with {conn.peer_code}")
            return
        if code == CLOSE_SERVER_FAULT:
            failed = isinstance(self._input, HandlerFinished) and self._input.failed
            unanswered = conn.ping_at > conn.heard_at and now >= conn.ping_at + config.pong_timeout_s - _EPS
            check(
                failed or (unanswered and not conn.paused),
                f"{who}: a ping at {conn.ping_at:.3f}, bytes at {conn.heard_at:.3f}, paused: {conn.paused}",
            )
        elif code == CLOSE_SLOW:
            stalled = now - conn.flushed_at >= config.flush_stall_s - _EPS
            check(conn.heavy and stalled, f"{who}: it took bytes at {conn.flushed_at:.3f}, heavy: {conn.heavy}")
        elif code == CLOSE_GOING_AWAY and heard.reason == "idle":
            idle = now - conn.frame_at >= config.idle_timeout_s - _EPS
            check(idle and not conn.paused, f"{who}: a data frame at {conn.frame_at:.3f}, paused: {conn.paused}")
        elif code == CLOSE_POLICY and "message" in heard.reason:
            late = conn.partial_since is not None and now - conn.partial_since >= config.message_timeout_s - _EPS
            check(late, f"{who}: the message began at {conn.partial_since}")
        elif code in (CLOSE_DRAIN, CLOSE_RESTART):
            check(self._drain_from is not None, f"{who}: the server does not shut down")
            check((code == CLOSE_DRAIN) is conn.hello, f"{who}: hello is {conn.hello}")
            owed = next(iter(conn.asked.values()), None)
            check(
                owed is None or conn.paused or now >= self._close_at - _EPS,
                f"{who}: it is owed an answer to {owed!r:.200}, expected to wait for it until {self._close_at:.3f}",
            )

    def drains(self, id: int, conn: Conn, heard: Heard) -> None:
        """`$drain`: once, and another slot for every connection."""
        told = heard.payload
        who = f"connection {id}: {heard!r:.200}"
        check(self._drain_from is not None and id not in self._drain_told, f"{who}: expected one, at a shutdown")
        self._drain_told.add(id)
        slot, left = float(told["reconnect_in_ms"]), float(told["close_in_ms"])
        gap = 1_250.0 / self._config.handshakes_per_s
        fits = not self._slots or slot >= self._slots[-1] + gap - 1.01
        check(fits and slot >= 1_000 * self._config.reconnect_first_s - 1, f"{who} behind slots {self._slots[-3:]}")
        self._slots.append(slot)
        most = 1_000 * (self._close_at - self._now) + 1
        check(0 <= left <= most and (not conn.asked or conn.paused or left > 0), f"{who}: {len(conn.asked)} are owed")

    # ---- what is due ------------------------------------------------------------------------------

    def check_due(self, conns: Mapping[int, Conn]) -> None:
        """Nothing that is due is left undone. At `TimePassed` at once, else as soon as it must have been told."""
        exact = isinstance(self._input, TimePassed)
        if not exact and self._now - self._looked < 1.0:
            return
        self._looked = self._now
        late = _EPS if exact else _LATE_S
        for id, conn in conns.items():
            self._check_one(id, conn, late)
        if self._drain_from is not None:
            late_s = self._now - self._drain_until
            open_still = [id for id, conn in conns.items() if not conn.transport_ended]
            check(late_s < late or not open_still, f"connections {open_still} are open {late_s:.3f} s after the drain")

    def _check_one(self, id: int, conn: Conn, late: float) -> None:
        config, now = self._config, self._now
        if conn.transport_ended:
            return
        if not conn.accepted:
            waited = now - conn.since - config.handshake_timeout_s
            check(waited < late, f"connection {id} is {waited:.3f} s late with its request, expected an end")
            return
        if conn.closed or conn.ending:
            waited = now - conn.since - config.close_timeout_s
            check(not conn.closed or waited < late, f"connection {id} closes for {waited:.3f} s too long")
            return
        if conn.heavy:
            stalled = now - conn.flushed_at - config.flush_stall_s
            check(stalled < late, f"connection {id} took no byte for {stalled:.3f} s too long, expected an end (4108)")
        if conn.paused:
            return
        silent = now - conn.active_at - config.ping_interval_s
        if conn.ping_at > conn.active_at:
            silent = now - conn.ping_at - config.pong_timeout_s
        check(silent < late, f"connection {id} is silent for {silent:.3f} s too long, expected a ping or an end")
        if conn.partial_since is not None:
            waited = now - max(conn.partial_since, conn.read_at) - config.message_timeout_s
            check(waited < late, f"connection {id} is {waited:.3f} s late with the rest of a message")
        if config.idle_timeout_s:
            idle = now - max(conn.frame_at, conn.read_at) - config.idle_timeout_s
            check(idle < late, f"connection {id} is idle for {idle:.3f} s too long")
