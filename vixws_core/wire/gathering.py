"""Messages that come in several frames, or in pieces."""

from __future__ import annotations

from codecs import getincrementaldecoder
from io import BytesIO, StringIO
from typing import Final, Protocol

__all__ = ["Bytes", "Gathering", "Text"]

_DECODER: Final = getincrementaldecoder("utf-8")


class Gathering(Protocol):
    """A message of which not all has come."""

    def add(self, part: bytes, is_last: bool, /) -> None:
        """Takes what comes next. Raises: `UnicodeDecodeError` as soon as it cannot become a text any more."""
        ...

    def value(self) -> str | bytes:
        """The message, once it is complete."""
        ...


class Text:
    """A text, checked as it comes (RFC 6455 §8.1)."""

    __slots__ = ("_decoder", "_parts")

    def __init__(self) -> None:
        self._decoder = _DECODER()
        self._parts = StringIO()

    def add(self, part: bytes, is_last: bool) -> None:
        """Takes what comes next. Raises: `UnicodeDecodeError`."""
        self._parts.write(self._decoder.decode(part, is_last))

    def value(self) -> str:
        """The text."""
        return self._parts.getvalue()


class Bytes:
    """Bytes."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = BytesIO()

    def add(self, part: bytes, is_last: bool) -> None:
        """Takes what comes next."""
        self._parts.write(part)

    def value(self) -> bytes:
        """The bytes."""
        return self._parts.getvalue()
