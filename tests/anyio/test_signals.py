"""What signals do to a program that serves by `listen_blocking`; tests of the command line cover `vixws serve`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .rig import PATIENCE_S

LOOPS = {
    "asyncio": "'asyncio'",
    "uvloop": "'asyncio', uvloop=True",
    "trio": "'trio'",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_that_serves(loop: str, number: signal.Signals, tmp_path: Path) -> None:
    program = f"from vixws_anyio import Server; Server(port=0).listen_blocking({LOOPS[loop]}); print('over')"
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        listening = process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)

    assert listening.startswith("vixws: listening on ws://127.0.0.1:")
    assert (process.returncode, out, err) == (0, "over\n", "")


def test_a_port_in_use_is_told_as_it_is(tmp_path: Path) -> None:
    program = (
        "from vixws_anyio import Server; from vixws_core.errors import LocalError; import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as taken:\n"
        "    try:\n"
        "        Server(port=taken.getsockname()[1]).listen_blocking()\n"
        "    except LocalError as exc:\n"
        "        print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )

    assert done.stdout.startswith("cannot listen on 127.0.0.1:")
    assert done.stderr == ""
