"""Children that a program forks and does not exec: nothing of the server lives on in them."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from tests.serving import ROOT

from .command_line import LOOPS, PATIENCE_S, READY, Served
from .rig import frame, request

APPLICATION = """
import concurrent.futures, multiprocessing, os, time, warnings

warnings.simplefilter("ignore")  # Python warns of forks beside threads, and is right.

from vixws_anyio import Server

server = Server()
fork = multiprocessing.get_context("fork")
kept = []


def plain():
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(120)
        finally:
            os._exit(0)
    return pid


def process():
    child = fork.Process(target=time.sleep, args=(120,))
    kept.append(child)
    child.start()
    return child.pid


def pool():
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)
    kept.append(executor)
    executor.submit(time.sleep, 120)
    return next(iter(executor._processes))


def grandchild():
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, str(plain()).encode())
        finally:
            os._exit(0)
    return int(os.read(read, 20))


WAYS = {"plain": plain, "process": process, "pool": pool, "grandchild": grandchild}


@server.on("here")
def here(session, payload):
    session.send_json("forked", {"pid": WAYS[payload["way"]]()})


@server.on("thread", thread=True)
def in_thread(session, payload):
    session.send_json("forked", {"pid": WAYS[payload["way"]]()})


@server.on("say")
def say(session, payload):
    def done(told):
        session.send_json("stored", {"off": told.off})

    server.broadcast_room_json("room", "said", payload, done=done)
"""


@contextmanager
def started(folder: Path, *flags: str, port: int = 0) -> Generator[Served]:
    """Serves `APPLICATION` with the file `chat.db`."""
    command = [sys.executable, "-m", "vixws_anyio", "serve", "--app", "app:server", "--store", "sqlite:///chat.db"]
    with open(folder / "stderr.txt", "a+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--metrics", "127.0.0.1:0", *flags],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            assert process.stdout is not None
            found = READY.fullmatch(process.stdout.readline())
            stderr.seek(0)
            assert found is not None, stderr.read()
            yield Served(process, found.groupdict())
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class Client:
    """A client on a blocking socket, which sees every byte and the end."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.sock.sendall(request())
        self.data = b""
        self.wait(b"\r\n\r\n")

    def close(self) -> None:
        self.sock.close()

    def ask(self, message: object, answer: bytes) -> bytes:
        self.sock.sendall(frame(message))
        return self.wait(answer)

    def wait(self, part: bytes) -> bytes:
        """All bytes from this part on."""
        while part not in self.data:
            more = self.sock.recv(65_536)
            assert more, self.data
            self.data += more
        found = self.data[self.data.index(part) :]
        self.data = b""
        return found

    def has_ended(self) -> bool:
        self.sock.settimeout(5)
        try:
            while self.sock.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:  # Reset, or an end without TLS's own.
            return True
        return True


def pid_of(answer: bytes) -> int:
    return int(answer.partition(b'"pid":')[2].strip().partition(b"}")[0])


def alive(pid: int) -> bool:
    """Whether it runs: no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def open_files(pid: int) -> list[str]:
    """What a process has open, by name."""
    found: list[str] = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # It was closed meanwhile.
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def local_ports(pid: int) -> set[int]:
    """The local ports of a process's TCP sockets."""
    mine = {name[8:-1] for name in open_files(pid) if name.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[9] in mine}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("where", "way"),
    [("here", "plain"), ("here", "process"), ("here", "pool"), ("here", "grandchild"), ("thread", "plain")],
)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_forked_child_keeps_neither_port_nor_connections_nor_file(
    tmp_path: Path, loop: str, where: str, way: str
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    child, stack = 0, ExitStack()
    try:
        with started(tmp_path, *LOOPS[loop]) as served:
            port = int(served.ready["port"])
            clients = [Client(port) for _ in range(4)]
            for client in clients:
                stack.callback(client.close)
            clients[0].ask({"type": "say", "payload": {"n": 1}}, b'"off":')
            child = pid_of(clients[0].ask({"type": where, "payload": {"way": way}}, b'"pid":'))
            _settle(child, port)
            until = time.monotonic() + 5
            while any("chat.db" in name for name in open_files(child)) and time.monotonic() < until:
                time.sleep(0.01)

            assert [name for name in open_files(child) if "chat.db" in name] == []
            assert clients[1].ask({"type": "say", "payload": {"n": 2}}, b'"off":').startswith(b'"off":2')
            served.process.send_signal(signal.SIGKILL)
            served.process.wait(PATIENCE_S)

            assert [client.has_ended() for client in clients] == [True] * 4
            assert alive(child)
        with started(tmp_path, *LOOPS[loop], port=port) as served:
            late = Client(port)
            stack.callback(late.close)
            assert late.ask({"type": "say", "payload": {"n": 3}}, b'"off":').startswith(b'"off":3')
            assert alive(child)
    finally:
        stack.close()
        _kill(child)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_forked_child_keeps_no_tls_connection_and_no_scrape(tmp_path: Path, loop: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    flags: Sequence[str] = (*LOOPS[loop], "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    child, stack = 0, ExitStack()
    try:
        with started(tmp_path, *flags) as served:
            port = int(served.ready["port"])
            metrics = int(served.ready["metrics"].split(":")[2].partition("/")[0])
            clients = [Client(port, context) for _ in range(2)]
            scrape = stack.enter_context(socket.create_connection(("127.0.0.1", metrics), PATIENCE_S))
            for client in clients:
                stack.callback(client.close)
            child = pid_of(clients[0].ask({"type": "here", "payload": {"way": "plain"}}, b'"pid":'))
            _settle(child, port, metrics)
            served.process.send_signal(signal.SIGKILL)
            served.process.wait(PATIENCE_S)

            assert [client.has_ended() for client in clients] == [True] * 2
            assert scrape.recv(1) == b""
            assert alive(child)
        with started(tmp_path, *flags, port=port):
            pass
    finally:
        stack.close()
        _kill(child)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_child_that_is_ended_takes_nothing_from_a_server_that_lives(tmp_path: Path, loop: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    children: list[int] = []
    stack = ExitStack()
    try:
        with started(tmp_path, *LOOPS[loop]) as served:
            client = Client(int(served.ready["port"]))
            stack.callback(client.close)
            for way in ("plain", "process", "grandchild"):
                children.append(pid_of(client.ask({"type": "here", "payload": {"way": way}}, b'"pid":')))
            for child in children[:2]:
                os.kill(child, signal.SIGTERM)
                _wait_ended(child)
            command = [sys.executable, "-m", "vixws_anyio", "serve", "--port", "0", "--store", "sqlite:///chat.db"]
            second = subprocess.run(
                [*command, "--metrics", "off"],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert f"is served by the process {served.process.pid} already" in second.stderr
            # SQLite's locks are there as well: another process is not the last one that closes the file.
            sqlite3.connect(tmp_path / "chat.db").close()
            for number in range(1, 4):
                said = client.ask({"type": "say", "payload": {"n": number}}, b'"off":')
                assert said.startswith(b'"off":%d' % number)
            assert "SIGTERM" not in (tmp_path / "stderr.txt").read_text()
            served.process.terminate()
            assert served.process.wait(PATIENCE_S) == 0
    finally:
        stack.close()
        for child in children:
            _kill(child)


def _settle(child: int, *ports: int) -> None:
    """Waits until the child has none of these ports; a child of a child comes to that a moment later."""
    until = time.monotonic() + 5
    while not local_ports(child).isdisjoint(ports) and time.monotonic() < until:
        time.sleep(0.01)
    assert local_ports(child).isdisjoint(ports)


def _wait_ended(child: int) -> None:
    until = time.monotonic() + 5
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)


def _kill(child: int) -> None:
    if child:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


CLIENT = """
import os, sys, time, warnings

import anyio

from vixws_anyio import Client

warnings.simplefilter("ignore")


async def main(url):
    async with Client(url) as client:
        await client.wait_open()
        await client.publish("africa", "x", {})
        child = os.fork()
        if child == 0:
            time.sleep(120)
            os._exit(0)
        print(child, flush=True)
        await anyio.sleep_forever()


backend = sys.argv[2]
options = {"use_uvloop": True} if backend == "uvloop" else {}
anyio.run(main, sys.argv[1], backend="trio" if backend == "trio" else "asyncio", backend_options=options)
"""


def remote_ports(pid: int) -> set[int]:
    """The ports that a process's TCP sockets are connected to."""
    mine = {name[8:-1] for name in open_files(pid) if name.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if row[9] in mine}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_forked_child_keeps_no_connection_of_a_client(tmp_path: Path, loop: str) -> None:
    """A server would never hear that the client is gone."""
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "client.py").write_text(CLIENT)
    child = 0
    with started(tmp_path) as served:
        port = int(served.ready["port"])
        process = subprocess.Popen(
            [sys.executable, "client.py", f"ws://127.0.0.1:{port}/", loop],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            assert port in remote_ports(process.pid)
            until = time.monotonic() + 5
            while port in remote_ports(child) and time.monotonic() < until:
                time.sleep(0.01)  # It lets go of it in its first moments.
            assert port not in remote_ports(child)
            assert alive(child)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            _kill(child)
