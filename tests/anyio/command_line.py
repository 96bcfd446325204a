"""What the tests of the command line share: a server's process, and what it says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

COMMAND = [sys.executable, "-W", "error", "-m", "vixws_anyio"]
LOOPS = {"asyncio": (), "uvloop": ("--uvloop",), "trio": ("--backend", "trio")}
READY = re.compile(
    r"vixws ready ws=(?P<ws>wss?://127\.0\.0\.1:(?P<port>\d+)/) http=(?P<http>https?://127\.0\.0\.1:\d+/) "
    r"metrics=(?P<metrics>\S+) store=(?P<store>\S+) pid=(?P<pid>\d+)(?: all=(?P<all>\S+))?\n"
)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+: .*")
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that said it is ready, and what it said."""

    process: subprocess.Popen[str]
    ready: Mapping[str, str]

    def next_log(self, word: str) -> str:
        """The next line on stderr that has the word in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if word in line:
                return line
        raise AssertionError(f"the log ended without {word!r}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str]]:
        """The exit code after a signal, and the rest of the log, each line of which is one event."""
        assert self.process.stderr is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        lines = self.process.stderr.read().splitlines()
        assert [line for line in lines if not LOG_LINE.fullmatch(line)] == []
        return code, lines


@contextlib.contextmanager
def serving(
    folder: Path, *flags: str, environ: Mapping[str, str] | None = None, stderr: IO[str] | None = None
) -> Generator[Served]:
    """`vixws serve` on free ports, in `folder`, until the end of the block at the latest; its log in `stderr`."""
    command = [*COMMAND, "serve", "--port", "0", *flags]
    if "--metrics" not in flags:
        command += ["--metrics", "off"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | dict(environ or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if stderr is None else stderr,
        text=True,
    )
    assert process.stdout is not None
    log = process.stderr
    try:
        line = process.stdout.readline()
        found = READY.fullmatch(line)
        if found is None:
            process.kill()
            raise AssertionError(f"expected the ready line, got {line!r} and {log and log.read()!r}")
        yield Served(process, found.groupdict())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if log is not None:
            log.close()


def last_words(folder: Path, *flags: str) -> str:
    """What `vixws serve` says at the end that cannot start, whatever it logged before; status 2."""
    done = subprocess.run(
        [*COMMAND, "serve", *flags], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.splitlines()[-1]


def refused(folder: Path, *flags: str) -> str:
    """What `vixws serve` says that cannot start: one line, status 2."""
    done = subprocess.run(
        [*COMMAND, "serve", *flags], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vixws serve: ")
    assert done.stderr.count("\n") == 1
    return done.stderr[len("vixws serve: ") : -1]
