"""Judges one stored message against the log."""

from __future__ import annotations

from ..message import StoredMessage
from .decoding import Heard
from .oracle import check

__all__ = ["check_row"]


def check_row(who: str, heard: Heard, row: StoredMessage | None) -> None:
    """A stored message is what the log holds, in all that its sender and the log gave it."""
    check(row is not None, f"{who} was sent {heard!r:.200}, expected it to be committed")
    if row is not None:
        told = (heard.ep, heard.id, heard.type, heard.raw, heard.kind, heard.mid, heard.sender, heard.ts)
        held = (row.ep, row.id, row.type, row.payload_json, row.kind, row.mid, row.sender, row.ts)
        check(told == held, f"{who} was sent {heard!r:.300}, the log holds {row!r:.300}")
