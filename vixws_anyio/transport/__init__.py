"""Carries a connection's bytes, on asyncio or trio."""

from .socket import SocketTransport, StreamTransport, Transport

__all__ = ["SocketTransport", "StreamTransport", "Transport"]
