"""What commands share in speaking to a person: exit codes, colours on a terminal only, tables, log lines."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Final, TextIO, cast

from vixws_core.errors import LocalError, StoreError

__all__ = [
    "FAILED",
    "OK",
    "USAGE",
    "CommandFailed",
    "Lines",
    "Progress",
    "colour",
    "complain",
    "faults_of",
    "is_fault_of_caller",
    "log_to_stderr",
    "one_line",
    "print_table",
]

OK: Final = 0
FAILED: Final = 1
"""Something went wrong while it ran."""
USAGE: Final = 2
"""It could not start: a flag, the configuration, a port, a store."""

_COLOURS: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "grey": 90}
LINE_MAX: Final = 2_000
"""Characters of one line of a log; what is longer is cut."""
TRACE_LINES_MAX: Final = 200
"""Lines of one traceback in a log."""
_LEVELS: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


class CommandFailed(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code: int = code


def one_line(text: object) -> str:
    """A text that neither breaks the line nor moves the cursor."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def complain(command: str, text: object) -> None:
    """Writes one line on stderr."""
    print(colour("red", f"{command}: {one_line(text)}", sys.stderr), file=sys.stderr, flush=True)


def colour(name: str, text: str, stream: TextIO) -> str:
    """The text in a colour where `stream` is a terminal that shows colours; see https://no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], grey_if: str = "") -> None:
    """Writes columns that line up; rows whose last column is `grey_if` step back on a terminal."""
    lines = [list(head), *(list(map(one_line, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        shade = "blue" if number == 0 else "grey" if grey_if and line[-1] == grey_if else ""
        print(colour(shade, text, sys.stdout) if shade else text)


class Progress:
    """One line on a terminal that is written over, ten times a second; nothing anywhere else.

    Shows a bar where `source` is a file, whose size is known.
    """

    def __init__(self, source: BinaryIO, stream: TextIO) -> None:
        found = os.fstat(source.fileno())
        self._bytes = found.st_size if stat.S_ISREG(found.st_mode) else 0
        self._done = 0
        self._stream = stream
        self._active = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._next = 0.0

    def read(self, count: int) -> None:
        """So many bytes more of the source are read."""
        self._done += count

    def show(self, words: str) -> None:
        """Writes the line, unless it was just written."""
        now = time.monotonic()
        if not self._active or now < self._next:
            return
        self._next = now + 0.1
        if self._bytes:
            part = min(1.0, self._done / self._bytes)
            words = f"{'█' * int(part * 30):░<30} {part:4.0%}  {words}"
        self._stream.write(f"\r\x1b[K{words}")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the line away."""
        if self._active:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def faults_of(exc: BaseException) -> list[BaseException]:
    """The exceptions of a group, or the one."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [fault for inner in group.exceptions for fault in faults_of(inner)]
    return [exc]


def is_fault_of_caller(exc: BaseException) -> bool:
    """Whether one line says it all: ours to tell, without a traceback."""
    return isinstance(exc, LocalError | StoreError | CommandFailed)


class Lines(logging.Formatter):
    """One event a line; a traceback is lines of its own on a terminal only, each with a bar before it.

    Whatever a peer or a program wrote is escaped and cut, so that nobody forges a line or moves the cursor.
    """

    def __init__(self, terminal: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter: Callable[[Any], time.struct_time] = time.gmtime
        self._terminal = terminal

    def format(self, record: logging.LogRecord) -> str:
        """Writes one event."""
        when = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z"
        lines = [f"{when} {record.levelname} {record.name}: {_escaped(record.getMessage())}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            if len(trace) > TRACE_LINES_MAX:  # Where it broke stands at the end.
                trace = [f"… {len(trace) - TRACE_LINES_MAX} lines are left out", *trace[-TRACE_LINES_MAX:]]
            lines += [_escaped(line) for line in trace]
        if not self._terminal:
            return "\\n".join(lines)
        text = "\n  | ".join(lines)
        shade = _LEVELS.get(record.levelname)
        return colour(shade, text, sys.stderr) if shade else text


def _escaped(text: str) -> str:
    """A text without characters that act on a terminal, at most so long."""
    text = text if len(text) <= LINE_MAX else f"{text[:LINE_MAX]}…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def log_to_stderr() -> None:
    """Sends all logs to stderr, from INFO upwards."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(sys.stderr.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
