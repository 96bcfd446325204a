"""The application's side of the door: tells become calls of handlers, and calls become commands."""

from ..errors import BadRoom
from .app import App
from .commands import Views
from .dispatch import Steps, Waiting
from .router import Router
from .session import Session

__all__ = ["App", "BadRoom", "Router", "Session", "Steps", "Views", "Waiting"]
