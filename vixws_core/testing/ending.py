"""When a world has settled, and what must hold of it then: nobody got anything twice, and nothing is stored twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..log import PureLog
from .client import Client
from .network import Network
from .oracle import check
from .server import Server
from .store import SimStore

__all__ = ["check_end", "what_keeps"]


def check_end(clients: Sequence[Client], log: PureLog, others: Counter[tuple[str, bytes]]) -> None:
    """Judges the end. `others`: what others than clients stored, by room and payload. Raises: `OracleFailed`."""
    for client in clients:
        machine, mangler = client.machine, client.mangler
        jumps, twice = machine.jumps, machine.duplicates_dropped
        check(jumps <= mangler.jumps, f"{client} found offsets missing {jumps} times, {mangler.jumps} at most were")
        check(twice <= mangler.repeated, f"{client} got {twice} messages twice, {mangler.repeated} at most were")
    # A publish that is sent again after a loss is stored once; what was asked for twice may stand there twice.
    asked: Counter[tuple[str, bytes]] = Counter()
    for client in clients:
        asked.update(client.published)
    stored: Counter[tuple[str, bytes]] = Counter()
    for room in log.rooms():
        for row in log.read(room, 0, 1 << 53, 1 << 30, 1 << 60).rows:
            key = (room, row.payload_json)
            stored[key] += 1
            most = asked[key] + others[key]
            check(not asked[key] or stored[key] <= most, f"{row!r:.200} is stored {stored[key]} times, not {most}")


def what_keeps(server: Server, network: Network, store: SimStore, clients: Sequence[Client]) -> str:
    """What keeps a world from being settled, in words; "" for nothing."""
    if not network.is_idle:
        return "bytes are under way"
    if not store.is_idle:
        return "the store has work"
    if server.hub.draining:
        return "the server drains"
    for client in clients:
        lacking = client.lacks(store.truth.head)
        if lacking:
            return f"{client}: {lacking}"
    return server.door.lacks()
