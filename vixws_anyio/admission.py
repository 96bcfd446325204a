"""Who may connect: limits on all connections, on those still opening, and on each address."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import inf
from typing import Final

__all__ = ["Admission", "AdmissionLimits", "open_files_max"]

ADDRESSES_MAX: Final = 65_536
"""Addresses remembered. When there are more, those without a connection and with a full allowance are forgotten, which
after a second are all; until then no new address is taken."""

FORGETTING_S: Final = 1.0
"""Seconds between two such looks at all addresses, which take some milliseconds."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Most connections: in all, still opening, and of one address; and an address's new ones a second."""

    connections_max: int = 10_000
    connections_opening_max: int = 256
    connections_per_ip: int = 64
    handshakes_per_ip_per_s: float = 20.0
    limit_loopback: bool = False


class _Address:
    __slots__ = ("at", "connections", "tokens")

    def __init__(self, at: float, tokens: float) -> None:
        self.at = at
        self.tokens = tokens
        self.connections = 0


class Admission:
    """Counts connections. An address is an IPv4 address or an IPv6 /64; a Unix socket has none and is not limited."""

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._count = 0
        self._opening: set[int] = set()
        self._addresses: dict[str, _Address] = {}
        self._keys: dict[int, str] = {}
        self._forget_at = -inf

    @property
    def is_full(self) -> bool:
        """Whether no connection at all is taken now."""
        limits = self._limits
        return self._count >= limits.connections_max or len(self._opening) >= limits.connections_opening_max

    def admit(self, conn: int, host: str) -> bool:
        """Counts a new connection, unless a limit speaks against it."""
        if self.is_full:
            return False
        key = self._key(host)
        if key:
            address = self._address(key)
            if address is None:
                return False
            if address.connections >= self._limits.connections_per_ip or address.tokens < 1.0:
                return False
            address.tokens -= 1.0
            address.connections += 1
            self._keys[conn] = key
        self._count += 1
        self._opening.add(conn)
        return True

    def is_limited(self, host: str) -> bool:
        """Whether the limits of one address hold for this one."""
        return bool(self._key(host))

    def opened(self, conn: int) -> None:
        """Its request is answered: it is not opening any more."""
        self._opening.discard(conn)

    def release(self, conn: int) -> None:
        """It is gone."""
        self._count -= 1
        self._opening.discard(conn)
        key = self._keys.pop(conn, None)
        if key is not None:
            self._addresses[key].connections -= 1

    def _key(self, host: str) -> str:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            elif not address.is_loopback:
                return address.packed[:8].hex()
        if address.is_loopback and not self._limits.limit_loopback:
            return ""
        return str(address)

    def _address(self, key: str) -> _Address | None:
        """What is known of an address, its allowance as of now; None where no more can be remembered."""
        now = self._clock()
        rate = self._limits.handshakes_per_ip_per_s
        burst = max(rate, 1.0)
        found = self._addresses.get(key)
        if found is None:
            if len(self._addresses) >= ADDRESSES_MAX and now >= self._forget_at:
                self._forget_at = now + FORGETTING_S
                self._forget(now, rate, burst)
            if len(self._addresses) >= ADDRESSES_MAX:
                return None
            found = self._addresses[key] = _Address(now, burst)
        found.tokens = min(burst, found.tokens + (now - found.at) * rate)
        found.at = now
        return found

    def _forget(self, now: float, rate: float, burst: float) -> None:
        idle = [
            key
            for key, known in self._addresses.items()
            if not known.connections and known.tokens + (now - known.at) * rate >= burst
        ]
        for key in idle:
            del self._addresses[key]


def open_files_max(reserve: int = 64) -> int:
    """Descriptors this process may have, less some for files and the store (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(1, soft - reserve)
