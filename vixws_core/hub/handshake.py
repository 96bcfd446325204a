"""What a connection needs until its request is answered."""

from __future__ import annotations

from ..wire.http import Head, HeadReader

__all__ = ["Handshake"]


class Handshake:
    """What a connection needs until it is accepted, and not afterwards."""

    __slots__ = ("head", "limited", "request", "trailing_data")

    def __init__(self, head: HeadReader, limited: bool) -> None:
        self.head: HeadReader = head
        self.limited: bool = limited
        """Whether the rate of messages holds for it."""
        self.request: Head | None = None
        self.trailing_data: bytes = b""
        """Bytes that came with or after the request."""
