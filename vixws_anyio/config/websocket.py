"""The settings of connections: the section `websocket`."""

from __future__ import annotations

from typing import Final

from .kinds import Choice, Hosts, Number, Optional, Switch, Text, Whole, Words
from .setting import Setting, is_network, is_path

__all__ = ["DAY", "WEBSOCKET", "at_once"]

DAY: Final = 86_400.0
"""Seconds of the longest delays."""
_FILE: Final = Optional(Text("the path of a file", "path", is_path))


def at_once(seconds_max: float = 3_600.0, low: float = 0.01) -> Number:
    """A delay that cannot be switched off."""
    return Number(low, seconds_max)


WEBSOCKET: Final = (
    Setting(
        "websocket",
        "host",
        "host",
        Hosts(),
        "Where the server listens; `::` is every interface, IPv4 too where no IPv4 host is named, `0.0.0.0` IPv4 only.",
    ),
    Setting("websocket", "port", "port", Whole(0, 65_535), "The port; 0 takes a free one, which the ready line tells."),
    Setting(
        "websocket", "backend", "backend", Choice(("asyncio", "trio")), "The event loop that `vixws serve` runs on."
    ),
    Setting("websocket", "uvloop", "uvloop", Switch(), "Whether asyncio runs on uvloop; not with trio."),
    Setting(
        "websocket", "tlsCert", "tls_cert", _FILE, "PEM file with the certificate chain; with `tlsKey` turns TLS on."
    ),
    Setting("websocket", "tlsKey", "tls_key", _FILE, "PEM file with the private key."),
    Setting(
        "websocket",
        "maxMessageSize",
        "message_bytes_max",
        Whole(1, 1 << 26, "bytes"),
        "Largest message, whole or gathered from fragments; over it the peer is closed with 1009.",
    ),
    Setting(
        "websocket",
        "idleTimeout",
        "idle_timeout_s",
        Number(0.01, 7 * DAY, off=True),
        "Time without a data frame either way before a close with 1001.",
    ),
    Setting(
        "websocket", "pingInterval", "ping_interval_s", Number(0.01, DAY, off=True), "Silence before a ping is sent."
    ),
    Setting(
        "websocket",
        "pongTimeout",
        "pong_timeout_s",
        at_once(),
        "How long a ping may stay unanswered before a close with 1011.",
    ),
    Setting(
        "websocket",
        "handshakeTimeout",
        "handshake_timeout_s",
        at_once(),
        "From connection to a complete request, in all.",
    ),
    Setting(
        "websocket", "closeTimeout", "close_timeout_s", at_once(), "How long we wait for the peer's half of a close."
    ),
    Setting(
        "websocket",
        "messageTimeout",
        "message_timeout_s",
        at_once(),
        "From a message's first byte to its last.",
    ),
    Setting("websocket", "maxHeadSize", "head_bytes_max", Whole(256, 1 << 20, "bytes"), "Largest request head."),
    Setting("websocket", "maxHeaders", "headers_max", Whole(8, 10_000), "Most headers of a request."),
    Setting("websocket", "maxFragments", "fragments_max", Whole(1, 1 << 24), "Most fragments of one message."),
    Setting("websocket", "maxJsonDepth", "json_depth_max", Whole(2, 256), "Deepest nesting of a message."),
    Setting(
        "websocket",
        "maxPendingMessages",
        "pending_messages_max",
        Whole(1, 100_000),
        "Messages of one connection that wait for its handler before reading pauses.",
    ),
    Setting(
        "websocket",
        "maxEventsPerStep",
        "events_per_step_max",
        Whole(1, 100_000),
        "Messages taken from one connection before others have their turn.",
    ),
    Setting(
        "websocket",
        "maxPublishes",
        "publishes_max",
        Whole(1, 1_000_000),
        "Publishes of one connection that wait for the store before reading pauses.",
    ),
    Setting(
        "websocket",
        "unsentLow",
        "unsent_bytes_low",
        Whole(1_024, 1 << 30, "bytes"),
        "A slow reader is served again once this little is unsent.",
    ),
    Setting(
        "websocket",
        "unsentHigh",
        "unsent_bytes_high",
        Whole(2_048, 1 << 31, "bytes"),
        "Above this a connection is a slow reader: its rooms wait in the log and it is not read.",
    ),
    Setting(
        "websocket",
        "unsentTotal",
        "unsent_bytes_total",
        Whole(4_096, 1 << 40, "bytes"),
        "Unsent bytes of all connections; over it each one is a slow reader already above `unsentLow`.",
    ),
    Setting(
        "websocket",
        "receivedTotal",
        "received_bytes_total",
        Whole(65_536, 1 << 40, "bytes"),
        "Bytes of all connections that were received and are not handled yet; over it who holds some is not read.",
    ),
    Setting(
        "websocket",
        "flushStall",
        "flush_stall_s",
        at_once(),
        "How long a slow reader may take no byte at all before it is dropped (4108).",
    ),
    Setting(
        "websocket",
        "rateLimit",
        "messages_per_s",
        Number(0.1, 1e9, "per second", off=True),
        "Messages a connection may send, sustained; over it it is not read until they are due. Off on loopback unless "
        "`limitLoopback`; `vixws serve` begins with 1,000.",
    ),
    Setting(
        "websocket",
        "rateBurst",
        "messages_burst",
        Whole(1, 1_000_000_000),
        "Messages a connection may send at once, where there is a rate.",
    ),
    Setting(
        "websocket",
        "userRateLimit",
        "user_messages_per_s",
        Number(0.1, 1e9, "per second", off=True),
        "Messages that all connections of one user may send together, sustained; `authenticate` says who they are.",
    ),
    Setting(
        "websocket",
        "userRateBurst",
        "user_messages_burst",
        Whole(1, 1_000_000_000),
        "Messages that all connections of one user may send at once, where there is a rate.",
    ),
    Setting(
        "websocket",
        "askRate",
        "asks_per_s",
        Number(0.1, 1e6, "per second", off=True),
        "Joins and questions for history of one client, sustained; 50 rows of a page count as one more. Over it it is "
        "not read until they are due.",
    ),
    Setting(
        "websocket",
        "askBurst",
        "asks_burst",
        Whole(1, 1_000_000),
        "Joins and questions for history of one client at once.",
    ),
    Setting(
        "websocket",
        "newRooms",
        "new_rooms_per_min",
        Whole(0, 1_000_000, "per minute"),
        "Rooms that one client may begin in a minute by publishing into them; over it it is not read until they are "
        "due. 0: no limit.",
    ),
    Setting(
        "websocket",
        "controlFrameRate",
        "control_frames_per_s",
        Number(0.1, 1e6, "per second"),
        "Pings and pongs a peer may send, sustained; over it the close is 1008.",
    ),
    Setting(
        "websocket",
        "controlFrameBurst",
        "control_frames_burst",
        Whole(1, 1_000_000),
        "Pings and pongs a peer may send at once.",
    ),
    Setting(
        "websocket", "deflate", "deflate", Switch(), "Whether permessage-deflate (RFC 7692) is agreed on if offered."
    ),
    Setting(
        "websocket",
        "inflateRate",
        "inflated_bytes_per_s",
        Whole(65_536, 1 << 40, "bytes per second"),
        "Bytes that a connection's compressed messages may make, sustained and at once (a compressed byte counts as 16 "
        "where that is more); over it it is not read until they are due.",
    ),
    Setting(
        "websocket",
        "sendBuffer",
        "send_buffer_bytes",
        Whole(0, 1 << 28, "bytes"),
        "What the kernel may hold of one connection's unsent bytes (`SO_SNDBUF`); 0: its own default.",
    ),
    Setting(
        "websocket",
        "maxConnections",
        "connections_max",
        Whole(1, 1_000_000),
        "Most connections; the limit of open files, less 64, is the other bound.",
    ),
    Setting(
        "websocket",
        "maxConnectionsPerIp",
        "connections_per_ip",
        Whole(1, 1_000_000),
        "Most connections from one IPv4 address or IPv6 /64.",
    ),
    Setting(
        "websocket",
        "maxHandshaking",
        "connections_opening_max",
        Whole(1, 1_000_000),
        "Most connections that are not open yet; over it the oldest of the address that has most gives way.",
    ),
    Setting(
        "websocket",
        "handshakesPerIp",
        "handshakes_per_ip_per_s",
        Number(0.1, 1e6, "per second"),
        "New connections from one IPv4 address or IPv6 /64, sustained.",
    ),
    Setting(
        "websocket",
        "limitLoopback",
        "limit_loopback",
        Switch(),
        "Whether limits per IP hold for this machine's own connections too.",
    ),
    Setting(
        "websocket",
        "trustedProxies",
        "trusted_proxies",
        Words("IP addresses or networks of proxies, such as 10.0.0.0/8", is_network),
        "Proxies whose `X-Forwarded-For` says who the client is; limits per IP then hold for the client.",
    ),
    Setting(
        "websocket",
        "handshakeRate",
        "handshakes_per_s",
        Number(0.1, 1e6, "per second"),
        "The rate of reconnects that clients are spread to.",
    ),
    Setting(
        "websocket",
        "reconnectFirst",
        "reconnect_first_s",
        at_once(),
        "The least time over which clients spread their first reconnect.",
    ),
    Setting(
        "websocket",
        "drain",
        "drain_s",
        Number(0.0, 3_600.0),
        "Longest that a stopping server waits for its clients and its store.",
    ),
    Setting(
        "websocket",
        "handlerTimeout",
        "handler_timeout_s",
        Number(0.01, DAY, off=True),
        "How long an `async` or `thread=True` handler may take; over it it is cancelled, reported, and its connection "
        "closed with 1011.",
    ),
    Setting(
        "websocket",
        "cancelHandlers",
        "cancel_handlers",
        Switch(),
        "Whether the end of a connection cancels its handler that is running; without it the handler learns of it by "
        "`session.is_open` and `session.wait_closed()`.",
    ),
)
