"""Runs the pure core of vixws on asyncio or trio: the server, its transports, the command line."""

from vixws_core.app.access import AuthRequest, Denied, Grant, User
from vixws_core.app.router import Router
from vixws_core.app.session import Session
from vixws_core.message import JsonMessage

from .client import Client, ClientEnded, ClientError, JoinError, PublishError, RequestError, Room
from .config import Config
from .server import Listening, Server
from .server.pages import Page, PageRequest
from .transport import SocketTransport, StreamTransport

__all__ = [
    "AuthRequest",
    "Client",
    "ClientEnded",
    "ClientError",
    "Config",
    "Denied",
    "Grant",
    "JoinError",
    "JsonMessage",
    "Listening",
    "Page",
    "PageRequest",
    "PublishError",
    "RequestError",
    "Room",
    "Router",
    "Server",
    "Session",
    "SocketTransport",
    "StreamTransport",
    "User",
]
