"""The table of settings: one row per setting drives files, environment, flags, documentation and checks."""

from __future__ import annotations

from typing import Final

from .kinds import Address, Choice, Number, Optional, Text, Value, Whole, Words
from .rules import Rules
from .setting import Setting, is_origin, is_path, is_pattern, is_url
from .websocket import DAY, WEBSOCKET, at_once

__all__ = ["SECTIONS", "SETTINGS", "Setting", "Value", "find"]

SECTIONS: Final = ("websocket", "store", "metrics", "rooms", "auth", "log")
"""The objects of a configuration file. A section may have no settings in this version."""


_URL: Final = Text(
    "a store URL such as sqlite:///chat_messages.db or memory://",
    "`sqlite:///FILE`, `sqlite:///FILE?log_bytes_max=N`, `memory://`, `memory://?max_bytes=N`",
    is_url,
)


_OTHERS: Final = (
    Setting("store", "url", "store", _URL, "Where messages are kept; relative to the current folder.", name="store"),
    Setting(
        "store",
        "retry",
        "store_retry_s",
        at_once(),
        "How long a room whose log could not be read is left alone; each further time twice as long, up to 16 times.",
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
    Setting(
        "rooms",
        "retention",
        "retention",
        Rules(),
        "How much of which rooms is kept: the first rule whose pattern (`*` stands for any run of characters) fits a "
        "room says how many messages, how old in seconds and how many payload bytes. The oldest are trimmed while "
        "the server runs. Rooms without a rule keep all.",
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
        at_once(),
        "In what time a client that did not prove who it is at the upgrade must do so, else 4001.",
    ),
    Setting(
        "auth",
        "authDeadline",
        "auth_deadline_s",
        at_once(),
        "How long `authenticate` and `authorize` may take; over it the answer is 503, and nothing is granted.",
    ),
    Setting(
        "auth",
        "authDue",
        "auth_due_s",
        Number(0.0, DAY),
        "How long before its proof ends a client is asked for another (`$auth.due`).",
    ),
)

_LOG: Final = (
    Setting(
        "log",
        "format",
        "log_format",
        Choice(("text", "json")),
        "How `vixws serve` logs on stderr: a line of text, or a JSON object a line.",
        name="log-format",
    ),
    Setting(
        "log",
        "level",
        "log_level",
        Choice(("debug", "info", "warning", "error")),
        "The least level that `vixws serve` logs; `debug` has what libraries say too, but for what is stored.",
        name="log-level",
    ),
    Setting(
        "log",
        "trace",
        "trace",
        Optional(Text("the path of a file", "path", is_path)),
        "Where all that reaches the hub is written down, for `vixws replay`; it holds messages, tokens and cookies as "
        "they came, and only its owner may read it.",
    ),
    Setting(
        "log",
        "traceSize",
        "trace_bytes",
        Whole(1 << 20, 1 << 40, "bytes"),
        "Most bytes of a trace; over it its older half is dropped, and it cannot be replayed any more, only searched.",
    ),
)

SETTINGS: Final = (*WEBSOCKET, *_OTHERS, *_AUTH, *_LOG)
"""All settings, in the order of the documentation."""

_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}


def find(field: str) -> Setting:
    """The setting of a field of `Config`. Raises: `KeyError`."""
    return _BY_FIELD[field]
