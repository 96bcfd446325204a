"""What the tests of the page share: the server's process, what one sees and types, wires that misbehave."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, WebSocketRoute, expect
from websockets.sync.client import connect

PATIENCE_MS = 40_000  # A drain tells clients to come back after up to 8 s; the rest is for a busy machine.


Visit = Callable[..., Page]
"""`visit(user, room="africa", before=None, **options)`: a person opens the page and joins, see conftest."""


class ChatServer:
    """`vixws serve` on a port that stays the same over restarts, with its database in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [sys.executable, "-m", "vixws_anyio", "serve", "--port", str(self.port)]
        command += ["--store", f"sqlite:///{self.folder}/chat.db", "--metrics", "off"]
        with open(self.folder / "server.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r" http=http://[^ ]*:(\d+)", line)
        assert found, f"expected the ready line, got {line!r}; {(self.folder / 'server.log').read_text()}"
        self.port = int(found[1])

    def stop(self) -> None:
        """Ends the server as an init system does; it drains its connections."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def publish(self, room: str, texts: list[str]) -> None:
        """Publishes as another client would, and waits until all are acknowledged."""
        with connect(self.url.replace("http", "ws")) as client:
            for number, text in enumerate(texts):
                payload = {"user": "robot", "text": text}
                message = {"type": "chat.message", "room": room, "ref": f"p{number}", "payload": payload}
                client.send(json.dumps(message))
            missing = {f"p{number}" for number in range(len(texts))}
            while missing:
                answer = json.loads(client.recv(30))
                assert answer["type"] != "$err", answer
                if answer["type"] == "$ack":
                    missing.discard(answer["ref"])


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#status")).to_have_attribute("data-state", state, timeout=PATIENCE_MS)


def expect_texts(page: Page, texts: list[str]) -> None:
    """The stored messages of the list are exactly these, in this order."""
    expect(page.locator("#messages li[data-off] .text")).to_have_text(texts, timeout=PATIENCE_MS)


def offsets(page: Page) -> list[int]:
    rows = page.locator("#messages li[data-off]").all()
    return [int(row.get_attribute("data-off") or 0) for row in rows]


def write(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


class Cut:
    """A wire between the page and the real server that can be cut, closed, or made deaf to the server."""

    def __init__(self) -> None:
        self.open = True
        self.deaf = False
        self.live: WebSocketRoute | None = None

    def attach(self, page: Page) -> None:
        page.route_web_socket(re.compile("^ws://"), self._route)

    def close(self) -> None:
        assert self.live is not None
        self.live.close(code=4100)

    def _route(self, route: WebSocketRoute) -> None:
        if not self.open:
            route.close(code=4100)
            return
        self.live = route
        far = route.connect_to_server()

        def forward(message: str | bytes) -> None:
            if not self.deaf:
                route.send(message)

        far.on_message(forward)


class Peer:
    """Plays the server's half of the protocol, one answer at a time; keeps what the page said."""

    def __init__(self, head: int = 0, ep: str = "e1") -> None:
        self.ep = ep
        self.head = head
        self.room = "africa"
        self.joined: dict[str, Any] = {}
        self.pongs_left = 1000
        self.refusals: list[dict[str, Any]] = []
        self.published: dict[int, dict[str, Any]] = {}
        self.said: list[dict[str, Any]] = []
        self.connections = 0
        self.route: WebSocketRoute | None = None

    def attach(self, page: Page) -> None:
        page.route_web_socket(re.compile("^ws://"), self._route)

    def say(self, type: str, payload: dict[str, Any], ref: str | None = None, everywhere: bool = False) -> None:
        room = None if everywhere else self.room
        assert self.route is not None
        message = {"type": type, "room": room, "ref": ref, "payload": payload}
        self.route.send(json.dumps({key: value for key, value in message.items() if value is not None}))

    def entry(self, off: int) -> dict[str, Any]:
        payload = {"user": "Eve", "text": f"{self.ep} {off}"}
        head = {"type": "chat.message", "room": self.room, "ep": self.ep, "off": off, "id": f"{self.ep}-{off}"}
        return {**head, "ts": "2024-05-01T10:00:00.000Z", "payload": payload, **self.published.get(off, {})}

    def send_entry(self, off: int) -> None:
        assert self.route is not None
        self.head = max(self.head, off)
        self.route.send(json.dumps(self.entry(off)))

    def said_of(self, type: str) -> list[dict[str, Any]]:
        return [message for message in self.said if message["type"] == type]

    def _route(self, route: WebSocketRoute) -> None:
        self.connections += 1
        self.route = route
        route.on_message(self._hear)

    def _hear(self, data: str | bytes) -> None:
        message = json.loads(data)
        self.said.append(message)
        ref, payload = message.get("ref"), message.get("payload", {})
        match message["type"]:
            case "$hello":
                limits = {"message_bytes": 1000}
                self.say("$welcome", {"v": 1, "reconnect_ms": 10, "limits": limits}, ref, everywhere=True)
            case "$ping" if self.pongs_left:
                self.pongs_left -= 1
                self.say("$pong", {"reconnect_ms": 10}, ref, everywhere=True)
            case "$join":
                self.room = message["room"]
                since = payload.get("since")
                start = since["off"] if since else max(0, self.head - payload["last"])
                found = {"ep": self.ep, "from": start, "head": self.head, "floor": 0, "stored": True}
                self.say("$joined", found | {"recovered": since is not None} | self.joined, ref)
                for off in range(self.joined.get("from", start) + 1, self.head + 1):
                    self.send_entry(off)
                self.say("$live", {"off": self.head})
            case "$history":
                rows = [self.entry(off) for off in range(payload["before"] - 1, 0, -1)][: payload["limit"]]
                more = bool(rows) and rows[-1]["off"] > 1
                self.say("$page", {"messages": rows, "more": more}, ref)
            case "chat.message" if self.refusals:
                self.say("$err", self.refusals.pop(0), ref)
            case "chat.message":
                off = self.head + 1
                self.published[off] = {"payload": payload, "mid": message["mid"]}
                self.say("$ack", {"mid": message["mid"], "ep": self.ep, "off": off, "dup": False}, ref)
                self.send_entry(off)
            case _:
                pass
