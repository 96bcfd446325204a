"""The flags of the command line: one for each row of the table of settings."""

from __future__ import annotations

import argparse
import dataclasses
import os
from types import MappingProxyType
from typing import Any, Final, NoReturn

from ..config.config import Config, ConfigError, show, suggest
from ..config.config import default as default_of
from ..config.kinds import Address, Choice, Hosts, Number, Optional, Switch, Text, Whole, Words
from ..config.rules import Rules
from ..config.settings import SECTIONS, SETTINGS, Setting, find
from .terminal import CommandFailed

__all__ = ["Parser", "add_settings", "config_of", "count_of", "log_settings", "offset_of", "seconds_of", "unknown"]

_TITLES: Final = {
    "websocket": "tuning connections",
    "store": "tuning the store",
    "metrics": "tuning metrics",
    "rooms": "tuning rooms",
    "auth": "tuning authentication",
    "log": "tuning the trace",
}
_FIRST: Final = (
    "host",
    "port",
    "store",
    "metrics_listen",
    "backend",
    "uvloop",
    "tls_cert",
    "tls_key",
    "log_format",
    "log_level",
    "trace",
)
"""The settings that one needs, in the order of the help."""


SERVED_MESSAGES_PER_S: Final = 1_000.0
"""The rate of messages that `vixws serve` begins with; a server of a program's own begins without one."""


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line; `--help` tells the rest. Flags are written out."""

    def __init__(self, **options: Any) -> None:
        options["allow_abbrev"] = False
        super().__init__(**options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises: `CommandFailed` for a word that is no command, with the likeliest one."""
        if action.choices is None or value in action.choices:
            return
        words = tuple(map(str, action.choices))
        expected = f"{', '.join(words[:-1])} or {words[-1]}"
        what = f"unknown {str(action.metavar).lower()} {value!r:.100}{suggest(str(value), words)}"
        raise CommandFailed(f"{what}, expected {expected} (try {self.prog} --help)")

    def error(self, message: str) -> NoReturn:
        """Raises: `CommandFailed`, one line."""
        raise CommandFailed(f"{message} (try {self.prog} --help)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, `--app`, and a flag for each setting: what one needs first, the rest grouped by section."""
    parser.add_argument("--config", metavar="FILE", help="JSON file with settings")
    parser.add_argument("--app", metavar="MODULE:NAME", help="the Server to run; the current folder is importable")
    groups = {section: parser.add_argument_group(_TITLES[section]) for section in SECTIONS}
    rest = [setting for setting in SETTINGS if setting.field not in _FIRST]
    for setting in (*map(find, _FIRST), *rest):
        group = parser if setting.field in _FIRST else groups[setting.section]
        meaning = setting.meaning.replace("`", "").replace("%", "%%")
        if not meaning[1].isupper():  # An abbreviation stays as it is.
            meaning = meaning[0].lower() + meaning[1:]
        text = meaning.rstrip(".")
        if (default := default_of(setting)) not in (None, ()):
            text += f" (default {default if isinstance(default, str) else show(default)})"
        if isinstance(setting.kind, Switch):
            group.add_argument(
                setting.flag, dest=setting.field, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            group.add_argument(setting.flag, dest=setting.field, metavar=_metavar(setting), help=text)


def _metavar(setting: Setting) -> str:
    """What stands after a flag in its help."""
    match setting.kind:
        case Choice(words):
            return "|".join(words)
        case Number(unit="seconds"):
            return "SECONDS"
        case Whole(unit="bytes"):
            return "BYTES"
        case Address():
            return "HOST:PORT|off"
        case Hosts():
            return "HOST,..."
        case Words():
            return "PATTERN,..."
        case Rules():
            return "JSON"
        case Optional():
            return "FILE"
        case Text():
            return "URL"
        case _:
            return "N"


def config_of(arguments: argparse.Namespace, base: Config | None) -> Config:
    """The configuration that parsed flags, the file they name and the environment make. Raises: `ConfigError`."""
    given = {setting.field: getattr(arguments, setting.field) for setting in SETTINGS}
    flags = {field: value for field, value in given.items() if value is not None}
    found = Config.load(arguments.config, os.environ, flags, base)
    if found.source("messages_per_s") != "default":
        return found
    limited = found.replace(messages_per_s=SERVED_MESSAGES_PER_S)
    sources = MappingProxyType({**limited.sources, "messages_per_s": "vixws serve"})
    return dataclasses.replace(limited, sources=sources)


def log_settings(arguments: argparse.Namespace) -> tuple[str, str]:
    """Format and level of the log as far as they are known before the application is; a mistake is told later."""
    try:
        early = config_of(arguments, None)
    except ConfigError:
        early = Config()
    return early.log_format, early.log_level


def unknown(word: str) -> str:
    """What to say of a word on the command line that nothing takes."""
    if not word.startswith("-"):
        return f"expected flags only, got {word!r:.100}"
    flag = word.partition("=")[0]
    return f"unknown flag {flag!r:.100}{suggest(flag, ('--config', '--app', *(one.flag for one in SETTINGS)))}"


def count_of(text: str) -> int:
    """A count on the command line, 0 to 1,000,000."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"expected a count from 0 to 1000000, got {show(text)}")
    return int(text)


def offset_of(text: str) -> int:
    """An offset in a room's log on the command line, 0 to 2**53."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= 1 << 53):
        raise argparse.ArgumentTypeError(f"expected an offset from 0 to {1 << 53}, got {show(text)}")
    return int(text)


def seconds_of(text: str) -> float:
    """Seconds on the command line, 0.01 to 86,400."""
    kind = Number(0.01, 86_400.0)
    try:
        value = kind.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {kind.expected}, got {show(text)}") from None
    assert isinstance(value, float)
    return value
