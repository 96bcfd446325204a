"""Starting the shipped server as a user would, for tests that look at it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_S = 30.0


@dataclass
class Served:
    """A running server: its process, and the fields of its ready line."""

    process: subprocess.Popen[str]
    fields: dict[str, str]

    @property
    def ws(self) -> str:
        return self.fields["ws"]

    @property
    def http(self) -> str:
        return self.fields["http"]

    def stop(self, sign: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(timeout=seconds)


def environment() -> dict[str, str]:
    """The environment without settings of vixws, with the checkout importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIXWS_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


@contextmanager
def serving(
    folder: Path,
    *flags: str,
    command: Sequence[str] = ("-m", "vixws_anyio", "serve"),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """`vixws serve` on a free port in `folder`, from its ready line to its end; killed where it does not end."""
    with open(folder / "stderr.txt", "a+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", "0", "--metrics", "off", *flags],
            cwd=folder,
            env={**environment(), **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            stderr.seek(0)
            assert line.startswith("vixws ready "), f"not ready: {line!r}\n{stderr.read()}"
            yield Served(process, dict(item.split("=", 1) for item in line.split()[2:]))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
