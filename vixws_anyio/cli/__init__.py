"""The command `vixws`. It alone composes what the packages offer."""

from .main import main

__all__ = ["main"]
