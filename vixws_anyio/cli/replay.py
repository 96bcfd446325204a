"""`vixws replay`: repeats what a trace holds, compares it bit for bit, and says why somebody did not get a message."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, Final

from vixws_core.effects import Joined
from vixws_core.trace.explaining import Explainer
from vixws_core.trace.lines import Check, Head, Record, TraceError, read_head, read_lines
from vixws_core.trace.replaying import Difference, Replay, Step
from vixws_core.trace.scene import scene_of
from vixws_core.trace.searching import Search

from ..config.kinds import Whole
from .flags import offset_of
from .terminal import FAILED, OK, CommandFailed, Progress, one_line

__all__ = ["add_replay", "replay"]

LINE_BYTES_MAX: Final = 1 << 28
"""The longest line that is read: a page or a commit of the largest messages has less."""
PLACES_SHOWN: Final = 1 << 20
"""Connections whose numbers are looked at for the state at a step."""


def add_replay(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to the command line."""
    parser = add(
        "replay",
        help="repeat what a trace of `vixws serve --trace FILE` holds",
        usage="vixws replay FILE [--until N] [--explain CONN ROOM OFF] [--redact OUT]",
        description="Gives a fresh hub what reached the one that was traced, and compares all that it gives with what "
        "the trace has of that, bit for bit. The older part, FILE.1, is read first where it belongs to FILE.",
        epilog="Exit status: 0 where it is the same, 1 where it differs, or the trace is damaged, 2 where it cannot be "
        "read. docs/replay.md tells how to find out why somebody did not get a message.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--until", type=offset_of, metavar="N", help="stop after step N and print the state then")
    parser.add_argument(
        "--explain",
        nargs=3,
        metavar=("CONN", "ROOM", "OFF"),
        help="say why that connection was, or was not, sent the message at that offset of the room",
    )
    parser.add_argument(
        "--redact",
        metavar="OUT",
        help="write a copy without payloads, tokens, cookies and addresses, in which the decisions are the same",
    )
    parser.set_defaults(run=replay)


def replay(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    asked: tuple[int, str, int] | None = None
    if arguments.explain is not None:
        conn, room, off = arguments.explain
        asked = (_number("CONN", conn), room, _number("OFF", off))
    with ExitStack() as stack:
        parts = _Parts(arguments.file, stack)
        try:
            if arguments.redact is not None:
                from .redact import redact

                return redact(parts.head, parts.records(), arguments.redact, parts.paths)
            if parts.head.first:
                return _search(parts, asked)
            return _replay(parts, arguments.until, asked)
        except TraceError as exc:
            raise CommandFailed(f"{parts.reading}: {exc}", FAILED) from None


def _number(what: str, text: str) -> int:
    try:
        found = Whole(0, 1 << 53).parse(text)
    except ValueError:
        raise CommandFailed(f"--explain: expected a number as {what}, got {text!r:.40}") from None
    assert isinstance(found, int)
    return found


# ---- the file -------------------------------------------------------------------------------------


class _Parts:
    """The parts of a trace, oldest first. Raises: `CommandFailed` where it cannot be read, or is none."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.reading: str = path
        self.paths: list[str] = [path]
        file = _open(path, stack)
        head = self._head_of(path, file)
        self._files: list[tuple[str, Head, BinaryIO]] = [(path, head, file)]
        older = path + ".1"
        if head.first and os.path.lexists(older):
            file = _open(older, stack)
            found = self._head_of(older, file)
            if found.run == head.run and found.first < head.first:
                self._files.insert(0, (older, found, file))
                self.paths.insert(0, older)
        self.head: Head = self._files[0][1]
        self._progress = [Progress(file, sys.stderr) for _, _, file in self._files]

    def _head_of(self, path: str, file: BinaryIO) -> Head:
        try:
            return read_head(file.readline(1 << 20))
        except TraceError as exc:
            raise CommandFailed(f"{path}: {exc}") from None

    def records(self) -> Iterator[Record | Check | None]:
        """The records and checks of all parts. Raises: `TraceError`."""
        number = self.head.first
        for (path, head, file), progress in zip(self._files, self._progress, strict=True):
            self.reading = path
            if head.first != number:
                raise TraceError(f"line 1: expected step {number}, which follows the older part, got {head.first}")
            for found in read_lines(_lines(file, progress)):
                if isinstance(found, Record):
                    number += 1
                    if not number % 1_000:
                        progress.show(f"step {number:,}")
                yield found
            progress.clear()


def _open(path: str, stack: ExitStack) -> BinaryIO:
    try:
        file = stack.enter_context(open(path, "rb", opener=_without_waiting))  # noqa: SIM115 - the stack closes it
    except OSError as exc:
        raise CommandFailed(f"{path}: {exc.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise CommandFailed(f"{path}: expected a file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # A pipe has nobody at its other end.


def _lines(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX):
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            raise TraceError(f"expected lines of less than {LINE_BYTES_MAX} bytes")
        progress.read(len(line))
        yield line


# ---- the whole ------------------------------------------------------------------------------------


def _replay(parts: _Parts, until: int | None, asked: tuple[int, str, int] | None) -> int:
    head = parts.head
    found = Replay(head)
    explainer = None if asked is None else Explainer(head, *asked)
    seen = _Seen()
    scene: list[str] = []
    for step in found.run(parts.records(), until):
        if until is not None and step.number > until:
            continue  # Up to the next check: it tells whether the steps before are what they were.
        seen.see(step)
        if explainer is not None:
            explainer.see(step, found.hub)
        if step.number == until:
            lowest = seen.lowest
            conns = range(lowest, min(seen.highest, lowest + PLACES_SHOWN) + 1)
            scene = [f"after step {until}, {step.name}, {step.at:.3f} s behind the first:", *scene_of(found.hub, conns)]
    if explainer is not None:
        for number, line in enumerate(explainer.answer()):
            print(one_line(("  " if number else "") + line))
    elif until is not None:
        if not scene:
            raise CommandFailed(f"{parts.reading}: --until: expected a step up to {found.steps - 1}, got {until}")
        for line in scene:
            print(one_line(line))
    else:
        print(
            f"{found.steps:,} steps in {found.now - found.began:.3f} s: {seen.conns:,} connections, "
            f"{len(seen.rooms):,} rooms, {seen.effects:,} effects"
        )
    return _verdict(found, head)


class _Seen:
    """What a summary counts."""

    def __init__(self) -> None:
        self.conns = self.effects = 0
        self.lowest, self.highest = 1, 0
        self.rooms: set[str] = set()

    def see(self, step: Step) -> None:
        self.effects += len(step.effects)
        if step.name == "Connected" and step.input is not None:
            self.conns += 1
            self.lowest = min(self.lowest, step.input.conn) if self.highest else step.input.conn
            self.highest = max(self.highest, step.input.conn)
        for effect in step.effects:
            if isinstance(effect, Joined):
                self.rooms.add(effect.room)


def _verdict(found: Replay, head: Head) -> int:
    notes: list[str] = []
    if found.cut:
        notes.append("the file ends within a line, as its writer was killed")
    if found.unchecked and not found.difference:
        notes.append(f"the last {found.unchecked} steps have no check")
    for note in notes:
        print(note)
    if found.difference is None:
        print("the same as recorded, bit for bit" + (", in a redacted copy" if head.redacted else ""))
        return OK
    print(one_line(_told(found.difference)))
    print(f"it was recorded by vixws {head.version} on Python {head.python} with zlib {head.zlib}")
    return FAILED


def _told(found: Difference) -> str:
    where = f"step {found.first}" if found.first == found.last else f"one of the steps {found.first} to {found.last}"
    return f"NOT the same: {where} (line {found.line} and before): {found.what}"


# ---- without its beginning ------------------------------------------------------------------------


def _search(parts: _Parts, asked: tuple[int, str, int] | None) -> int:
    """What can be said of a trace that has lost its beginning."""
    first = parts.head.first
    search = None if asked is None else Search(*asked, first)
    steps, cut = 0, False
    begin = end = 0.0
    for found in parts.records():
        if found is None:
            cut = True
        elif isinstance(found, Record):
            begin, end = found.now if not steps else begin, found.now
            steps += 1
            if search is not None:
                search.see(found)
    if search is not None:
        for line in search.answer():
            print(one_line(line))
        return FAILED
    print(f"{steps:,} steps in {end - begin:.3f} s, from step {first:,} on" + (", cut at its end" if cut else ""))
    print(
        f"NOT replayed: the {first:,} steps before are not in the trace any more (a larger traceSize keeps more), and "
        "without them no hub gets to where this one was; --explain looks through what is left"
    )
    return FAILED
