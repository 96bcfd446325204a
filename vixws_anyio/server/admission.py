"""Who may connect: limits on all connections, on those still opening, and on each address."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from math import inf
from typing import Final, Protocol

from vixws_core.bucket import TokenBucket

from ..logs import clean, log
from .opening import Opening

__all__ = ["UNREADABLE", "Admission", "AdmissionLimits", "Told", "open_files_max"]

UNREADABLE: Final = "unknown"
"""The address of all clients of whom a trusted proxy tells none."""

ADDRESSES_MAX: Final = 65_536
"""Addresses remembered. When there are more, those without a connection and with a full allowance are forgotten, which
after a second are all; until then no new address is taken."""

FORGETTING_S: Final = 1.0
"""Seconds between two such looks at all addresses, which take some milliseconds."""

GIVE_WAY_S: Final = 5.0
"""Seconds after which a handshake gives way to one of an address that holds only one fewer. Good ones take less, with a
proof that is slow too, so that in a storm of them those who came first get in, and do not drop each other for ever."""


class Told(Protocol):
    """Who hears of those that are not let in."""

    def refused(self, setting: str) -> None:
        """A connection was not taken, because of that setting."""
        ...

    def gave_way(self) -> None:
        """A handshake was ended for the sake of a newcomer."""
        ...


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Most connections: in all, still opening, and of one address; and an address's new ones a second.

    `trusted_proxies`: addresses or networks whose `X-Forwarded-For` is believed, and which have no limit of their own.
    """

    connections_max: int = 10_000
    connections_opening_max: int = 256
    connections_per_ip: int = 64
    handshakes_per_ip_per_s: float = 20.0
    limit_loopback: bool = False
    trusted_proxies: tuple[str, ...] = ()


class _Address:
    """What is known of one address: its connections, and its allowance of new ones."""

    __slots__ = ("allowance", "connections")

    def __init__(self, allowance: TokenBucket) -> None:
        self.allowance: TokenBucket = allowance
        self.connections: int = 0


class Admission:
    """Counts connections. An address is an IPv4 address or an IPv6 /64; a Unix socket has none and is not limited.

    Where too many are opening, the oldest of the address that holds most of them gives way to a newcomer whose address
    holds fewer. Those without a limit of their own give way to each other only. Each call takes constant time.
    `told` hears of everybody who is turned away.
    """

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float], told: Told | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._told = told
        self._count = 0
        self._opening = Opening()
        self._opening_free = Opening()
        """Those of addresses without a limit, and the others."""
        self._gave_way: int | None = None
        self._addresses: dict[str, _Address] = {}
        self._keys: dict[int, str] = {}
        self._forget_at = -inf
        self._told_unreadable = False
        self._proxies = tuple(ip_network(text, strict=False) for text in limits.trusted_proxies)

    def admit(self, conn: int, host: str) -> bool:
        """Counts a new connection, unless a limit speaks against it. `gave_way` says what has to end for it."""
        limits, key, late = self._limits, self._key(host), None
        if self._count >= limits.connections_max:
            return self._refuse("maxConnections")
        if len(self._opening) + len(self._opening_free) >= limits.connections_opening_max:
            late = self._who_gives_way(key, host)
            if late is None:
                return self._refuse("maxHandshaking")
        if not self._identify(conn, key):
            return False
        if late is not None:
            self.opened(late)
            self._gave_way = late
            if self._told is not None:
                self._told.gave_way()
        self._count += 1
        self._begin(conn, key, host)
        return True

    def gave_way(self) -> int | None:
        """The handshake that must end because of the connection admitted last; told once."""
        late, self._gave_way = self._gave_way, None
        return late

    def _who_gives_way(self, key: str, host: str) -> int | None:
        """The handshake that a newcomer takes the place of; None where its address holds as many as any other."""
        if key:
            return self._older_than(self._opening, self._opening.count(key))
        # What comes from a proxy is somebody's we do not know yet, and who has one only may be that one.
        late = self._older_than(self._opening, 0)
        return self._older_than(self._opening_free, self._opening_free.count(host)) if late is None else late

    def _older_than(self, opening: Opening, count: int) -> int | None:
        if opening.most <= count:
            return None
        late, since = opening.oldest_of_most()
        return late if opening.most > count + 1 or self._clock() - since >= GIVE_WAY_S else None

    def _begin(self, conn: int, key: str, host: str) -> None:
        if key:
            self._opening.begin(conn, key, self._clock())
        else:
            self._opening_free.begin(conn, host, self._clock())

    def _refuse(self, setting: str) -> bool:
        if self._told is not None:
            self._told.refused(setting)
        return False

    def identify(self, conn: int, host: str) -> bool:
        """Counts a connection as one of this address, where it was none's; False where the address has too many."""
        key = self._key(host)
        if not self._identify(conn, key):
            return False
        if key and conn in self._opening_free:
            self._opening_free.end(conn)
            self._begin(conn, key, host)
        return True

    def _identify(self, conn: int, key: str) -> bool:
        if not key or conn in self._keys:
            return True
        now, rate = self._clock(), self._limits.handshakes_per_ip_per_s
        burst = max(rate, 1.0)
        address = self._address(key, now, rate, burst)
        if address is None or address.connections >= self._limits.connections_per_ip:
            return self._refuse("maxConnectionsPerIp")
        if address.allowance.left(rate, burst, now) < 1.0:
            return self._refuse("handshakesPerIp")
        address.allowance.take(1.0, rate, burst, now)
        address.connections += 1
        self._keys[conn] = key
        return True

    def client_of(self, host: str, forwarded: str) -> str:
        """The address that a request came from, by the `X-Forwarded-For` that trusted proxies sent with it.

        Read from its end, since each proxy adds the one it heard from; what stands before the first address that is
        no trusted proxy's may be the client's invention. Where a trusted one wrote what is no address (`unknown`, for
        one), all such clients are `UNREADABLE`, and share the limits of one address.
        """
        for text in reversed(forwarded.split(",")):
            if not self._is_proxy(host):
                break
            told = _host_in(text)
            if told is None:
                if not self._told_unreadable:
                    self._told_unreadable = True
                    log.warning(
                        "a trusted proxy sends X-Forwarded-For without an address, %.80s: "
                        "such clients share the limits of one address",
                        clean(repr(text)),
                    )
                return UNREADABLE
            host = told
        return host

    def _is_proxy(self, host: str) -> bool:
        if not self._proxies:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies)

    def limited_as(self, host: str) -> str:
        """The IPv4 address or IPv6 /64 whose limits hold for this address; "": none do."""
        return self._key(host)

    def opened(self, conn: int) -> None:
        """It is open: it is not opening any more."""
        self._opening.end(conn)
        self._opening_free.end(conn)

    def release(self, conn: int) -> None:
        """It is gone."""
        self._count -= 1
        self.opened(conn)
        key = self._keys.pop(conn, None)
        if key is not None:
            self._addresses[key].connections -= 1

    def _key(self, host: str) -> str:
        if host == UNREADABLE:
            return host
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            elif not address.is_loopback and not self._is_proxy(str(address)):
                return address.packed[:8].hex()
        if (address.is_loopback and not self._limits.limit_loopback) or self._is_proxy(str(address)):
            return ""
        return str(address)

    def _address(self, key: str, now: float, rate: float, burst: float) -> _Address | None:
        """What is known of an address; None where no more can be remembered."""
        found = self._addresses.get(key)
        if found is None:
            if len(self._addresses) >= ADDRESSES_MAX and now >= self._forget_at:
                self._forget_at = now + FORGETTING_S
                self._forget(now, rate, burst)
            if len(self._addresses) >= ADDRESSES_MAX:
                return None
            found = self._addresses[key] = _Address(TokenBucket(burst, now))
        return found

    def _forget(self, now: float, rate: float, burst: float) -> None:
        idle = [
            key
            for key, known in self._addresses.items()
            if not known.connections and known.allowance.left(rate, burst, now) >= burst
        ]
        for key in idle:
            del self._addresses[key]


def open_files_max(reserve: int = 64) -> int:
    """Descriptors this process may have, less some for files and the store (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(1, soft - reserve)


def _host_in(text: str) -> str | None:
    """The address in one item of `X-Forwarded-For`, which may have a port; None where it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
