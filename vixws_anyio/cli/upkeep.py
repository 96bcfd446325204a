"""`vixws store trim|redact|rotate-epoch`: changes a SQLite store's file that is not served."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from .flags import count_of, offset_of
from .terminal import OK, CommandFailed, one_line

__all__ = ["add_upkeep", "file_of"]

_STATUS = "Exit status: 0, 2 where the file is served or cannot be written, or has no such room."


def add_upkeep(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the actions that change a file."""
    trim = add(
        "trim",
        help="forget the oldest messages of a room, while no server has the file",
        description="Forgets the oldest messages of a room for good, and their idempotency keys. Members that come "
        "back from below are told that there is a gap. Prints how many it forgot.",
        epilog=f"{_STATUS} The file keeps its size; new messages take the space.",
    )
    _add_file_and_room(trim, "which room", required=True)
    bound = trim.add_mutually_exclusive_group(required=True)
    bound.add_argument("--keep", type=count_of, metavar="N", help="forget all but the newest N")
    bound.add_argument("--before", type=offset_of, metavar="OFF", help="forget those before this offset")
    trim.set_defaults(run=_trim)

    redact = add(
        "redact",
        help="replace the payload of a message for ever, while no server has the file",
        description='Replaces the payload of one message by {"$redacted":true}, for ever: the old bytes are gone from '
        "the file. Offset, id, type, sender and time stay, and sending it again is answered as a repeat.",
        epilog=f"{_STATUS} Copies elsewhere, such as backups, are not touched.",
    )
    _add_file_and_room(redact, "which room", required=True)
    redact.add_argument("--off", type=offset_of, required=True, metavar="N", help="the offset, as history prints it")
    redact.set_defaults(run=_redact)

    rotate = add(
        "rotate-epoch",
        help="give rooms a new epoch, while no server has the file",
        description="Gives all rooms, or one, a new epoch. Messages, offsets and ids stay. Members that come back with "
        "an older position are told that it is of another log, and begin at its end. Prints the epoch.",
        epilog=_STATUS,
    )
    _add_file_and_room(rotate, "this room only", required=False)
    rotate.set_defaults(run=_rotate)


def file_of(file: str) -> str:
    """The path of a store's file. Raises: `CommandFailed` where a folder is named."""
    if os.path.isdir(file):
        raise CommandFailed(f"{file}: expected the file of a store, got a folder")
    return file


def _add_file_and_room(parser: argparse.ArgumentParser, which: str, *, required: bool) -> None:
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--room", required=required, metavar="R", help=which)


def _trim(arguments: argparse.Namespace) -> int:
    from vixws_store.upkeep import trim_before, trim_to

    file = file_of(arguments.file)
    if arguments.keep is None:
        count = trim_before(file, arguments.room, arguments.before)
    else:
        count = trim_to(file, arguments.room, arguments.keep)
    print(f"{count:,} messages trimmed")
    return OK


def _redact(arguments: argparse.Namespace) -> int:
    from vixws_store.upkeep import redact

    found = redact(file_of(arguments.file), arguments.room, arguments.off)
    print(one_line(f"redacted: offset {found.off} id {found.id}"))
    return OK


def _rotate(arguments: argparse.Namespace) -> int:
    from vixws_store.upkeep import rotate_epoch

    print(one_line(f"epoch {rotate_epoch(file_of(arguments.file), arguments.room)}"))
    return OK
