"""What a client's calls raise."""

from __future__ import annotations

__all__ = ["ClientEnded", "ClientError", "JoinError", "PublishError", "RequestError"]


class ClientError(Exception):
    """The server's answer was an error: `code` is one of the wire protocol's, `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code: str = code
        self.message: str = message


class PublishError(ClientError):
    """A publish failed for good. With the code `closed` it may or may not be stored: publish the same `mid` again."""


class JoinError(ClientError):
    """The server did not let us into a room, or put us out of it."""


class RequestError(ClientError):
    """A question to the server was answered by an error."""


class ClientEnded(Exception):
    """The client has stopped and will not come back: `code` is the close code, `reason` the server's words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the client has ended with {code}{f': {reason}' if reason else ''}")
        self.code: int = code
        self.reason: str = reason
