"""Serves one application on a loop, and lets the loop go round only when a client says so.

`python -m benchmarks.counted.server LOAD BACKEND`, in the tree that is counted: it says its port on stdout, and then
reads stdin, inside the loop. For each byte `g` the loop goes round once, and a line is written when it has; for `f`
garbage is collected, and what is left is kept out of later collections; anything else ends the process at once.
While the loop stands the client sends and takes what it likes, so the server finds whole turns, never parts of one.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from functools import partial
from pathlib import Path

import anyio

import vixws_anyio
from benchmarks.counted.loads import LOADS
from vixws_anyio import Listening, Server


async def _go(server: Server) -> None:
    listening: list[Listening] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(server.serve, ready=listening.append))
        while not listening:
            await anyio.sleep(0)
        os.write(1, b"%d\n" % listening[0].port)
        while (told := os.read(0, 1)) in (b"g", b"f"):
            if told == b"f":
                gc.collect()
                gc.freeze()
            else:
                await anyio.sleep(0)
            os.write(1, b".\n")
        os._exit(0)  # What is left is not taken apart: that would be counted too.


def main() -> None:
    """Serve until told to end."""
    load, backend = LOADS[sys.argv[1]], sys.argv[2]
    if Path(vixws_anyio.__file__).parent.parent != Path.cwd():
        raise SystemExit(f"vixws_anyio comes from {vixws_anyio.__file__}, expected it in {Path.cwd()}")
    # Under valgrind every read takes as long as one that makes much work, of which only a few are read in a turn.
    transport = sys.modules.get("vixws_anyio.transport.socket")
    if transport is not None:
        vars(transport)["MUCH_S"] = float("inf")
    server = Server()
    if load.application != "publish":
        server = importlib.import_module(f"benchmarks.apps.{load.application}").server
    server.config = server.config.replace(port=0, ping_interval_s=0.0, handshake_timeout_s=300.0)
    anyio.run(_go, server, backend=backend)


if __name__ == "__main__":
    main()
