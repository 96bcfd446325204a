"""The configuration of a server, and the table of settings that it is made from."""

from .config import Config, ConfigError, default, show, suggest

__all__ = ["Config", "ConfigError", "default", "show", "suggest"]
