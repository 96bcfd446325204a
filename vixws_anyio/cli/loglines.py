"""The lines of a command's log on stderr: text for people, JSON for programs, one event a line in both."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from ..logs import conceal, log
from .terminal import colour, write_out

__all__ = ["LINE_MAX", "TRACE_LINES_MAX", "JsonLines", "Lines", "ToStderr", "log_to_stderr", "logging_to_stderr"]

LINE_MAX: Final = 2_000
"""Characters of one line of a log; what is longer is cut."""
TRACE_LINES_MAX: Final = 200
"""Lines of one traceback in a log."""
_COLOUR_OF: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The words of `--log-level`."""

TALKATIVE: Final = ("aiosqlite", "asyncio")
"""Libraries whose debug lines hold what is stored, or say nothing of us: they have none."""


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
        lines = [f"{self.when(record)} {record.levelname} {_escaped(record.name)}: {message_of(record)}"]
        lines += self.trace(record)
        if not self._terminal:
            return "\\n".join(lines)
        text = "\n  | ".join(lines)
        shade = _COLOUR_OF.get(record.levelname)
        return colour(shade, text, sys.stderr) if shade else text

    def when(self, record: logging.LogRecord) -> str:
        """The time of an event (RFC 3339), UTC, in milliseconds."""
        return f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z"

    def trace(self, record: logging.LogRecord) -> list[str]:
        """The lines of an event's traceback; where it broke stands at the end."""
        if not record.exc_info:
            return []
        try:
            trace = self.formatException(record.exc_info).splitlines()
        except Exception as exc:  # An exception of an application may do what it likes, also here.
            trace = [f"the traceback cannot be written: {type(exc).__name__}"]
        if len(trace) > TRACE_LINES_MAX:
            trace = [f"… {len(trace) - TRACE_LINES_MAX} lines are left out", *trace[-TRACE_LINES_MAX:]]
        return [_escaped(line) for line in trace]


class JsonLines(Lines):
    """One JSON object a line: `time level logger message`, and `traceback` where there is one; ASCII only."""

    def __init__(self) -> None:
        super().__init__(False)

    def format(self, record: logging.LogRecord) -> str:
        """Writes one event."""
        event = {
            "time": self.when(record),
            "level": record.levelname.lower(),
            "logger": _escaped(record.name),
            "message": message_of(record),
        }
        if trace := self.trace(record):
            event["traceback"] = "\n".join(trace)
        return json.dumps(event)


def message_of(record: logging.LogRecord) -> str:
    """What an event says, for one line."""
    try:
        return _escaped(record.getMessage())
    except Exception as exc:  # Whoever logged it gave what does not fit together.
        return _escaped(f"{type(exc).__name__} in writing a line of the log: {str(record.msg)[:LINE_MAX]}")


def _escaped(text: str) -> str:
    """A text without secrets and characters that act on a terminal, at most so long."""
    text = conceal(text if len(text) <= LINE_MAX else f"{text[:LINE_MAX]}…")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


class ToStderr(logging.Handler):
    """Writes lines to stderr. Where that is full or closed they are lost; the next that is written says how many."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0
        self._torn = False
        """Whether the last line is there in part, and not ended."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one event."""
        stream = sys.stderr
        text = "\n" if self._torn else ""
        if self._lost:
            told = {"name": log.name, "levelno": logging.WARNING, "levelname": "WARNING"}
            told["msg"] = f"{self._lost} lines of the log could not be written"
            text += self.format(logging.makeLogRecord(told)) + "\n"
        text += self.format(record) + "\n"
        left = write_out(stream, text)
        if left:
            self._lost += 1
            self._torn = self._torn or left < len(text)
        else:
            self._lost, self._torn = 0, False


def log_to_stderr(form: str = "text", level: str = "info") -> None:
    """Sends all logs to stderr, `text` or `json`, from `level` upwards; called again, it only changes these."""
    found = [handler for handler in logging.root.handlers if isinstance(handler, ToStderr)]
    handler = found[0] if found else ToStderr()
    handler.setFormatter(JsonLines() if form == "json" else Lines(sys.stderr.isatty()))
    if not found:
        logging.root.addHandler(handler)
    logging.root.setLevel(LEVELS[level])
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.INFO))


@contextmanager
def logging_to_stderr(form: str, level: str) -> Generator[None]:
    """Sends all logs to stderr; inside the block also warnings, and what fails in threads of the application."""
    log_to_stderr(form, level)
    logging.captureWarnings(True)
    before, threading.excepthook = threading.excepthook, _thread_failed
    try:
        yield
    finally:
        threading.excepthook = before
        logging.captureWarnings(False)


def _thread_failed(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        name = "" if arguments.thread is None else arguments.thread.name
        log.error("thread %s failed: %s", name, arguments.exc_type.__name__, exc_info=arguments.exc_value)
