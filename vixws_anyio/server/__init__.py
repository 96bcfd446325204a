"""The server that a program embeds, and what one run of it is made of."""

from .runtime import Listening
from .server import Server

__all__ = ["Listening", "Server"]
