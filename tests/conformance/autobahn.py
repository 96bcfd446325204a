"""Starts Autobahn, within bounds, and reads what it reports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from tests.serving import ROOT, environment

from .cases import Case, Run
from .echo_client import echo_all

__all__ = ["VERSION", "AutobahnMissing", "find_autobahn", "perform"]

VERSION: Final = "25.10.1"

START_S: Final = 30.0
STOP_S: Final = 10.0

LOOPBACK: Final = """
import functools, autobahntestsuite.fuzzing as fuzzing, autobahntestsuite.wstest as wstest
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
wstest.run()
"""
"""`wstest`, whose fuzzing server would listen on all addresses of the machine."""


class AutobahnMissing(Exception):
    """There is no Autobahn to run; one line says what is missing."""


def find_autobahn() -> Path:
    """The interpreter that has Autobahn. Raises: `AutobahnMissing`."""
    python = Path(os.environ.get("AUTOBAHN_PYTHON") or ROOT / ".venv27" / "bin" / "python").absolute()
    expected = f"expected a CPython 2.7 with autobahntestsuite=={VERSION} (docs/conformance.md)"
    ask = "import autobahntestsuite; print(autobahntestsuite.version)"
    try:
        told = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=START_S, env=plain())
    except OSError as exc:
        raise AutobahnMissing(f"Autobahn cannot be run: {python}: {exc.strerror}; {expected}") from exc
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AutobahnMissing(f"Autobahn cannot be run: {python}: {last}; {expected}")
    if told.stdout.strip() != VERSION:
        raise AutobahnMissing(f"Autobahn cannot be run: {python} has version {told.stdout.strip()}; {expected}")
    return python


def perform(run: Run, python: Path, folder: Path, seconds: float) -> list[Case]:
    """Performs one run, with its reports and the output of all programs in `folder`; returns the results by case.

    Raises: `TimeoutError` where it takes more than `seconds`, `RuntimeError` where a program fails.
    """
    shutil.rmtree(folder, ignore_errors=True)  # No report of an earlier run may be taken for this one's.
    folder.mkdir(parents=True)
    try:
        (against_server if run.side == "server" else against_client)(run, python, folder, seconds)
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"Autobahn did not end within {exc.timeout:.0f} s") from exc
    return read_report(folder, run.name)


def against_server(run: Run, python: Path, folder: Path, seconds: float) -> None:
    """Autobahn as the client of our echo server."""
    with echo_server(run.loop, folder) as port:
        spec = {"servers": [{"agent": run.name, "url": f"ws://127.0.0.1:{port}"}]}
        with wstest("fuzzingclient", {**spec, **common(run, folder)}, python, folder) as process:
            code = process.wait(timeout=seconds)
    if code:
        raise RuntimeError(f"Autobahn ended with {code}")


def against_client(run: Run, python: Path, folder: Path, seconds: float) -> None:
    """Autobahn as the server of our echo client."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with wstest("fuzzingserver", {"url": url, **common(run, folder)}, python, folder) as process:
        wait_listening(process, port)
        anyio.run(partial(within, seconds, url, run.name), backend=run.loop)


async def within(seconds: float, url: str, agent: str) -> None:
    """Runs all cases of the client's side. Raises: `TimeoutError`."""
    with anyio.move_on_after(seconds):
        await echo_all(url, agent)
        return
    raise TimeoutError(f"the cases did not end within {seconds:.0f} s")


def common(run: Run, folder: Path) -> dict[str, Any]:
    """What every specification says."""
    reports = str(folder / "reports")
    return {"outdir": reports, "cases": run.patterns, "exclude-cases": [], "exclude-agent-cases": {}}


@contextmanager
def wstest(mode: str, spec: dict[str, Any], python: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Autobahn in one of its modes, ended at the latest with the block."""
    file = folder / "spec.json"
    file.write_text(json.dumps(spec, indent=2), encoding="utf-8")
    command: list[str | Path] = [python, "-u", "-c", LOOPBACK, "-m", mode, "-s", file, "-u", "0"]
    with running(command, plain(), folder / "wstest.txt") as process:
        yield process


@contextmanager
def echo_server(loop: str, folder: Path) -> Iterator[int]:
    """Our echo server in a process of its own; gives its port."""
    command = [sys.executable, "-m", "tests.conformance.echo_server", loop]
    with running(command, environment(), folder / "echo.txt", subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError("the echo server did not start")
        yield int(line)


@contextmanager
def running(
    command: Sequence[str | Path], variables: Mapping[str, str], out: Path, stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output goes to a file, or its stdout to us; ended with the block, killed where it will not."""
    with open(out, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=stdout or file, stderr=file, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def plain() -> dict[str, str]:
    """The environment without what is meant for our own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def free_port() -> int:
    """A loopback port that was free a moment ago: Autobahn cannot say which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_listening(process: subprocess.Popen[str], port: int) -> None:
    """Waits until Autobahn takes connections. Raises: `RuntimeError` where it ends, or never does."""
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("Autobahn did not start")


def read_report(folder: Path, agent: str) -> list[Case]:
    """The results by case, in order. Raises: `RuntimeError` where there are none."""
    reports = folder / "reports"
    try:
        index: dict[str, dict[str, str]] = json.loads((reports / "index.json").read_bytes())[agent]
    except (OSError, ValueError, KeyError) as exc:
        raise RuntimeError(f"Autobahn wrote no report ({exc!r})") from exc
    cases: list[Case] = []
    for case, found in sorted(index.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        why = json.loads((reports / found["reportfile"]).read_bytes())
        cases.append(Case(case, found["behavior"], found["behaviorClose"], f"{why['result']} {why['resultClose']}"))
    return cases
