"""What a connection needs until its request is answered."""

from __future__ import annotations

from ..wire.http import Head, HeadReader

__all__ = ["Handshake"]


class Handshake:
    """What a connection needs until it is accepted, and not afterwards."""

    __slots__ = ("head", "limited", "request", "trailing_data")

    def __init__(self, head: HeadReader, limited: bool | str) -> None:
        self.head: HeadReader = head
        self.limited: bool | str = limited
        """Whether rates hold for it; a text: of whom."""
        self.request: Head | None = None
        self.trailing_data: bytes = b""
        """Bytes that came with or after the request."""
