"""Who is measured, and how each server is started and stopped: as a subprocess with a ready line."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["PEERS", "Contestant", "Peer", "Running", "ServerError", "Vixws", "installed", "root", "version"]

root = Path(__file__).parent.parent
"""The folder that holds `benchmarks`; servers start in it."""

_READY = re.compile(
    r"^\S+ ready ws=ws://127\.0\.0\.1:(?P<port>\d+)/(?:.* metrics=(?:off|(?P<metrics>\S+)))?.* pid=(?P<pid>\d+)$"
)
_START_S = 20.0
_STOP_S = 15.0
_LINE_BYTES_MAX = 65_536
_TAIL_BYTES = 2_000

PEERS = ("websockets", "picows", "trio-websocket")
"""Libraries with the same applications under `benchmarks/peers`, by the name of their distribution."""


class ServerError(Exception):
    """A server did not start, or did not stop as it should; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens on 127.0.0.1."""

    port: int
    pid: int
    metrics: str = ""
    """Where metrics are scraped; empty where they are not served."""


class Contestant(Protocol):
    """Who is measured; hashable, and equal only to itself or its like."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    def started(self, application: str, store: Path | None, fill: int) -> AbstractContextManager[Running]:
        """Its server from ready line to end. `store` is the file of a durable application, into whose room `r0` a
        server that is not filled over the wire puts `fill` messages. Raises as `serving` does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Vixws:
    """The shipped server on one loop, started by the command that the README gives."""

    backend: str
    uvloop: bool = False
    metrics: bool = False
    """Whether it counts, and serves what it counted on a port of its own."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"vixws {self.backend}{'+uvloop' if self.uvloop else ''}{' with metrics' if self.metrics else ''}"

    def command(self, application: str, store: Path | None, fill: int) -> list[str]:
        """The command line; the room is filled over the wire, so `fill` is not for this command."""
        del fill
        return [sys.executable, "-m", "vixws_anyio", *self.arguments(application, store)]

    def arguments(self, application: str, store: Path | None) -> list[str]:
        """What follows `vixws`. `publish` is the server's own publish rule and needs no application."""
        found = ["serve", "--port", "0", "--metrics", "127.0.0.1:0" if self.metrics else "off"]
        found += ["--backend", self.backend, "--store", f"sqlite:///{store}" if store else "memory://"]
        if application != "publish":
            found += ["--app", f"benchmarks.apps.{application}:server"]
        if self.uvloop:
            found += ["--uvloop"]
        return found

    def started(self, application: str, store: Path | None, fill: int) -> AbstractContextManager[Running]:
        """Its server from ready line to end."""
        return serving(self.command(application, store, fill))


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library's server; `uvloop` is ignored by those that run on trio."""

    library: str
    uvloop: bool = False

    @property
    def name(self) -> str:
        """What the tables call it."""
        return self.library

    def command(self, application: str, store: Path | None, fill: int) -> list[str]:
        """The command line."""
        module = f"benchmarks.peers.with_{self.library.replace('-', '_')}"
        command = [sys.executable, "-m", module, application]
        if store:
            command += ["--store", str(store)]
        if fill:
            command += ["--fill", str(fill)]
        if self.uvloop and self.library != "trio-websocket":
            command += ["--uvloop"]
        return command

    def started(self, application: str, store: Path | None, fill: int) -> AbstractContextManager[Running]:
        """Its server from ready line to end."""
        return serving(self.command(application, store, fill))


def installed(library: str) -> bool:
    """Whether a peer's library can be imported."""
    return importlib.util.find_spec(library.replace("-", "_")) is not None


def version(library: str) -> str:
    """The version of an installed distribution, or `?`."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "?"


@contextlib.contextmanager
def serving(command: list[str], tree: Path = root) -> Generator[Running, None, None]:
    """Run a server command in the folder `tree` until its ready line, and end that process on the way out.

    Raises: ServerError where no ready line comes within 20 s, or the server does not end with status 0 within
    15 s of SIGTERM. Any exception, the body's own included, gets the end of the server's stderr as a note.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield _wait_ready(process, command)
            _stop(process, command)
        except Exception as error:
            errors.seek(0)
            if tail := errors.read()[-_TAIL_BYTES:].decode(errors="replace").strip():
                error.add_note(tail)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _stop(process: subprocess.Popen[bytes], command: list[str]) -> None:
    process.terminate()
    try:
        status = process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        raise ServerError(f"{_said(command)}: still running {_STOP_S:g} s after SIGTERM") from None
    if status != 0:
        raise ServerError(f"{_said(command)}: status {status} after SIGTERM, expected 0")


def _wait_ready(process: subprocess.Popen[bytes], command: list[str]) -> Running:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    end = time.monotonic() + _START_S
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while b"\n" not in line and len(line) < _LINE_BYTES_MAX:
            if not selector.select(max(0.0, end - time.monotonic())):
                raise ServerError(f"{_said(command)}: not ready within {_START_S:g} s")
            more = os.read(descriptor, 4096)
            if not more:
                raise ServerError(f"{_said(command)}: ended with status {process.wait(_STOP_S)} before it was ready")
            line += more
    text = line.split(b"\n")[0].decode(errors="replace")
    match = _READY.match(text)
    if match is None:
        raise ServerError(
            f"{_said(command)}: first line {text!r}, expected 'NAME ready ws=ws://127.0.0.1:PORT/ … pid=PID'"
        )
    return Running(int(match["port"]), int(match["pid"]), match["metrics"] or "")


def _said(command: list[str]) -> str:
    return " ".join(["python", *command[1:]])
