"""Log lines: one event a line, and nothing that a peer or a program wrote acts on a terminal or forges a line."""

from __future__ import annotations

import logging
import sys

import pytest

from vixws_anyio.cli.terminal import LINE_MAX, TRACE_LINES_MAX, Lines

FORGED = "2030-01-01T00:00:00.000Z INFO vixws: all is well"
NASTY = f"\x1b[2J\x1b[31m \u202eevil\r\n{FORGED}\x85{FORGED}\u2028{FORGED}"


def written(message: str, *, terminal: bool, exc: BaseException | None = None) -> str:
    """One event, as it is written."""
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("vixws", logging.INFO, "", 0, "%s", (message,), info)
    return Lines(terminal).format(record)


def raised(text: str) -> BaseException:
    """An exception that was really raised."""
    try:
        raise ValueError(text)
    except ValueError:
        caught = sys.exception()
    assert caught is not None
    return caught


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.threat(20)
def test_row_20_a_message_stays_on_its_line(terminal: bool) -> None:
    text = written(NASTY, terminal=terminal)

    assert text.isprintable()
    assert "\\x1b[2J" in text


@pytest.mark.threat(20)
def test_row_20_a_traceback_forges_no_line_on_a_terminal() -> None:
    lines = written("it failed", terminal=True, exc=raised(NASTY)).split("\n")

    assert lines[0].endswith("INFO vixws: it failed")
    assert len(lines) > 3
    assert [line for line in lines[1:] if not line.startswith("  | ") or not line.isprintable()] == []


@pytest.mark.threat(20)
def test_row_20_a_traceback_is_one_line_elsewhere() -> None:
    text = written("it failed", terminal=False, exc=raised(NASTY))

    assert text.isprintable()
    assert "\\nTraceback (most recent call last):\\n" in text


@pytest.mark.threat(20)
def test_row_20_long_messages_and_tracebacks_are_cut() -> None:
    text = written("x" * 1_000_000, terminal=True, exc=raised("y\n" * 100_000 + "z" * 1_000_000))

    assert len(text) < (TRACE_LINES_MAX + 3) * 40 + 3 * LINE_MAX
    assert "lines are left out" in text
