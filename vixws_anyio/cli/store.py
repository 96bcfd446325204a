"""`vixws store`: looks into a SQLite store's file, and repairs one; `upkeep` has what else changes one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import msgspec

from .flags import Parser, count_of
from .messages import print_message
from .terminal import FAILED, OK, CommandFailed, colour, one_line, print_table
from .upkeep import add_upkeep, file_of

__all__ = ["add_store"]


def add_store(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command and its actions to the command line."""
    store = add(
        "store",
        help="look into a store's file, served or not; repair, trim or redact one that is not served",
        description="Looks into a SQLite store's file, which may be served meanwhile; only repair, trim, redact and "
        "rotate-epoch change it.",
        epilog="Exit status: 0, 1 where check found damage or history no such room, 2 where the file cannot be used.",
    )
    actions = store.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=Parser)

    stats = actions.add_parser("stats", help="counts and sizes, room by room")
    stats.add_argument("file", metavar="FILE")
    stats.add_argument("--json", action="store_true", help="as JSON")
    stats.set_defaults(run=_stats)

    history = actions.add_parser("history", help="the newest messages of a room, oldest first")
    history.add_argument("file", metavar="FILE")
    history.add_argument("room", metavar="ROOM")
    history.add_argument("--limit", type=count_of, default=50, metavar="N", help="how many (default 50)")
    history.add_argument("--before", metavar="ID", help="only messages below this id")
    history.add_argument("--json", action="store_true", help="a JSON object a line, with ids and offsets")
    history.set_defaults(run=_history)

    check = actions.add_parser(
        "check",
        help="look for damage: pages, indexes, checksums, offsets, ids",
        description="Looks for damage of all that the file holds, and reads it more than once for that; the "
        "write-ahead log of a file that is served grows meanwhile.",
        epilog="Exit status: 0 where it is sound, 1 where it is not, 2 where the file cannot be used.",
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(run=_check)

    repair = actions.add_parser(
        "repair",
        help="make a damaged file sound again, while no server has it",
        description="Makes a new file of all that is certain: indexes, rooms and the counter of ids are made anew from "
        "the messages, and what is lost is told to members as a gap. Says what it did, and what it could not. The "
        "damaged file stays beside it, as FILE.damaged; a sound one is left alone.",
        epilog="Exit status: 0, 1 where something is lost, 2 where the file is served or cannot be used.",
    )
    repair.add_argument("file", metavar="FILE")
    repair.set_defaults(run=_repair)

    add_upkeep(actions.add_parser)


def _stats(arguments: argparse.Namespace) -> int:
    from vixws_store.inspect import stats

    found = stats(_file_of(arguments))
    if arguments.json:
        print(msgspec.json.encode(found).decode())
        return OK
    print(f"{one_line(found.path)}: {found.file_bytes:,} bytes, and {found.wal_bytes:,} in its WAL")
    print(f"schema version {found.schema_version}, epoch {one_line(found.epoch)}, last id {found.last_id:020}")
    print(f"{found.rows:,} messages in {len(found.rooms):,} rooms, {found.payload_bytes:,} bytes of payloads")
    if found.rooms:
        rows = [
            (room.room, str(room.rows), str(room.payload_bytes), str(room.floor), str(room.head), room.ep, room.last_ts)
            for room in found.rooms
        ]
        print()
        print_table(("ROOM", "MESSAGES", "BYTES", "FLOOR", "HEAD", "EPOCH", "NEWEST"), rows)
    return OK


def _history(arguments: argparse.Namespace) -> int:
    from vixws_store.inspect import history, stats

    file = _file_of(arguments)
    entries = history(file, arguments.room, arguments.limit, arguments.before)
    for entry in entries:
        print_message(entry, arguments.json)
    if not entries and arguments.room not in (rooms := {found.room for found in stats(file).rooms}):
        raise CommandFailed(f"{file}: no room {arguments.room!r:.140} among its {len(rooms)} rooms", FAILED)
    return OK


def _check(arguments: argparse.Namespace) -> int:
    from vixws_store.inspect import check

    found = check(_file_of(arguments))
    for finding in found.findings:
        place = "" if finding.room is None else f"room {finding.room} offset {finding.off} id {finding.id}: "
        print(one_line(f"{place}{finding.message}"))
    if found.lost:
        print(f"{found.lost:,} offsets are known to be lost since a repair")
    verdict = "sound" if found.sound else f"{len(found.findings)} findings"
    print(f"{found.rows:,} messages: {colour('green' if found.sound else 'red', verdict, sys.stdout)}")
    return OK if found.sound else FAILED


def _repair(arguments: argparse.Namespace) -> int:
    from vixws_store.repair import repair

    found = repair(_file_of(arguments))
    if not found.kept:
        print(f"{found.rows:,} messages: sound, nothing was changed")
        return OK
    for line in found.done:
        print(one_line(f"made anew: {line}"))
    for line in found.lost:
        print(one_line(f"not repaired: {line}"))
    print(one_line(f"{found.rows:,} messages in the new file, with new indexes; the damaged one is {found.kept}"))
    return FAILED if found.lost else OK


def _file_of(arguments: argparse.Namespace) -> str:
    """The store's file. Raises: `CommandFailed` where a folder is named."""
    return file_of(arguments.file)
