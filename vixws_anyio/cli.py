"""The command `vixws`. Composes what the packages offer; nothing else imports more than one of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NoReturn

from vixws_core.errors import LocalError, StoreError
from vixws_core.protocols import Consumer

from ._cli_terminal import FAILED, OK, USAGE, CommandFailed, complain, log_to_stderr
from ._setting_kinds import Address, Choice, Number, Optional, Switch, Text, Whole, Words
from .config import Config, show, suggest
from .config import default as default_of
from .settings import SECTIONS, SETTINGS, Setting

__all__ = ["main"]

BROKEN_PIPE: Final = 141
"""128 + SIGPIPE, as a shell reports a command whose reader went away."""
INTERRUPTED: Final = 130
"""128 + SIGINT."""

_TITLES: Final = {
    "websocket": "connections",
    "store": "the store",
    "metrics": "metrics",
    "rooms": "rooms",
    "auth": "authentication",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 where it failed, 2 where it could not start."""
    parser = _parser()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if rest:
            raise CommandFailed(_unknown(rest[0]))
        run: Callable[[argparse.Namespace], int] = arguments.run
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Or the last flush would complain.
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else OK if exc.code is None else FAILED
    except CommandFailed as exc:
        complain(_name(argv), exc)
        return exc.code
    except LocalError as exc:
        complain(_name(argv), exc)
        return USAGE
    except StoreError as exc:
        complain(_name(argv), exc)
        return FAILED
    return code


def _name(argv: Sequence[str] | None) -> str:
    words = sys.argv[1:] if argv is None else argv
    return f"vixws {words[0]}" if words and words[0].isalpha() else "vixws"


def _unknown(word: str) -> str:
    """What to say of a word on the command line that nothing takes."""
    if not word.startswith("-"):
        return f"expected flags only, got {word!r:.100}"
    flag = word.partition("=")[0]
    return f"unknown flag {flag!r:.100}{suggest(flag, ('--config', '--app', *(one.flag for one in SETTINGS)))}"


# ---- commands ---------------------------------------------------------------------------------------


def _config_of(arguments: argparse.Namespace, base: Config | None) -> Config:
    given = {setting.field: getattr(arguments, setting.field) for setting in SETTINGS}
    flags = {field: value for field, value in given.items() if value is not None}
    return Config.load(arguments.config, os.environ, flags, base)


def _serve(arguments: argparse.Namespace) -> int:
    from vixws_store.urls import open_store

    from ._cli_serve import find_application, heed_signals, serve

    try:
        heed_signals()
        log_to_stderr()
        server = find_application(arguments.app)
        return serve(server, _config_of(arguments, server.config), open_store, _metrics)
    except KeyboardInterrupt:  # A signal before the loop took them over.
        return OK


def _metrics() -> Consumer:
    from vixws_metrics import WebSocketMetrics

    return WebSocketMetrics()


def _config(arguments: argparse.Namespace) -> int:
    from ._cli_config import as_json, as_markdown, print_config
    from ._cli_serve import find_application

    if arguments.markdown:
        sys.stdout.write(as_markdown())
        return OK
    base = find_application(arguments.app).config if arguments.app is not None else None
    config = _config_of(arguments, base)
    if arguments.json:
        print(as_json(config))
    else:
        print_config(config)
    return OK


# ---- the command line -------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line; `--help` tells the rest."""

    def error(self, message: str) -> NoReturn:
        raise CommandFailed(f"{message} (try {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vixws",
        description="WebSocket rooms with durable, ordered, resumable history.",
        epilog="Each command explains itself: vixws serve --help",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vixws {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    serve = commands.add_parser(
        "serve",
        help="run a server; without --app, the built-in chat",
        usage="vixws serve [--config FILE] [--app MODULE:NAME] [flags]",
        description="Runs a server until SIGTERM or SIGINT. Prints one line on stdout once it listens; logs on stderr.",
        epilog="Exit status: 0 after a signal, 2 where it could not start, 1 otherwise. docs/configuration.md has the "
        "ranges of all settings, which a file and VIXWS_... variables can set too.",
        allow_abbrev=False,
    )
    _add_settings(serve)
    serve.set_defaults(run=_serve)

    config = commands.add_parser(
        "config",
        help="print the effective configuration, and where each value came from",
        usage="vixws config [--json | --markdown] [--config FILE] [--app MODULE:NAME] [flags]",
        description="Prints what `vixws serve` would run on, with the same flags, and where each value came from.",
        allow_abbrev=False,
    )
    config.add_argument("--json", action="store_true", help="as JSON")
    config.add_argument("--markdown", action="store_true", help="write docs/configuration.md instead")
    _add_settings(config)
    config.set_defaults(run=_config)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="JSON file with settings")
    parser.add_argument("--app", metavar="MODULE:NAME", help="the Server to run; the current folder is importable")
    groups = {section: parser.add_argument_group(_TITLES[section]) for section in SECTIONS}
    for setting in SETTINGS:
        group = groups[setting.section]
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
        case Words():
            return "PATTERN,..."
        case Optional():
            return "FILE"
        case Text():
            return "URL" if setting.section == "store" else "HOST"
        case _:
            return "N"


def _version() -> str:
    try:
        return version("vixws")
    except PackageNotFoundError:
        return "unknown"
