"""The client that a program uses: one connection that comes back, on asyncio or trio."""

from .client import Client
from .errors import ClientEnded, ClientError, JoinError, PublishError, RequestError
from .room import History, Room, RoomPosition

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
