"""The harness itself: what it lets pass, what it refuses, and that a missing Autobahn is told in one line."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import anyio
import pytest

from tests.conformance.__main__ import main
from tests.conformance.autobahn import VERSION, echo_server, perform, read_report
from tests.conformance.cases import BUDGET_S, GROUPS, RUNS, Case, Run, faults, runs_of
from tests.serving import ROOT
from vixws_anyio import Client

SMALL = Run("server", "asyncio", ("fragments",))
GOOD = Case("10.1.1", "OK", "OK")


def stand_in(folder: Path, text: str) -> str:
    """A program that is asked in place of an interpreter."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


# ---- the table ------------------------------------------------------------------------------------------


def test_every_run_has_known_groups_and_a_bound() -> None:
    assert set(RUNS) == set(BUDGET_S)
    assert {name for runs in RUNS.values() for run in runs for name in run.groups} == set(GROUPS)
    for group in GROUPS.values():
        assert sum(group.behavior.values()) == sum(group.close.values()), "every case has both words"


def test_all_runs_both_sides_on_both_loops_with_every_group() -> None:
    assert {(run.side, run.loop) for run in RUNS["all"]} == {
        (side, loop) for side in ("server", "client") for loop in ("asyncio", "trio")
    }
    assert {run.groups for run in RUNS["all"]} == {tuple(GROUPS)}
    assert [run.behavior.total() for run in RUNS["ci"]] == [301, 246, 301]


def test_runs_are_chosen_by_side_loop_and_group() -> None:
    assert runs_of("all", "client", "trio", "limits") == (Run("client", "trio", ("limits",)),)
    assert runs_of("ci", loop="trio", group="limits") == ()
    assert runs_of("ci") == RUNS["ci"]


# ---- the gate -------------------------------------------------------------------------------------------


def test_exactly_what_is_expected_passes() -> None:
    assert faults(SMALL, [GOOD]) == []


@pytest.mark.parametrize("word", ["NON-STRICT", "FAILED", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"])
def test_other_words_are_refused_for_either_half(word: str) -> None:
    assert faults(SMALL, [GOOD._replace(behavior=word, why="so")]) == [
        f"case 10.1.1: {word}, close OK: so",
        f"behavior: expected 1 OK, got 1 {word}",
    ]
    assert faults(SMALL, [GOOD._replace(close=word, why="so")]) == [
        f"case 10.1.1: OK, close {word}: so",
        f"behaviorClose: expected 1 OK, got 1 {word}",
    ]


@pytest.mark.parametrize(
    ("cases", "got"), [([], "nothing"), ([GOOD, GOOD], "2 OK"), ([GOOD._replace(behavior="INFORMATIONAL")], "")]
)
def test_other_counts_are_refused(cases: list[Case], got: str) -> None:
    assert f"expected 1 OK, got {got}" in " ".join(faults(SMALL, cases))


# ---- reports --------------------------------------------------------------------------------------------


def test_a_report_is_read_in_the_order_of_its_cases(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    index = {}
    for case, word in (("10.1.1", "OK"), ("2.10", "NON-STRICT"), ("2.9", "OK")):
        index[case] = {"behavior": word, "behaviorClose": "OK", "reportfile": f"{case}.json"}
        told = json.dumps({"result": "It differs.", "resultClose": "It closed."})
        (tmp_path / "reports" / f"{case}.json").write_text(told, encoding="utf-8")
    (tmp_path / "reports" / "index.json").write_text(json.dumps({"server-trio": index}), encoding="utf-8")
    cases = read_report(tmp_path, "server-trio")

    assert [case.id for case in cases] == ["2.9", "2.10", "10.1.1"]
    assert cases[1] == Case("2.10", "NON-STRICT", "OK", "It differs. It closed.")
    with pytest.raises(RuntimeError, match="wrote no report"):
        read_report(tmp_path, "client-trio")


# ---- Autobahn is missing, or fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 0.8.2", "has version 0.8.2"),
        ("echo Traceback >&2; echo 'ImportError: No module named autobahntestsuite' >&2; exit 1", "No module named"),
        ("exit 1", "it said nothing"),
        (None, "No such file"),
    ],
)
def test_a_missing_autobahn_fails_in_one_line(
    text: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOBAHN_PYTHON", str(tmp_path / "none") if text is None else stand_in(tmp_path, text))

    assert main(["ci"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert why in err
    assert f"expected a CPython 2.7 with autobahntestsuite=={VERSION}" in err


def test_an_autobahn_that_fails_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f'[ "$2" != -c ] && echo {VERSION} && exit; echo "it broke"; exit 3'
    monkeypatch.setenv("AUTOBAHN_PYTHON", stand_in(tmp_path, script))

    assert main(["ci", "--loop", "trio"]) == 1
    assert main(["ci", "--side", "client"]) == 1
    out = capsys.readouterr().out
    assert "server-trio: FAILED: Autobahn ended with 3" in out
    assert "client-asyncio: FAILED: Autobahn did not start" in out
    assert out.count("wstest.txt: it broke") == 2


def test_an_autobahn_that_does_not_end_is_ended(tmp_path: Path) -> None:
    python = stand_in(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    with pytest.raises(TimeoutError, match="did not end within 1 s"):
        perform(SMALL, Path(python), tmp_path / "run", 1.0)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_version_is_pinned_once() -> None:
    pins = (ROOT / "tests" / "conformance" / "autobahn.txt").read_text(encoding="utf-8")

    assert f"\nautobahntestsuite=={VERSION}\n" in pins
    assert Counter(line for line in pins.splitlines()[1:] if not re.fullmatch(r"[\w.-]+==[\w.]+", line)) == {}


# ---- the echo server ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_echo_server_echoes_on_loopback(anyio_backend_name: str, tmp_path: Path) -> None:
    heard: list[str | bytes] = []
    both = anyio.Event()
    with echo_server(anyio_backend_name, tmp_path) as port:
        client = Client(f"ws://127.0.0.1:{port}", hello=False)

        @client.on_message
        def hear(client: Client, message: str | bytes) -> None:
            heard.append(message)
            if len(heard) == 2:
                both.set()

        with anyio.fail_after(10):
            async with client:
                await client.send_text("täxt")
                await client.send_binary(b"\x00\xff")
                await both.wait()

    assert heard == ["täxt", b"\x00\xff"]
