"""What every foreign client does, told once: a story yields what to do next and is sent what came.

`story.mjs` is the same story for those that speak JavaScript.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Literal, TypeAlias

__all__ = ["BIG", "Act", "Story", "story"]

Act: TypeAlias = tuple[Literal["open", "send", "receive", "close"], str]
"""What to do: open a connection (one is open at a time), send a text, receive one, close."""

Story: TypeAlias = Generator[Act, str, None]

BIG = 60_000
"""Characters of a large message, whose frame has a longer header; all but the envelope of 64 KiB."""


def _send(message: dict[str, Any]) -> Generator[Act, str, None]:
    yield "send", json.dumps(message, ensure_ascii=False)


def _receive(type: str) -> Generator[Act, str, dict[str, Any]]:
    found: dict[str, Any] = json.loads((yield "receive", ""))
    assert found["type"] == type, f"expected {type}, got {found}"
    return found


def _greet(room: str) -> Generator[Act, str, None]:
    yield "open", ""
    yield from _send({"type": "$hello", "ref": "h", "payload": {"v": [1], "pub": f"secret of {room}"}})
    welcome = yield from _receive("$welcome")
    assert welcome["ref"] == "h" and welcome["payload"]["durable"] == "fsync"


def _publish(room: str, number: int) -> Generator[Act, str, None]:
    payload = {"n": number}
    message = {"type": "note", "room": room, "ref": f"p{number}", "mid": f"m{number}", "payload": payload}
    yield from _send(message)


def story(room: str) -> Story:
    """Echoes, joins, publishes and receives; is away while two more are published; reads on from where it was."""
    yield from _greet(room)
    for text in ("é € \U0001f600", "", "x" * BIG):
        yield from _send({"type": "echo", "payload": {"text": text}})
        assert (yield from _receive("echo"))["payload"] == {"text": text}
    yield from _send({"type": "$join", "ref": "j", "room": room})
    joined = yield from _receive("$joined")
    assert joined["ref"] == "j" and joined["payload"]["reason"] == "fresh"
    yield from _receive("$live")
    yield from _publish(room, 1)
    first = yield from _receive("note")
    assert (first["room"], first["off"], first["payload"]) == (room, 1, {"n": 1})
    ack = yield from _receive("$ack")
    assert (ack["ref"], ack["payload"]["off"], ack["payload"]["dup"]) == ("p1", 1, False)
    yield "close", ""

    yield from _greet(room)
    for number in (2, 3, 2):
        yield from _publish(room, number)
        ack = yield from _receive("$ack")
        assert ack["payload"]["off"] == number
    assert ack["payload"]["dup"]
    yield "close", ""

    yield from _greet(room)
    since = {name: first[name] for name in ("ep", "off", "id")}
    yield from _send({"type": "$join", "ref": "s", "room": room, "payload": {"since": since}})
    joined = yield from _receive("$joined")
    assert joined["payload"]["recovered"] and joined["payload"]["head"] == 3
    for number in (2, 3):
        message = yield from _receive("note")
        assert (message["off"], message["payload"]) == (number, {"n": number})
    yield from _receive("$live")
    yield "close", ""
