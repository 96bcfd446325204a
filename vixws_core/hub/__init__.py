"""The hub: one pure state machine that decides everything, behind one door."""

from .hub import Hub
from .model import MOVES, ConnectionState

__all__ = ["MOVES", "ConnectionState", "Hub"]
