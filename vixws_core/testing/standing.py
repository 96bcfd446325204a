"""What connections still lack, when a world comes to rest; and who gets what is said to all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..inputs import SendToAll
from .door import Conn
from .oracle import check
from .store import Truth

__all__ = ["check_to_all", "what_lacks", "what_stands"]


def what_stands(conns: Mapping[int, Conn], truth: Truth) -> str:
    """Who lacks messages though nothing is under way to him and he takes bytes; "" for nobody."""
    for id, conn in conns.items():
        if conn.opened and not conn.ending and not conn.held:
            for place in conn.places.values():
                lacking = place.lacks(truth)
                if lacking:
                    return f"connection {id}: {lacking}"
    return ""


def what_lacks(conns: Mapping[int, Conn], truth: Truth, policed: bool) -> str:
    """What some connection still lacks; "" for nothing. `policed`: what it missed while it was held is not counted."""
    for id, conn in conns.items():
        if conn.ending or not conn.opened:
            continue
        if conn.asked:
            return f"connection {id}: no answer to {next(iter(conn.asked.values()))!r:.200}"
        if sum(conn.mids.values()) > conn.loose_errors:
            return f"connection {id}: no answer to the publishes {dict(+conn.mids)}"
        if conn.pings:
            return f"connection {id}: no pong to {conn.pings[0]!r}"
        for place in conn.places.values():
            lacking = place.lacks(truth)
            if not lacking and place.missed and not policed and place.is_told(conn.hello) and not conn.heavy:
                lacking = f"it was not told of {place.missed} messages of {place.room!r} that it missed"
            if lacking:
                return f"connection {id}: {lacking}"
    return ""


def check_to_all(asked: SendToAll, told: Iterable[int], conns: Mapping[int, Conn], now: float) -> None:
    """What is said to all goes to everybody who is there and takes bytes, but to the one who is left out."""
    got = set(told)
    for id, conn in conns.items():
        there = conn.opened and not (conn.ending or conn.closed)
        if there and id != asked.but and not conn.heavy:
            check(id in got, f"connection {id} takes bytes, and is not sent {asked.data!r:.100}, which goes to all")
        was_heavy = conn.heavy and conn.flushed_at < now
        check(id not in got or not was_heavy, f"connection {id} takes no bytes, and is sent {asked.data!r:.100}")
    check(asked.but not in got, f"connection {asked.but} is sent {asked.data!r:.100}, from which it is left out")
