"""Judges what a hub answers: positions and pages against the log, and what errors and welcomes say."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Final

import msgspec

from ..codes import (
    BAD_JSON,
    DENIED,
    FENCED,
    INTERNAL,
    MID_CONFLICT,
    RATE_LIMITED,
    SEQ_GAP,
    STALE_MID,
    STORE_FULL,
    STORE_UNAVAILABLE,
    TOO_MANY_ROOMS,
    UNKNOWN_ROOM,
)
from ..config import HubConfig
from ..message import StoredMessage
from ..mids import numbered
from ..names import matches
from .decoding import Asked, Heard
from .door import Conn
from .oracle import check
from .store import Truth

__all__ = ["OF_PUBLISHES", "check_answer", "check_error", "is_stored", "outcome_of"]

_MAY_REPEAT: Final = frozenset((RATE_LIMITED, STORE_UNAVAILABLE, STORE_FULL, INTERNAL))
"""Codes after which the same message may be sent again (PROTOCOL §11)."""

OF_PUBLISHES: Final = frozenset(
    (STORE_UNAVAILABLE, STORE_FULL, MID_CONFLICT, FENCED, SEQ_GAP, STALE_MID, DENIED, INTERNAL)
)
"""What becomes of a publish that is not stored."""

_HEAD_BYTES: Final = 1_024
"""What a message's head adds to its payload at most."""


class _Page(msgspec.Struct):
    messages: list[msgspec.Raw]
    more: bool


class _Row(msgspec.Struct):
    type: str
    room: str
    ep: str
    off: int
    id: str
    payload: msgspec.Raw
    ts: str = ""
    kind: str = "event"
    mid: str | None = None
    sender: str | None = msgspec.field(default=None, name="from")


_PAGES: Final = msgspec.json.Decoder(_Page)
_ROWS: Final = msgspec.json.Decoder(_Row)


def is_stored(config: HubConfig, room: str) -> bool:
    """Whether messages of a room are stored."""
    return not any(matches(pattern, room) for pattern in config.unstored_rooms)


def outcome_of(heard: Heard) -> str:
    """A message of the protocol in a few words: its type, and how it went."""
    name = heard.type
    if name == "$joined" and heard.payload.get("stored"):
        return f"{name} {heard.payload.get('reason', 'recovered')}"
    if name == "$err":
        return f"{name} {heard.payload.get('code')}"
    return "$ack dup" if name == "$ack" and heard.payload.get("dup") else name


def check_answer(id: int, heard: Heard, asked: Asked, truth: Truth, config: HubConfig, conn: Conn) -> None:
    """An answer to what was asked with a `ref`, other than an error or a place in a room."""
    if asked.times_back != truth.times_back:
        return  # The log went back in between: what stood where when it was asked is not there any more.
    if heard.type == "$ack":
        _check_ack(id, heard, asked, truth, config, conn)
    elif heard.type == "$page":
        _check_page(id, heard, asked, truth, config)
    elif heard.type == "$position":
        _check_position(id, heard, asked, truth)
    elif heard.type == "$left":
        check(heard.room == asked.room, f"connection {id}: {heard!r:.200} to {asked!r:.200}")
    elif heard.type in ("$welcome", "$pong"):
        _check_welcome(id, heard, asked, config, conn)


def _check_position(id: int, heard: Heard, asked: Asked, truth: Truth) -> None:
    """`$position`: where the log stood at some time between the question and its answer."""
    room, told = asked.room or "", heard.payload
    who = f"connection {id}: {heard!r:.200}"
    head, floor = int(told["head"]), int(told["floor"])
    check(heard.room == room, f"{who} to a question for {room!r}")
    check(told["ep"] == truth.epoch(room), f"{who}: expected epoch {truth.epoch(room)!r}")
    check(asked.head <= head <= truth.head(room), f"{who}: expected a head from {asked.head} to {truth.head(room)}")
    check(asked.floor <= floor <= truth.floor(room), f"{who}: expected a floor from {asked.floor}")
    row = truth.row(room, head)
    check(told["id"] == ("" if row is None else row.id), f"{who}: the entry at the head is {row!r:.100}")


def _check_page(id: int, heard: Heard, asked: Asked, truth: Truth, config: HubConfig) -> None:
    """`$page`: the entries asked for, in order, as many as fit; `more` says whether there are others behind them."""
    who = f"connection {id}: $page to {asked!r:.200}"
    room = asked.room or ""
    # PROTOCOL §1: "No server message exceeds limits.message_bytes + 4 KiB".
    check(len(heard.raw) <= config.message_bytes_max + 4_096, f"{who} has {len(heard.raw)} bytes")
    page = _PAGES.decode(heard.raw)
    rows = [_ROWS.decode(raw) for raw in page.messages]
    check(heard.room == room and len(rows) <= asked.limit, f"{who}: {len(rows)} messages of {heard.room!r}")
    for one in rows:
        row = truth.row(room, one.off)
        held = None if row is None else (room, row.ep, row.id, row.type, row.payload_json, row.kind, row.mid, row.ts)
        told = (one.room, one.ep, one.id, one.type, bytes(one.payload), one.kind, one.mid, one.ts)
        check(
            told == held and row is not None and row.sender == one.sender, f"{who}: {one!r:.200}, the log: {row!r:.200}"
        )
    step = 1 if asked.after is not None else -1
    offs = [one.off for one in rows]
    check(all(b == a + step for a, b in pairwise(offs)), f"{who}: offsets {offs}")
    head, floor = truth.head(room), truth.floor(room)
    # What it may begin at: the log was read at some time between the question and now.
    if asked.after is not None:
        lowest, highest = max(asked.after, asked.floor) + 1, max(asked.after, floor) + 1
        is_none = min(asked.head, head) < highest
    else:
        before = head if asked.before is None else max(0, asked.before - 1)
        lowest, highest = min(asked.head, before), min(head, before)
        is_none = lowest <= floor
    if not rows:
        check(is_none and not page.more, f"{who}: nothing, more {page.more}; the log has {floor} to {head}")
        return
    check(lowest <= offs[0] <= highest, f"{who}: begins at {offs[0]}, expected {lowest} to {highest}")
    last = offs[-1]
    sure = last < asked.head if step > 0 else last > floor + 1
    possible = last < head if step > 0 else last > asked.floor + 1
    check((page.more or not sure) and (possible or not page.more), f"{who}: more is {page.more} behind {last}")
    if len(rows) < asked.limit and sure:
        _check_full(who, page, truth.row(room, last + step), rows, config)


def _check_full(who: str, page: _Page, behind: StoredMessage | None, rows: list[_Row], config: HubConfig) -> None:
    """A page with less than was asked for is full."""
    if behind is None:
        return
    payloads = sum(len(bytes(row.payload)) for row in rows) + len(behind.payload_json)
    texts = sum(len(bytes(raw)) + 1 for raw in page.messages) + len(behind.payload_json) + _HEAD_BYTES
    is_full = payloads > config.message_bytes_max or texts > config.message_bytes_max + 3_072
    check(is_full, f"{who}: {len(rows)} messages, and offset {behind.off} would have fit")


def _check_ack(id: int, heard: Heard, asked: Asked, truth: Truth, config: HubConfig, conn: Conn) -> None:
    """Acked ⇒ stored, under the offset told, with the content sent; `dup` only of a key (PROTOCOL §4)."""
    off, room = heard.payload.get("off"), heard.room or ""
    who = f"connection {id}: {heard!r:.200} to {asked!r:.200}"
    if off is None:
        kept = asked.room is not None and is_stored(config, room)
        kept = kept and not (asked.room in conn.kicked and heard.room is None)
        check(not kept, f"{who}: expected it to be stored, with an offset")
        return
    row = truth.row(room, int(off))
    check(row is not None, f"{who}: expected it to be committed")
    if row is None:
        return
    check((row.id, row.ep) == (heard.payload.get("id"), heard.payload.get("ep")), f"{who}: the entry is {row!r:.200}")
    dup = heard.payload.get("dup")
    same = (row.type, row.payload_json, row.kind) == (asked.type, asked.payload, asked.kind)
    # What a guard made of it the first time stays.
    check(same or (asked.by_app and dup is True), f"{who}: it names {row!r:.200}, which has another content")
    check(heard.payload.get("mid") == asked.mid and row.mid == asked.mid, f"{who}: the entry's mid is {row.mid!r}")
    if asked.room is not None:
        check(heard.room == asked.room, f"{who}: expected the room asked for")
        check(dup is False or asked.mid is not None, f"{who}: a dup without a mid")
        check(dup is True or off > asked.head, f"{who}: no dup, and there before it was asked for")


def check_error(id: int, heard: Heard, asked: Asked | None, config: HubConfig, conn: Conn, truth: Truth) -> None:
    """`$err`: whether the same may be sent again, and that what it says is so."""
    told = heard.payload
    code = told.get("code")
    who = f"connection {id}: {heard!r:.200} to {asked!r:.200}"
    check(told.get("retry") is (code in _MAY_REPEAT), f"{who}: retry is {told.get('retry')!r}, which is wrong for it")
    if asked is None:
        return
    check(heard.room is None or heard.room in (asked.room, asked.inner_room), f"{who}: expected its own room")
    if code == TOO_MANY_ROOMS:
        check(len(conn.places) >= config.rooms_max, f"{who}: it is in {len(conn.places)} rooms")
    elif code == UNKNOWN_ROOM:
        check(not is_stored(config, asked.room or ""), f"{who}: the room is stored")
    elif code == BAD_JSON:
        check(not _is_json(asked.text), f"{who}: it is JSON")
    elif code == MID_CONFLICT:
        contents = truth.offered.get((asked.scope, asked.room or asked.inner_room, asked.mid or ""), set())
        check(len(contents) > 1, f"{who}: it is the one content of this key")
    elif code in (SEQ_GAP, FENCED, STALE_MID):
        _check_number(who, code, told.get("expected"), asked, truth)


def _check_number(who: str, code: str, expected: Any, asked: Asked, truth: Truth) -> None:
    """What is said of an ordered producer's number is so, unless the log has gone back since (PROTOCOL §4)."""
    number = numbered(asked.mid or "")
    check(number is not None, f"{who}: it is no ordered producer's")
    check((expected is not None) is (code == SEQ_GAP), f"{who}: expected is {expected!r}")
    if number is None or truth.times_back != asked.times_back:
        return
    room = asked.room or asked.inner_room or ""
    epoch, last = truth.numbers.get((room, number.producer), (-1, 0))
    if code == FENCED:
        check(number.epoch < epoch, f"{who}: its producer is at epoch {epoch}")
    elif code == SEQ_GAP:
        most = last + 1 if epoch == number.epoch else 1 if epoch < number.epoch else number.seq
        check(0 < expected < number.seq and expected <= most, f"{who}: its producer is at {last} of epoch {epoch}")
    else:
        gone = truth.floor(room) > 0 and (epoch, last) >= (number.epoch, number.seq)
        check(gone, f"{who}: its producer is at {last} of epoch {epoch}, and nothing is trimmed")


def _is_json(text: str | bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _check_welcome(id: int, heard: Heard, asked: Asked, config: HubConfig, conn: Conn) -> None:
    """`$welcome` and `$pong`: the limits that hold."""
    told: dict[str, Any] = heard.payload
    who = f"connection {id}: {heard!r:.300}"
    check(told.get("reconnect_ms", -1) >= round(1000 * config.reconnect_first_s), f"{who}: too soon a reconnect")
    if heard.type == "$pong":
        return
    versions = json.loads(asked.payload).get("v", [1])
    # PROTOCOL §2: "a second $hello, or one that is not the first message, closes 4002; no common version closes 4010".
    # A message that was refused is none, and what was refused is not known here.
    check((asked.by_turn == 0 or not conn.hello) and 1 in versions, f"{who} to {asked!r:.200}, expected a close")
    if not conn.hello:
        conn.hello, conn.scope = True, asked.pub
    limits = {"message_bytes": config.message_bytes_max, "rooms": config.rooms_max}
    limits["unsent_bytes"] = config.unsent_bytes_high
    check(told.get("limits") == limits, f"{who}: expected the limits {limits}")
    same = (told.get("ping_ms"), told.get("durable")) == (round(config.ping_interval_s * 1000), config.durable)
    check(same and told.get("v") == 1, f"{who}: expected ping_ms and durable as configured")
