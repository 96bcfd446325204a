"""Keys of messages: what begins with `~` is an ordered producer's, `~producer:epoch:seq` (PROTOCOL §4)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Numbered", "is_mid", "numbered"]

_FORM: Final = re.compile("~([0-9A-Za-z_-]{1,32}):(0|[1-9][0-9]{0,14}):([1-9][0-9]{0,14})")
"""Numbers stand without leading zeros, so that each has one spelling."""


class Numbered(NamedTuple):
    """The key of an ordered producer's message, taken apart."""

    producer: str
    epoch: int
    seq: int


def is_mid(mid: str) -> bool:
    """Whether a text may be a key: one that begins with `~` is an ordered producer's, or none."""
    return mid[:1] != "~" or _FORM.fullmatch(mid) is not None


def numbered(mid: str) -> Numbered | None:
    """The parts of an ordered producer's key; None for any other key."""
    found = _FORM.fullmatch(mid) if mid[:1] == "~" else None
    return None if found is None else Numbered(found[1], int(found[2]), int(found[3]))
