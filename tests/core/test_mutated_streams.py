"""Whatever bytes a client sends, a hub raises nothing, keeps nothing of who is gone, and answers however they are cut.

The streams of a run follow from the commit, and the two interpreters of `.ci/run` take halves; all of them, and twenty
times as many, are played by `.ci/campaign streams`. One that failed is kept in `streams.txt`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from random import Random

import pytest

from tests.seeds import base_seed
from tests.serving import ROOT

from .cutting import Around, cut_by_chance, cut_in_bytes, cut_whole
from .mutating import SETTINGS, Stream, make_stream
from .play_streams import CORPUS, format_stream, judge, parse_stream

STREAMS = 25_000
SEQUENCES = 31_500

LINES = dict(line.split(" ", 1) for line in CORPUS.read_text().splitlines())


def last_line(module: str, count: int) -> str:
    """What a command that plays so many says in the end; a failure of it is one of the test."""
    first = count if sys.version_info >= (3, 13) else 0
    command = (sys.executable, "-m", module, base_seed(), str(count), str(first))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout[:20_000]
    return done.stdout.splitlines()[-1]


@pytest.mark.timeout(600)
def test_mutated_streams_are_answered_the_same_however_they_are_cut() -> None:
    line = last_line("tests.core.play_streams", STREAMS)

    assert line.startswith(f"{STREAMS} streams of ") and line.endswith(" 0 failed")


@pytest.mark.timeout(600)
def test_odd_commands_are_refused_or_do_no_harm() -> None:
    line = last_line("tests.core.odd_commands", SEQUENCES)

    assert line.startswith(f"{SEQUENCES} sequences of ") and line.endswith(" 0 failed")
    assert int(line.split(" commands, ")[1].split()[0]) > SEQUENCES // 4


@pytest.mark.parametrize("name", LINES)
def test_streams_that_are_kept(name: str) -> None:
    assert judge(parse_stream(LINES[name]), name) == ""


# ---- the tools --------------------------------------------------------------------------------------


def test_a_stream_is_a_line_and_back() -> None:
    for number in range(200):
        stream = make_stream("lines", number)
        assert parse_stream(format_stream(stream)) == stream


def test_streams_follow_from_their_seed_and_are_of_every_setting() -> None:
    streams = [make_stream("same", number) for number in range(200)]

    assert streams == [make_stream("same", number) for number in range(200)]
    assert streams != [make_stream("other", number) for number in range(200)]
    assert {stream.setting for stream in streams} == {*SETTINGS}
    assert any(stream.request for stream in streams) and any(stream.stops for stream in streams)


@pytest.mark.parametrize("cut", [cut_whole, cut_in_bytes, lambda data: cut_by_chance(Random(1), data)])
def test_cuts_lose_nothing(cut: Callable[[bytes], Iterable[bytes]]) -> None:
    data = bytes(range(256))

    assert b"".join(cut(data)) == data


@pytest.mark.parametrize("setting", SETTINGS)
def test_streams_as_they_were_meant_get_far(setting: str) -> None:
    around, heard = Around(setting), b""
    for number in range(1_500):
        stream = make_stream("meant", number)
        if stream.setting == setting:
            heard += around.play(Stream(setting, stream.data, stream.stops), cut_whole).out

    types = ["$welcome", "$joined", "$live", "$ack", "$page", "$position", "$left", "$pong", "$err"]
    if setting in ("proved", "granted"):
        types.append("$authed")
    assert [type for type in types if f'"{type}"'.encode() not in heard] == []
