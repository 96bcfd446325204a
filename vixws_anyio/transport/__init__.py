"""Carries a connection's bytes, on asyncio or trio."""

from .interface import Transport
from .socket import SocketTransport
from .stream import StreamTransport

__all__ = ["SocketTransport", "StreamTransport", "Transport"]
