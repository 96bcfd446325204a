"""What a caller did wrong. A peer's fault is data; the disk's fault is an input."""

from __future__ import annotations

from .codes import BAD_ROOM, DENIED, TOO_MANY_ROOMS

__all__ = ["BadMessage", "BadRoom", "LocalError", "Refused", "StoreError", "TooManyRooms", "text_of"]


def text_of(exc: BaseException) -> str:
    """What an exception says; "" where it cannot even do that: it may be anybody's."""
    try:
        return str(exc)
    except Exception:
        return ""


class LocalError(Exception):
    """A call that this program should not have made: a bad room name, a closed server, a wrong type.

    It never leaves `Hub.handle` because of what a peer sent. The message names the value and what was expected.
    """


class BadMessage(ValueError):
    """A text that is not a valid message. `code` is the `$err` code of the wire protocol.

    Raised by the pure parsers (`JsonMessage.parse`, `wire.decode`); the hub turns it into an answer
    to the sender, so it never leaves `Hub.handle`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: str = code


class Refused(Exception):
    """Raised by an application's guard or handler to refuse a message; the sender gets `$err code`.

    `code` is one of the codes of the wire protocol (`denied` by default); `message` is shown to the peer.
    """

    def __init__(self, message: str = "refused by the application", code: str = DENIED) -> None:
        super().__init__(message)
        self.code: str = code


class BadRoom(Refused, LocalError):
    """A room name that cannot be one. A handler that lets it pass answers its sender `$err bad_room`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, BAD_ROOM)


class TooManyRooms(Refused, LocalError):
    """A join beyond `rooms_max`. A handler that lets it pass answers its sender `$err too_many_rooms`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, TOO_MANY_ROOMS)


class StoreError(Exception):
    """A store could not do what was asked: `code` says which way, `retry` whether trying again can help.

    Codes: `store_unavailable store_full mid_conflict fenced seq_gap stale_mid internal`. `expected`: for `seq_gap`, the
    number that the producer's next message must have.
    """

    def __init__(self, code: str, message: str, *, retry: bool = False, expected: int | None = None) -> None:
        super().__init__(message)
        self.code: str = code
        self.retry: bool = retry
        self.expected: int | None = expected
