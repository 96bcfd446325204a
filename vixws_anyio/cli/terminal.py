"""What commands share in speaking to a person: exit codes, colours on a terminal only, tables, log lines."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final, TextIO, cast

from vixws_core.errors import LocalError, StoreError

__all__ = [
    "FAILED",
    "OK",
    "USAGE",
    "CommandFailed",
    "Progress",
    "colour",
    "complain",
    "faults_of",
    "is_fault_of_caller",
    "one_line",
    "open_standard_streams",
    "print_table",
    "write_out",
]

OK: Final = 0
FAILED: Final = 1
"""Something went wrong while it ran."""
USAGE: Final = 2
"""It could not start: a flag, the configuration, a port, a store."""

_COLOURS: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "grey": 90}


class CommandFailed(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code: int = code


def one_line(text: object) -> str:
    """A text that neither breaks the line nor moves the cursor."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def complain(command: str, text: object) -> None:
    """Writes one line on stderr, where anybody can be told there."""
    write_out(sys.stderr, colour("red", f"{command}: {one_line(text)}", sys.stderr) + "\n")


def write_out(stream: TextIO, text: str) -> int:
    """Writes at once; returns the characters that could not be written, 0 for none. Does not raise.

    Nothing stays in a buffer, which would fail once more when the process ends, and be its exit code.
    """
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # No file is behind it.
        number = -1
    try:
        if number < 0:
            stream.write(text)
        stream.flush()
        data = b"" if number < 0 else text.encode(stream.encoding or "utf-8", "backslashreplace")
    except (OSError, ValueError):
        return len(text)
    while data:
        try:
            data = data[os.write(number, data) :]
        except OSError:
            return len(data)
    return 0


def open_standard_streams() -> None:
    """Puts the null device where stdin, stdout or stderr are closed, or the next file would take their place."""
    if sys.stdin is not None and sys.stdout is not None and sys.stderr is not None:
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - stays open until the end
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above


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
