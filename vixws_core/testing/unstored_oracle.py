"""An oracle for messages that no log keeps: whoever takes bytes gets them, and who does not is told how many it missed.

PROTOCOL §5: "In rooms that are not stored, what came meanwhile is dropped and counted".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..config import HubConfig
from .answers import is_stored
from .cursor_oracle import Place
from .decoding import Asked, Heard
from .door import Conn
from .oracle import check

__all__ = ["UnstoredOracle"]


class UnstoredOracle:
    """Counts what passes each member of a room that is not stored."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._done: Counter[str] = Counter()
        """Messages that were published, of each room: a handler did, or the client had its answer."""
        self._sent: Counter[str] = Counter()
        """Those that somebody was sent."""
        self._unknown: Counter[str] = Counter()
        """Those that have no answer to come, and may have been published."""

    def published(self, room: str) -> None:
        """Somebody published into a room, where it is one that is not stored."""
        self._done[room] += 1

    def unanswered(self, asked: Asked) -> None:
        """Nobody will tell what became of a message: it may have been published."""
        if asked.room and asked.type[:1] != "$" and not is_stored(self._config, asked.room):
            self._unknown[asked.room] += 1

    def _unseen(self, room: str) -> int:
        """Messages that were published and that nobody was sent: all members are parked, or there are none."""
        return self._done[room] - self._sent[room]

    def parks(self, conn: Conn) -> None:
        """A connection takes nothing more for a while."""
        for room, place in conn.places.items():
            place.base = self._unseen(room)

    def sent(self, heard: Heard, receivers: Iterable[int], conns: Mapping[int, Conn]) -> None:
        """One message went to `receivers`, all at once."""
        room = heard.room or ""
        stored = is_stored(self._config, room)
        got = frozenset(receivers)
        self._sent[room] += 1
        for id, conn in conns.items():
            place = conn.places.get(room)
            if place is None or not conn.opened or conn.closed or conn.transport_ended:
                continue
            if id in got:
                check(
                    not place.missed or not place.is_told(conn.hello),
                    f"connection {id} missed {place.missed} messages of {room!r} and is sent the next, expected $gap",
                )
            elif stored:
                waits = place.by_wire_asked and not place.was_told
                check(not waits or conn.heavy, f"connection {id} is joining {room!r} and is not sent {heard!r:.200}")
            else:
                check(conn.heavy, f"connection {id} takes bytes and is in {room!r}, but is not sent {heard!r:.200}")
                place.missed += 1

    def gap(self, id: int, place: Place, heard: Heard) -> None:
        """`$gap` with how many were dropped."""
        told = heard.payload.get("dropped", 0)
        unseen = max(0, self._unseen(place.room) - place.base) + self._unknown[place.room]
        check(
            max(1, place.missed) <= told <= place.missed + unseen,
            f"connection {id} is told {told} dropped messages of {place.room!r}, it missed {place.missed}",
        )
        place.missed = 0
