"""The client that a program uses: one connection that comes back, on asyncio or trio."""

from .client import (
    Client,
    ClientEnded,
    ClientError,
    History,
    JoinError,
    PublishError,
    RequestError,
    Room,
    RoomPosition,
)

__all__ = [
    "Client",
    "ClientEnded",
    "ClientError",
    "History",
    "JoinError",
    "PublishError",
    "RequestError",
    "Room",
    "RoomPosition",
]
