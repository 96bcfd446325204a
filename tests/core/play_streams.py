"""Plays many mutated streams: `python -m tests.core.play_streams BASE COUNT [FIRST]`; status 1 where one failed.

The streams are `BASE/FIRST` and those after it. One line is printed per failure, with the smallest stream that
fails in the same way as a line for `streams.txt`, and one at the end. On a terminal a line shows how far it is.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from .cutting import CUTS, Around, compare, smallest
from .mutating import SETTINGS, Stream, make_stream

__all__ = ["CORPUS", "format_stream", "main", "parse_stream", "play"]

CORPUS = Path(__file__).with_name("streams.txt")
"""Streams that failed once, or that are worth keeping: a name, and what `format_stream` writes."""

SHOWN_MAX = 20
"""Failures that are shown; the others are only counted."""

PART = 300
"""Streams that share hubs; a part is one process's."""


def format_stream(stream: Stream) -> str:
    """A stream as one line: setting, stops, request (- for the usual one) and bytes."""
    stops = ",".join(f"{at}:{seconds:g}" for at, seconds in stream.stops)
    return f"{stream.setting} {stops or '-'} {stream.request.hex() or '-'} {stream.data.hex() or '-'}"


def parse_stream(line: str) -> Stream:
    """The stream that such a line stands for."""
    setting, stops, request, data = ("" if word == "-" else word for word in line.split())
    pairs = (stop.split(":") for stop in stops.split(",")) if stops else ()
    return Stream(setting, bytes.fromhex(data), tuple((int(at), float(s)) for at, s in pairs), bytes.fromhex(request))


def judge(stream: Stream, seed: str, arounds: Sequence[Around] | None = None) -> str:
    """What is wrong with the answers to one stream, or ""."""
    try:
        return compare(stream, seed, arounds)
    except Exception as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return f"{type(exc).__name__} in {where.name}: {exc}"


def play(base: str, numbers: Iterable[int]) -> Iterable[tuple[int, Stream, str]]:
    """Plays the streams of these numbers; yields each with what is wrong, or ""."""
    arounds: dict[str, list[Around]] = {}
    for number in numbers:
        stream = make_stream(base, number)
        each = arounds.get(stream.setting) or [Around(stream.setting) for _ in CUTS]
        arounds[stream.setting] = each
        wrong = judge(stream, f"{base}/{number}", each)
        if wrong:
            del arounds[stream.setting]
        yield number, stream, wrong


class Played(NamedTuple):
    """What came of a run of streams."""

    size: int = 0
    failures: int = 0
    lines: tuple[str, ...] = ()

    def plus(self, more: Played) -> Played:
        """Both together; failures over a number are only counted."""
        return Played(self.size + more.size, self.failures + more.failures, (*self.lines, *more.lines)[: 2 * SHOWN_MAX])


def run(base: str, numbers: range) -> Played:
    """Plays streams; of the first that fail the smallest that does so in the same way is looked for."""
    found = Played()
    for number, stream, wrong in play(base, numbers):
        lines: tuple[str, ...] = ()
        if wrong and found.failures < SHOWN_MAX:
            lines = (f"stream {base}/{number}: {wrong}", format_stream(_least(stream, f"{base}/{number}", wrong)))
        found = found.plus(Played(len(stream.data), 1 if wrong else 0, lines))
    return found


def _least(stream: Stream, seed: str, wrong: str) -> Stream:
    kind = wrong.partition(":")[0]

    def fails(less: Stream) -> bool:
        return judge(less, seed).startswith(kind)

    return smallest(stream, fails) if fails(stream) else stream


def main(arguments: Sequence[str]) -> int:
    """Plays the streams in as many processes as there are cores; returns the exit status."""
    if not 2 <= len(arguments) <= 3 or not all(word.isdigit() for word in arguments[1:]):
        print("usage: python -m tests.core.play_streams BASE COUNT [FIRST]", file=sys.stderr)
        return 2
    base, count, first = arguments[0], int(arguments[1]), int((*arguments, "0")[2])
    parts = [range(at, min(at + PART, first + count)) for at in range(first, first + count, PART)]
    found, done, began = Played(), 0, monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for part, played in zip(parts, pool.map(run, [base] * len(parts), parts), strict=True):
            found, done = found.plus(played), done + len(part)
            if sys.stderr.isatty():
                rate = done / (monotonic() - began)
                shown = f"{done} of {count} streams, {rate:.0f} a second, {found.failures} failed"
                print(f"\r{shown} ", end="" if done < count else "\n", file=sys.stderr, flush=True)
    for line in found.lines:
        print(line)
    told = f"{count} streams of {found.size} bytes in {len(CUTS)} cuts and {len(SETTINGS)} settings"
    print(f"{told}, {found.failures} failed")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
