"""The pure core of vixws: one state machine that decides everything, and no IO at all."""

from .config import HubConfig
from .errors import BadMessage, BadRoom, LocalError, Refused, StoreError, TooManyRooms
from .hub import Hub
from .message import JsonMessage, StoredMessage, kvs_to_json
from .pump import Pump

__all__ = [
    "BadMessage",
    "BadRoom",
    "Hub",
    "HubConfig",
    "JsonMessage",
    "LocalError",
    "Pump",
    "Refused",
    "StoreError",
    "StoredMessage",
    "TooManyRooms",
    "kvs_to_json",
]
