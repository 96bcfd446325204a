"""A server inside a program that is not run by anyio: `asyncio.run`, `uvloop.run`, `trio.run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, ssl, sys
import trustme
from vixws_anyio import AuthRequest, Config, Grant, Server, Session, User
from vixws_metrics import WebSocketMetrics
from websockets.sync.client import connect
import threading

secure = sys.argv[2] == "tls"
authority = trustme.CA()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(context)
trusted = ssl.create_default_context()
authority.configure_trust(trusted)
server = Server(
    Config(port=0, metrics_listen="127.0.0.1:0"), tls=context if secure else None, metrics=WebSocketMetrics()
)

@server.authenticate
async def who(request: AuthRequest) -> User:
    return User("ada")

@server.authorize(thread=True)
def may(user: User, action: str, room: str) -> Grant:
    return Grant()

@server.on("async")
async def waits(session: Session, payload: dict[str, object]) -> dict[str, int]:
    return {"a": 1}

@server.on("thread", thread=True)
def blocks(session: Session, payload: dict[str, object]) -> dict[str, int]:
    return {"b": 2}

@server.on_publish("guarded")
async def guard(session: Session, payload: dict[str, object]) -> None:
    return None

answers = []

def talk(port: int, metrics: str) -> None:
    from urllib.request import urlopen
    url = f"wss://localhost:{port}/" if secure else f"ws://127.0.0.1:{port}/"
    try:
        with connect(url, ssl=trusted if secure else None) as client:
            for kind, room in (("async", None), ("thread", None), ("$join", "r"), ("guarded", "r")):
                message = {"type": kind, "ref": kind}
                client.send(json.dumps(message if room is None else {**message, "room": room}))
                while True:
                    found = json.loads(client.recv(timeout=20))
                    if found.get("ref") == kind:
                        answers.append(found["type"])
                        break
        with urlopen(metrics, timeout=20) as page:
            answers.append(page.status)
    finally:
        server.stop()

def ready(listening):
    threading.Thread(target=talk, args=(listening.port, listening.metrics)).start()

async def main() -> None:
    await server.serve(ready=ready)

if sys.argv[1] == "asyncio":
    asyncio.run(main())
elif sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    import trio
    trio.run(main)
print(*answers)
"""


@pytest.mark.parametrize("secure", ["plain", "tls"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_hooks_and_handlers_that_wait_run_where_anyio_did_not_start_the_loop(
    tmp_path: Path, loop: str, secure: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py", loop, secure],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == "$ack $ack $joined $ack 200\n", done.stderr
    assert done.returncode == 0
