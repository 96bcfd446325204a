"""One row of the table of settings, and what the texts in it may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network

from vixws_core.app.origins import ANY_ORIGIN, parse_origin

from .kinds import Kind

__all__ = ["Setting", "is_network", "is_origin", "is_path", "is_pattern", "is_url"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `field` is its name in `Config`, and in `HubConfig` where it is there too."""

    section: str
    key: str
    """In files, camelCase; snake_case is taken as well."""
    field: str
    kind: Kind
    meaning: str
    """One sentence or two, Markdown, without a pipe."""
    name: str = ""
    """The flag without its dashes where it is not the key's own words."""

    @property
    def snake_key(self) -> str:
        """The key in snake_case."""
        return re.sub("(?<=.)[A-Z]", lambda match: "_" + match[0].lower(), self.key)

    @property
    def path(self) -> str:
        """The key with its section, as messages name it: `websocket.port`."""
        return f"{self.section}.{self.key}"

    @property
    def flag(self) -> str:
        """The flag of the command line: `--max-message-size`."""
        return "--" + (self.name or self.snake_key.replace("_", "-"))

    @property
    def variable(self) -> str:
        """The variable of the environment: `VIXWS_MAX_MESSAGE_SIZE`, always the flag's words."""
        return "VIXWS_" + self.flag[2:].replace("-", "_").upper()


def is_url(text: str) -> bool:
    """Whether it is a URL of a store."""
    return re.fullmatch(r"[a-z][a-z0-9+.-]*://\S*", text) is not None and len(text) <= 4_096


def is_path(text: str) -> bool:
    """Whether it can be the path of a file."""
    return 0 < len(text) <= 4_096


def is_network(text: str) -> bool:
    """Whether it is an IP address or network."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_origin(text: str) -> bool:
    """Whether it is the origin of a page, or `*`."""
    return text == ANY_ORIGIN or parse_origin(text) is not None


def is_pattern(text: str) -> bool:
    """Whether it can be the pattern of rooms."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= 128 and text.isprintable()
