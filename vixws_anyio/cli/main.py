"""The command `vixws`. Composes what the packages offer; nothing else imports more than one of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from vixws_core.errors import LocalError, StoreError
from vixws_core.protocols import Consumer

from .flags import Parser, add_settings, config_of, count_of, log_settings, seconds_of, unknown
from .loglines import log_to_stderr, logging_to_stderr
from .replay import add_replay
from .store import add_store
from .terminal import FAILED, OK, USAGE, CommandFailed, complain, open_standard_streams

__all__ = ["main"]

BROKEN_PIPE: Final = 141
"""128 + SIGPIPE, as a shell reports a command whose reader went away."""
INTERRUPTED: Final = 130
"""128 + SIGINT."""
COMMANDS: Final = ("serve", "config", "tail", "publish", "store", "replay")
"""The commands, with which a line of theirs on stderr begins."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 where it failed, 2 where it could not start."""
    open_standard_streams()
    parser = _parser()
    try:
        arguments, rest = parser.parse_known_args(argv)
        if rest:
            raise CommandFailed(unknown(rest[0]))
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
    except (LocalError, StoreError) as exc:
        complain(_name(argv), exc)
        return USAGE
    return code


def _name(argv: Sequence[str] | None) -> str:
    words = sys.argv[1:] if argv is None else argv
    return f"vixws {words[0]}" if words and words[0] in COMMANDS else "vixws"


# ---- commands ---------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    from vixws_store.urls import open_store

    from .serve import check_chat, find_application, heed_signals, serve

    try:
        heed_signals()
        with logging_to_stderr(*log_settings(arguments)):
            server = find_application(arguments.app)
            config = config_of(arguments, server.config)
            log_to_stderr(config.log_format, config.log_level)
            if arguments.app is None:
                check_chat(config)
            return serve(server, config, open_store, _metrics)
    except KeyboardInterrupt:  # A signal before the loop took them over.
        return OK


def _metrics() -> Consumer:
    from vixws_metrics import WebSocketMetrics

    return WebSocketMetrics()


def _config(arguments: argparse.Namespace) -> int:
    from .config import as_json, as_markdown, print_config
    from .serve import find_application

    if arguments.markdown:
        sys.stdout.write(as_markdown())
        return OK
    base = find_application(arguments.app).config if arguments.app is not None else None
    config = config_of(arguments, base)
    if arguments.json:
        print(as_json(config))
    else:
        print_config(config)
    return OK


def _tail(arguments: argparse.Namespace) -> int:
    from .talk import tail

    return tail(arguments)


def _publish(arguments: argparse.Namespace) -> int:
    from .talk import publish

    return publish(arguments)


# ---- the command line -------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vixws",
        description="WebSocket rooms with durable, ordered, resumable history.",
        epilog="Each command explains itself: vixws serve --help",
    )
    parser.add_argument("--version", action="version", version=f"vixws {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    serve = commands.add_parser(
        "serve",
        help="run a server; without --app, the built-in chat",
        usage="vixws serve [--config FILE] [--app MODULE:NAME] [flags]",
        description="Runs a server until SIGTERM or SIGINT. Prints one line on stdout once it listens; logs on stderr, "
        "one event a line.",
        epilog="Exit status: 0 after a signal, 2 where it could not start, 1 otherwise. docs/configuration.md has the "
        "ranges of all settings, which a file and VIXWS_... variables can set too.",
    )
    add_settings(serve)
    serve.set_defaults(run=_serve)

    config = commands.add_parser(
        "config",
        help="print the effective configuration, and where each value came from",
        usage="vixws config [--json | --markdown] [--config FILE] [--app MODULE:NAME] [flags]",
        description="Prints what `vixws serve` would run on, with the same flags, and where each value came from.",
    )
    config.add_argument("--json", action="store_true", help="as JSON")
    config.add_argument("--markdown", action="store_true", help="write docs/configuration.md instead")
    add_settings(config)
    config.set_defaults(run=_config)
    _add_talk(commands.add_parser)
    add_store(commands.add_parser)
    add_replay(commands.add_parser)
    return parser


def _add_talk(add: Callable[..., argparse.ArgumentParser]) -> None:
    tail = add(
        "tail",
        help="print a room's messages as they come",
        description="Prints the messages of a room as they come, over reconnects, until interrupted.",
    )
    tail.add_argument("url", metavar="URL", help="ws://... or wss://... of a server")
    tail.add_argument("room", metavar="ROOM")
    where = tail.add_mutually_exclusive_group()
    where.add_argument("--since", metavar="EP:OFF", help="begin after this position of the room's log")
    where.add_argument("--last", type=count_of, default=0, metavar="N", help="begin with the newest N messages")
    tail.add_argument("--count", type=count_of, metavar="N", help="end after N messages")
    tail.add_argument("--json", action="store_true", help="a JSON object a line, with ids and offsets")
    tail.add_argument("--ca", metavar="FILE", help="PEM file of the authority to trust for wss://")
    tail.set_defaults(run=_tail)

    publish = add(
        "publish",
        help="publish a message, or each line of stdin",
        description="Publishes into a room, over reconnects, and waits until it is stored. Prints the position EP:OFF "
        "and the id; 'not stored' for a room that is not kept. Lines of stdin give a line on stderr for each that "
        "failed, and a summary there at the end; what comes after 256 lines without an answer waits, and where none "
        "of them is answered in time, is not read any more.",
        epilog="Exit status: 0 where all are published, 1 where one is not or the server cannot be reached, 2 for a "
        "mistake in the words.",
    )
    publish.add_argument("url", metavar="URL", help="ws://... or wss://... of a server")
    publish.add_argument("room", metavar="ROOM")
    publish.add_argument("type", metavar="TYPE", help="the messages' type, such as chat.message")
    publish.add_argument("payload", metavar="JSON|-", help="the payload, an object; -: one from each line of stdin")
    publish.add_argument(
        "--timeout", type=seconds_of, default=30.0, metavar="SECONDS", help="for each answer (default 30)"
    )
    publish.add_argument("--ca", metavar="FILE", help="PEM file of the authority to trust for wss://")
    publish.set_defaults(run=_publish)


def _version() -> str:
    try:
        return version("vixws")
    except PackageNotFoundError:
        return "unknown"
