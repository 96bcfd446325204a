"""Ten clients that know nothing of vixws, against the server as it is shipped: nine here, and `test_page`.

Each echoes texts, joins a room, publishes into it, and reads on from its position after others published. What is not
installed is skipped here; in CI a skip is a failure. `npm install --no-package-lock` in this folder brings two of them.
"""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path

import pytest

from tests.docs.test_blocks import node_command
from tests.serving import Served

from .clients import CLIENTS
from .story import story

HERE = Path(__file__).parent
NODE = {"ws": "ws.mjs", "undici": "undici.mjs", "node": "own.mjs"}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_in_python(name: str, served: Served) -> None:
    module, told_with = CLIENTS[name]
    pytest.importorskip(module)

    told = story(name)
    told_with(told, served.ws)

    assert inspect.getgeneratorstate(told) == inspect.GEN_CLOSED, "it was told to its end"


@pytest.mark.parametrize("name", NODE)
def test_a_client_in_node(name: str, served: Served) -> None:
    command = node_command()
    if name != "node" and not (HERE / "node_modules" / name).exists():
        pytest.skip(f"npm's {name} is not installed")

    done = subprocess.run(
        (*command, str(HERE / NODE[name]), served.ws, name), capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")
