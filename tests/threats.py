"""What can be done to a server or a client, what becomes of it, and which settings decide.

Tests that show a row carry `@pytest.mark.threat(row)`; `python -m docs.security` makes docs/security.md of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["NOT_BUILT", "PARTLY_BUILT", "THREATS", "Threat"]


@dataclass(frozen=True, slots=True)
class Threat:
    """One row. `settings` are keys with their defaults, `maxMessageSize 65536`, or words where nothing can be set."""

    row: int
    threat: str
    outcome: str
    settings: tuple[str, ...] = ()
    missing: str = ""
    """What of the defence is not there yet."""

    def defaults(self) -> dict[str, str]:
        """The settings of the row, by key; words that are none are left out."""
        pairs = (text.split(" ") for text in self.settings)
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0].isalpha()}


NOT_BUILT: Final = {35: "long polling"}
"""Rows of features that there are not yet, and so no tests either."""

PARTLY_BUILT: Final = frozenset((24, 26, 27))
"""Rows with tests, of whose defence something is missing."""

THREATS: Final = (
    Threat(
        1,
        "A page of another site opens a WebSocket with its visitor's cookies",
        "403 before the upgrade, and before `authenticate` is asked, unless the page's origin is the server's own host"
        " or listed, compared whole. `null` and two origins are foreign. Without an `Origin` cookies are not shown",
        ("allowedOrigins []",),
    ),
    Threat(
        2,
        "A hook of the application that hangs, fails or answers too late; a proof or a grant that ends",
        "Nothing is granted: 503 where it takes too long, 500 where it raises, 4001 without a proof in time, 4101 when"
        " a proof is over. Each room is asked about again after a reconnect; what was revoked while it was asked for"
        " is refused",
        ("authTimeout 10", "authDeadline 5", "authDue 30"),
    ),
    Threat(
        3,
        "A message or frame that is too large, or says it is",
        "1009 from the frame's header, before any of its payload is kept; fragments count together",
        ("maxMessageSize 65536",),
    ),
    Threat(
        4,
        "A small compressed message that becomes a large one",
        "1009 as soon as one byte over the limit is inflated; over the rate of inflated bytes it is not read",
        ("deflate false", "maxMessageSize 65536", "inflateRate 10485760"),
    ),
    Threat(
        5,
        "Memory that compression holds for each connection",
        "Nothing is kept between messages: no context is taken over, either way",
        ("deflate false",),
    ),
    Threat(
        6,
        "A message in very many fragments, empty ones perhaps, or one that never ends",
        "Joined as it comes, so that it costs about its bytes; 1008 over the number of fragments or the time",
        ("maxFragments 65536", "messageTimeout 30"),
    ),
    Threat(
        7,
        "A flood of tiny frames or of messages",
        "So many are taken from a connection, and of few that flood, then others have their turn. Over the rate of a"
        " connection or a user it is not read until its messages are due; nothing is lost. Coming back is no new"
        " allowance: an address and a user owe what their connections had spent",
        ("maxEventsPerStep 64", "maxPendingMessages 64", "rateLimit 0", "rateBurst 5000", "userRateLimit 0"),
    ),
    Threat(
        8,
        "A request that comes a byte at a time",
        "408 at the end of the time for all of it, however often a byte comes; others are let in meanwhile",
        ("handshakeTimeout 10", "maxHeadSize 8192", "maxHeaders 64"),
    ),
    Threat(
        9,
        "A request head that is too large",
        "431 over the limit, the same however it is cut, in one read too",
        ("maxHeadSize 8192",),
    ),
    Threat(
        10,
        "A request that parsers read differently: old versions, odd keys, bodies, folded lines, odd targets",
        "400 or 426, and closed; no rest of it is read as anything else. Extensions are declined",
        ("always",),
    ),
    Threat(
        11,
        "A flood of connections, up to all file descriptors",
        "503 with `Retry-After` over the limits in all, before a request, or of one address; the oldest unfinished"
        " handshake of the address that has most gives way to others; accepting pauses without descriptors and goes on",
        (
            "maxConnections 10000",
            "maxHandshaking 256",
            "maxConnectionsPerIp 64",
            "handshakesPerIp 20",
            "limitLoopback false",
            "trustedProxies []",
        ),
    ),
    Threat(
        12,
        "A flood of pings",
        "Each is answered within the rate, over it 1008, and what follows is not parsed",
        ("controlFrameRate 20", "controlFrameBurst 50"),
    ),
    Threat(
        13,
        "A reader that does not read",
        "It is parked at its place in the log with bounded bytes, others notice nothing; 4108 without progress",
        ("unsentLow 262144", "unsentHigh 1048576", "unsentTotal 268435456", "flushStall 30", "sendBuffer 65536"),
    ),
    Threat(
        14,
        "A connection that is gone without a word",
        "Pinged, and closed without an answer: noticed within 50 s",
        ("pingInterval 30", "pongTimeout 20"),
    ),
    Threat(
        15,
        "Text that is not UTF-8, broken frames",
        "1007 at the first impossible byte, in the midst of a frame too; 1002 for broken framing",
        ("always",),
    ),
    Threat(
        16,
        "Hostile JSON: deep, duplicate keys, NaN, lone surrogates, huge integers, much of nothing",
        "`$err` to the sender alone; payloads stay raw bytes and are relayed exactly",
        ("maxJsonDepth 64",),
    ),
    Threat(
        17,
        "Room names that are hidden, endless or look like others; very many rooms or joins",
        "`$err bad_room` or `too_many_rooms`, and the connection stays; over the rate of questions it is not read",
        ("1 to 128 bytes of visible UTF-8", "maxRooms 128", "askRate 64", "askBurst 512"),
    ),
    Threat(
        18,
        "SQL or paths in names and texts",
        "Parameters only; no name becomes a path. What looks like SQL is stored and found again",
        ("always",),
    ),
    Threat(
        19,
        "Header values of the application with line breaks, from a peer perhaps",
        "Refused before a byte is sent; the answer is 500",
        ("always",),
    ),
    Threat(
        20,
        "Log lines forged by names, headers, close reasons or texts of exceptions",
        "One event is one line: control characters are escaped, texts cut. The server writes no tokens and no queries",
        ("200 characters of what a peer sent",),
    ),
    Threat(
        21,
        "Metrics that grow with rooms, users or addresses",
        "No label is one of these: the number of series is fixed",
        ("at most 200 series",),
    ),
    Threat(
        22,
        "Metrics that anybody can read, or hold up",
        "A listener of its own, `GET` only, 8 connections of 10 s each; another address has to be asked for",
        ("listen 127.0.0.1:9100",),
    ),
    Threat(
        23,
        "The process is killed at any moment",
        "What was acknowledged is stored; what was not may be, and is stored once when it is sent again",
        ("`synchronous=FULL`",),
    ),
    Threat(
        24,
        "A full disk, or a file as large as it may be",
        "`$err store_full` with `retry`; reading and messages that are not stored go on, `/readyz` is 503, and it"
        " recovers without a restart",
        ("`pages_max`, no bound by default",),
        "No space is held in reserve: trimming a file on a disk that is really full may fail as well",
    ),
    Threat(
        25,
        "Another process holds the database's lock",
        "Transactions take the lock before they read, wait 5 s, then publishers are told `store_unavailable`",
        ("5 s, 0.25 s while not ready",),
    ),
    Threat(
        26,
        "Bits of the database file change",
        "Checksums over all of a row, a room and the file's own values, looked at with every read: a damaged row is a"
        " gap, never another text; a damaged room is closed, and no other; ids never run backwards. `vixws store check`"
        " finds it, `vixws store repair` makes anew what can be",
        ("always",),
        "An index that lost the key of a message is noticed by `vixws store check` alone: a repeat is stored again",
    ),
    Threat(
        27,
        "The end of the write-ahead log is lost or torn, or an older copy of the file is put back",
        "The log is shorter, never wrong; ids begin elsewhere with every opening and none is given again, so that a"
        " member whose place was lost is told so. Where it happens under a server, nothing more is acknowledged before"
        " its next start. With `synchronous=NORMAL` a mark that is synced apart from the log says which ids may have"
        " been given out: where the log lacks some, all rooms have a new epoch",
        ("`synchronous=FULL`", "a mark for 64 ids with `NORMAL`"),
        "With `FULL`, after an older copy was put back, a client that comes back with an offset and without its `id`"
        " cannot be told once the room has grown past it. With `NORMAL` a power cut can lose acknowledged messages",
    ),
    Threat(
        28,
        "A reader of everything, so that the write-ahead log is never emptied",
        "Rooms are read in pages, each a transaction of its own that ends before anybody waits. Another process that"
        " reads for long is named in the log, and at the bound publishers are told `store_full` until its read ends",
        ("pageRows 500", "pageSize 262144", "`log_bytes_max`, 1 GiB"),
    ),
    Threat(
        29,
        "The clock steps back",
        "Order comes from the store's numbers, waiting from a monotonic clock. Times of day are shown, and looked at"
        " once when a proof or a grant says when it ends",
        ("always",),
    ),
    Threat(
        30,
        "The server is told to stop",
        "Clients get a slot to come back in, what was received is answered and stored, then it ends with 0; a second"
        " signal ends it now",
        ("drain 8", "handshakeRate 500"),
    ),
    Threat(
        31,
        "All clients come back at once",
        "First attempts are spread over the time that the server told, later ones over 0.5 s to 30 s at random, until"
        " there is progress",
        ("reconnectFirst 0.5", "handshakeRate 500"),
    ),
    Threat(
        32,
        "Small questions with large answers: replay, history, resumes",
        "Pages bounded in rows and bytes, one read of a connection at a time, no more than it takes, and few for all"
        " together, in turn; questions have a rate, in which 50 rows count as one more",
        ("pageRows 500", "pageSize 262144", "askRate 64"),
    ),
    Threat(
        33,
        "Secrets found out by how long a comparison takes",
        "The server compares no secrets itself: tokens go to `authenticate` and to PyJWT, which takes its time evenly",
        ("always",),
    ),
    Threat(
        34,
        "A handler that raises; headers that break other servers",
        "Its connection ends with 1011, nobody else notices",
        ("always",),
    ),
    Threat(35, "Sessions carried by plain requests", "There are none"),
    Threat(
        36,
        "A hostile server, for the client",
        "The same limits as for peers; the body of a refusal is read up to 64 KiB; it ends in a delay and another try",
        ("64 KiB",),
    ),
    Threat(
        37,
        "A call of the store that is cancelled",
        "Stored all the same, by one writer outside of the caller's scope; no transaction stays open",
        ("always",),
    ),
    Threat(
        38,
        "Dependencies with known holes",
        "The least versions of `pyproject.toml` are above them, and what is installed is compared with a table",
        ("always",),
    ),
)
"""All rows, in order."""
