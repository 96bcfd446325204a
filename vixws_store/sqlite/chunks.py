"""Statements of many rows: a few sizes, so that few of them are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["CHUNKS", "chunks"]

CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement. One statement of many rows is one release of the interpreter's lock instead of one
per row (which costs up to a switch interval each while the event loop is busy), and few sizes keep the
prepared statements few."""


def chunks(values: Sequence[Any], width: int) -> Iterator[Sequence[Any]]:
    """Cuts a flat sequence of rows into parts of `CHUNKS` rows."""
    start = 0
    left = len(values) // width
    for count in CHUNKS:
        while left >= count:
            yield values[start : start + count * width]
            start += count * width
            left -= count
