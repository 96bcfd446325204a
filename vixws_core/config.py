"""The numbers a hub obeys: every limit and every delay, with its unit in its name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HubConfig", "Policy"]


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Limits and delays of one hub. Seconds, bytes and counts as the names say; `0` switches a delay off
    only where its line says so."""

    message_bytes_max: int = 65_536
    """Largest message, whole or gathered from fragments; over it the peer is closed with 1009."""
    idle_timeout_s: float = 600.0
    """Seconds without a data frame either way before a close with 1001; 0: never."""
    ping_interval_s: float = 30.0
    """Seconds of silence before a ping (RFC 6455 §5.5.2); 0: never."""
    pong_timeout_s: float = 20.0
    """Seconds a ping may stay unanswered before a close with 1011."""
    handshake_timeout_s: float = 10.0
    """Seconds from connection to a complete request, in all."""
    close_timeout_s: float = 5.0
    """Seconds to wait for the peer's half of a close."""
    head_bytes_max: int = 8_192
    """Largest request head."""
    headers_max: int = 64
    """Most headers in a request."""
    message_timeout_s: float = 30.0
    """Seconds from a message's first byte to its last."""
    fragments_max: int = 65_536
    """Most fragments of one message."""
    pending_messages_max: int = 64
    """Messages of one connection that wait for its handler before reading pauses."""
    events_per_step_max: int = 64
    """Messages taken from one connection's bytes in one step; the rest waits for the next."""
    unsent_bytes_low: int = 262_144
    """Below this a parked connection is read on."""
    unsent_bytes_high: int = 1_048_576
    """Above this a connection is parked: its rooms stay at their cursors and it is not read."""
    unsent_bytes_total: int = 268_435_456
    """Budget for unsent bytes of all connections; over it each one is parked already above the low mark."""
    received_bytes_total: int = 268_435_456
    """Budget for received bytes of all connections that are not handled yet; over it who holds some is not read."""
    flush_stall_s: float = 30.0
    """Seconds a parked connection may take no byte before it is dropped (4108)."""
    publishes_max: int = 1_024
    """Publishes of one connection that wait for the store before reading pauses."""
    messages_per_s: float = 0.0
    """Messages a connection may send, sustained; over it it is not read until they are due. 0: no limit."""
    messages_burst: int = 5_000
    """Messages a connection may send at once, where there is a rate."""
    user_messages_per_s: float = 0.0
    """Messages that all connections of one user may send, sustained; 0: no limit."""
    user_messages_burst: int = 20_000
    """Messages that all connections of one user may send at once, where there is a rate."""
    asks_per_s: float = 64.0
    """Joins and questions for history, sustained; 50 rows of a page count as one more. 0: no limit."""
    asks_burst: int = 512
    """Joins and questions for history at once."""
    new_rooms_per_min: int = 600
    """Rooms that a client may begin in a minute by publishing; over it it is not read for a while. 0: no limit."""
    control_frames_per_s: float = 20.0
    """Pings and pongs a peer may send, sustained; over it the close is 1008."""
    control_frames_burst: int = 50
    """Pings and pongs a peer may send at once."""
    deflate: bool = False
    """Whether permessage-deflate (RFC 7692) is agreed on with clients that offer it."""
    inflated_bytes_per_s: int = 10_485_760
    """Bytes that the compressed messages of a connection may make, sustained and at once; over it it is not read until
    they are due. A compressed byte counts as 16 of them where that is more."""
    rooms_max: int = 128
    """Most rooms of one connection."""
    page_rows_max: int = 500
    """Rows of one catch-up or history page."""
    page_bytes_max: int = 262_144
    """Payload bytes of one catch-up page."""
    tail_bytes_room: int = 262_144
    """Encoded bytes of newest messages a room keeps at hand."""
    tail_bytes_total: int = 33_554_432
    """Budget for the tails of all rooms."""
    store_retry_s: float = 0.5
    """Seconds before a failed read of the store is tried again."""
    json_depth_max: int = 64
    """Deepest nesting of a message."""
    reconnect_first_s: float = 0.5
    """Least time over which clients are told to spread their first reconnect."""
    handshakes_per_s: float = 500.0
    """The rate of reconnects that `reconnect_ms` aims at."""
    auth_timeout_s: float = 10.0
    """Seconds in which a client must have proved who it is, where that is required; over it the close is 4001."""
    auth_due_s: float = 30.0
    """Seconds before the end of a proof at which a client is asked for another."""
    drain_s: float = 8.0
    """Longest drain at a shutdown."""
    unstored_rooms: tuple[str, ...] = ()
    """Patterns (`*` stands for any run of characters) of rooms that are not stored."""
    durable: str = "memory"
    """What `$welcome` promises of an acknowledged publish: `fsync process memory engine`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom a hub asks who somebody is and what they may do; for all of its routes."""

    authenticated: bool = False
    """Everybody proves who they are, at the upgrade or with the first message."""
    authorized: bool = False
    """The application is asked before anybody joins a room, reads it or publishes into it."""
    access: str = "open"
    """What holds where the application is not asked: `open`, everybody may do everything; `closed`, nobody anything."""

    @property
    def trusting(self) -> bool:
        """Whether nobody is asked and everything is allowed."""
        return not (self.authenticated or self.authorized) and self.access == "open"
