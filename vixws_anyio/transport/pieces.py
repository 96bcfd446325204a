"""What waits to be written to a connection, and how it is joined for a write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["JOIN_MAX", "Piece", "gather"]

JOIN_MAX: Final = 65_536
"""Pieces are joined up to this size for one `send`."""

PIECE_MAX: Final = 16_384
"""A piece above this is not copied to be joined."""

Piece = bytes | memoryview
"""Bytes, or what is left of them."""


def gather(pieces: Sequence[Piece]) -> list[Piece]:
    """Joins neighbours that are small, up to 64 KiB; leaves pieces over 16 KiB as they are."""
    chunks: list[Piece] = []
    run: list[Piece] = []
    size = 0
    for piece in pieces:
        length = len(piece)
        if run and (length > PIECE_MAX or size + length > JOIN_MAX):
            chunks.append(run[0] if len(run) == 1 else b"".join(run))
            run = []
            size = 0
        if length > PIECE_MAX:
            chunks.append(piece)
        else:
            run.append(piece)
            size += length
    if run:
        chunks.append(run[0] if len(run) == 1 else b"".join(run))
    return chunks
