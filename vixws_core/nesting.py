"""How deep a JSON text is nested, and whether its outermost object repeats a key: found without building any of it.

The text is good JSON already. Everything here runs over it in C, a constant number of times.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

import msgspec

__all__ = ["depth_of", "repeats_a_key"]

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STEPS: Final = bytes(1 if byte in b"{[" else 255 for byte in range(256))
"""A step down for every byte but an opening bracket: only brackets are left when it is used."""
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in b"{[]}")
_OUTERMOST: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def depth_of(data: bytes) -> int:
    """The deepest nesting of brackets outside strings."""
    brackets = _STRING.sub(b"", data).translate(_STEPS, _OTHERS)
    return max(accumulate(memoryview(brackets).cast("b")), default=0)


def repeats_a_key(data: bytes) -> bool:
    """Whether the outermost object has a key twice, however it is written.

    Of a key that stands there twice the last value holds, so the quotation marks of the other one are too many.
    """
    found = _OUTERMOST.decode(data)
    inside = sum([bytes(value).count(b'"') for value in found.values()])
    escaped = sum([key.count('"') for key in found])  # Each is one more, or none where it is written as \u0022.
    # Another key has two: with more than one such quotation mark it could hide, and that is as bad.
    return escaped > 1 or data.count(b'"') > inside + 2 * len(found) + escaped
