"""The table of settings: one row per setting drives files, environment, flags, documentation and checks."""

from __future__ import annotations

from typing import Final

from .kinds import Address, Choice, Number, Optional, Switch, Text, Value, Whole, Words, is_host
from .setting import Setting, is_network, is_origin, is_path, is_pattern, is_url

__all__ = ["SECTIONS", "SETTINGS", "Setting", "Value", "find"]

SECTIONS: Final = ("websocket", "store", "metrics", "rooms", "auth")
"""The objects of a configuration file. A section may have no settings in this version."""


_DAY: Final = 86_400.0
_HOST: Final = Text("a host name or an IP address", "name or IP address", is_host)
_FILE: Final = Optional(Text("the path of a file", "path", is_path))
_URL: Final = Text(
    "a store URL such as sqlite:///chat_messages.db or memory://", "`sqlite:///FILE`, `memory://`", is_url
)


def _at_once(seconds_max: float = 3_600.0, low: float = 0.01) -> Number:
    return Number(low, seconds_max)


_WEBSOCKET: Final = (
    Setting(
        "websocket", "host", "host", _HOST, "Where the server listens; `0.0.0.0` or `::` means on every interface."
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
        Number(0.01, 7 * _DAY, off=True),
        "Time without a data frame either way before a close with 1001.",
    ),
    Setting(
        "websocket", "pingInterval", "ping_interval_s", Number(0.01, _DAY, off=True), "Silence before a ping is sent."
    ),
    Setting(
        "websocket",
        "pongTimeout",
        "pong_timeout_s",
        _at_once(),
        "How long a ping may stay unanswered before a close with 1011.",
    ),
    Setting(
        "websocket",
        "handshakeTimeout",
        "handshake_timeout_s",
        _at_once(),
        "From connection to a complete request, in all.",
    ),
    Setting(
        "websocket", "closeTimeout", "close_timeout_s", _at_once(), "How long we wait for the peer's half of a close."
    ),
    Setting(
        "websocket",
        "messageTimeout",
        "message_timeout_s",
        _at_once(),
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
        "flushStall",
        "flush_stall_s",
        _at_once(),
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
        "Most connections that have not sent a complete request yet.",
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
        _at_once(),
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
        Number(0.01, _DAY, off=True),
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

_OTHERS: Final = (
    Setting("store", "url", "store", _URL, "Where messages are kept; relative to the current folder.", name="store"),
    Setting(
        "store",
        "retry",
        "store_retry_s",
        _at_once(),
        "How long after a failed read of the store it is tried again.",
        name="store-retry",
    ),
    Setting(
        "metrics",
        "listen",
        "metrics_listen",
        Address(),
        "Where `/metrics` is served. Whoever reaches it sees the figures of the whole server.",
        name="metrics",
    ),
    Setting("rooms", "maxRooms", "rooms_max", Whole(1, 100_000), "Most rooms of one connection."),
    Setting(
        "rooms",
        "unstored",
        "unstored_rooms",
        Words("room patterns (`*` stands for any run of characters)", is_pattern),
        "Rooms whose messages are not stored.",
        name="unstored-rooms",
    ),
    Setting("rooms", "pageRows", "page_rows_max", Whole(1, 500), "Messages of one catch-up or history page."),
    Setting(
        "rooms", "pageSize", "page_bytes_max", Whole(1_024, 1 << 26, "bytes"), "Payload bytes of one catch-up page."
    ),
    Setting(
        "rooms",
        "tailSize",
        "tail_bytes_room",
        Whole(0, 1 << 30, "bytes"),
        "Newest messages a room keeps at hand for short catch-ups.",
    ),
    Setting(
        "rooms", "tailSizeTotal", "tail_bytes_total", Whole(0, 1 << 40, "bytes"), "The same, of all rooms together."
    ),
)

_AUTH: Final = (
    Setting(
        "auth",
        "access",
        "access",
        Choice(("auto", "open", "closed")),
        "What may be done in rooms where the application's `authorize` does not say: everything (`open`) or nothing "
        "(`closed`). `auto`: nothing where there is an `authorize`, else everything; a server without `authenticate` "
        "and `authorize` then starts on loopback only.",
    ),
    Setting(
        "auth",
        "allowedOrigins",
        "allowed_origins",
        Words("origins such as https://example.com, or *", is_origin),
        "Pages of other hosts that browsers may connect from, compared whole; pages of this server's own host always "
        "may. `*` lets every page connect, whose cookies then count for nothing.",
    ),
    Setting(
        "auth",
        "authTimeout",
        "auth_timeout_s",
        _at_once(),
        "In what time a client that did not prove who it is at the upgrade must do so, else 4001.",
    ),
    Setting(
        "auth",
        "authDeadline",
        "auth_deadline_s",
        _at_once(),
        "How long `authenticate` and `authorize` may take; over it the answer is 503, and nothing is granted.",
    ),
    Setting(
        "auth",
        "authDue",
        "auth_due_s",
        Number(0.0, _DAY),
        "How long before its proof ends a client is asked for another (`$auth.due`).",
    ),
)

SETTINGS: Final = (*_WEBSOCKET, *_OTHERS, *_AUTH)
"""All settings, in the order of the documentation."""

_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}


def find(field: str) -> Setting:
    """The setting of a field of `Config`. Raises: `KeyError`."""
    return _BY_FIELD[field]
