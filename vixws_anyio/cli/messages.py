"""Messages of a room on stdout: columns for people, or a JSON object a line."""

from __future__ import annotations

import sys

from vixws_core.message import StoredMessage, encode_json

from .terminal import colour, one_line

__all__ = ["print_message"]


def print_message(message: StoredMessage, as_json: bool) -> None:
    """Writes one line; the payload's JSON goes out byte for byte where it is on one line itself."""
    payload = message.payload_json.replace(b"\n", b" ").replace(b"\r", b" ").decode("utf-8", "replace")
    if as_json:
        head = {"type": message.type, "room": message.room}
        numbers = {"ep": message.ep, "off": message.off, "id": message.id, "ts": message.ts}
        full = head | {key: value for key, value in numbers.items() if value}
        if message.kind != "event":
            full["kind"] = message.kind
        if message.sender:
            full["from"] = message.sender
        print(f'{encode_json(full).decode()[:-1]},"payload":{payload}}}')
        return
    place = colour("grey", f"{message.ts or '-':24} {message.off or '-':>6}", sys.stdout)
    print(f"{place} {colour('blue', one_line(message.type), sys.stdout)} {one_line(payload)}")
