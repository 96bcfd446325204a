"""The numbers a client obeys: every limit and every delay, with its unit in its name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientConfig"]


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Limits and delays of one client. Seconds, bytes and counts as the names say."""

    message_bytes_max: int = 1_048_576
    """Largest message taken from the server; over it the connection is closed with 1009."""
    fragments_max: int = 65_536
    """Most fragments of one message; over it the connection is closed with 1008."""
    opening_timeout_s: float = 10.0
    """Seconds from asking for a transport to an open WebSocket, the `$welcome` included."""
    close_timeout_s: float = 5.0
    """Seconds to wait for the server's half of a close."""
    ping_interval_s: float = 25.0
    """Seconds between pings of ours; 0: never."""
    ping_timeout_s: float = 20.0
    """Seconds without any byte after a ping before the connection counts as dead."""
    reconnect_first_s: float = 0.5
    """The first reconnect is spread over this time, unless the server told another."""
    reconnect_told_max_s: float = 300.0
    """Longest delay that is taken from a server."""
    backoff_min_s: float = 0.5
    """The second reconnect is spread over this time, each later one over twice the time before."""
    backoff_max_s: float = 30.0
    """Longest time over which a reconnect is spread."""
    head_bytes_max: int = 16_384
    """Largest head of the server's answer to the upgrade, interim answers included."""
    body_bytes_max: int = 65_536
    """Bytes read of the body of an answer that refuses the upgrade."""
    rooms_max: int = 128
    """Most rooms of one client."""
    publishes_max: int = 1_024
    """Most publishes without a final answer."""
    publish_bytes_max: int = 4_194_304
    """Bytes of publishes without a final answer."""
    requests_max: int = 256
    """Most requests without an answer."""
    strikes_max: int = 5
    """A publish answered `internal`, or followed by 1009 or 1011, so often without other progress has failed."""
    room_unhandled_max: int = 256
    """Messages of one stored room told and not handled, before the room is left until they are."""
    room_unhandled_bytes_max: int = 262_144
    """The same in bytes; one message may pass it."""
    unhandled_max: int = 1_024
    """Other messages told and not handled, before reading pauses."""
    unhandled_bytes_max: int = 1_048_576
    """The same in bytes."""
    skip_factor: int = 4
    """While answers are awaited reading goes on; at this many times the two limits above messages are skipped."""
