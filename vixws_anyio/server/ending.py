"""How a run ends: why, how long each part of its drain may take, and what the log says of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

from ..logs import clean, log

__all__ = ["DrainTimes", "Ending"]


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """The parts of a drain, in seconds from its beginning. All of it, the end of the process included, is `drain_s`."""

    store_s: float
    """Until then the store waits for others' locks, so that who publishes hears of a failure before the close."""
    hub_s: float
    """Until then the hub has closed all its clients, and handlers may run."""
    flush_s: float
    """Until then the store has flushed what was accepted."""

    @classmethod
    def of(cls, drain_s: float) -> DrainTimes:
        """Divides a drain: its last sixteenth, at most half a second, is for closing what is open."""
        last_s = min(0.5, drain_s / 16)
        hub_s = drain_s - last_s
        return cls(hub_s * 0.75, hub_s, drain_s - last_s / 2)


class Ending:
    """Why a run ends, and since when. Its lines in the log come in order: draining, stopped."""

    def __init__(self) -> None:
        self._reason = ""
        self._drains_since: float | None = None
        self._drained_s = 0.0
        self._unfinished = 0

    def asked(self, reason: str) -> None:
        """Somebody asks for the end; the first one's reason counts."""
        self._reason = self._reason or clean(reason)

    def draining(self, drain_s: float, connections: int) -> None:
        """The drain begins."""
        self._drains_since = time.monotonic()
        log.info("draining: %s; %d connections have %.4g s", self._reason, connections, drain_s)

    def drained(self, unfinished: int) -> None:
        """The drain is over: all clients are closed, or their time is; so many had something under way."""
        self._unfinished = unfinished
        if self._drains_since is not None:
            self._drained_s = time.monotonic() - self._drains_since

    def stopped(self, raised: BaseException | None, cancellation: type[BaseException]) -> None:
        """The run is over, and nothing of it is open. `cancellation` is how the loop's own cancelling is raised."""
        drain = "without a drain" if self._drains_since is None else f"the drain took {self._drained_s:.2f} s"
        if self._unfinished:
            drain += f" and left {self._unfinished} connections unfinished"
        failures = [exc for exc in _leaves(raised) if not isinstance(exc, cancellation)]
        if failures:
            log.error("stopped: failed with %s; %s", clean(repr(failures[0])), drain)
        elif raised is not None and not self._reason:
            log.info("stopped: cancelled; %s", drain)
        else:
            log.info("stopped: %s; %s", self._reason, drain)


def _leaves(exc: BaseException | None) -> list[BaseException]:
    """The exceptions of a group, however deep, or the one."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
    return [] if exc is None else [exc]
