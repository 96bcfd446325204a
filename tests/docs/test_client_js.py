"""The JavaScript client of docs/client.md, in Node, against the real server."""

from __future__ import annotations

from pathlib import Path
from subprocess import PIPE, Popen

from tests.docs.test_blocks import blocks, free_port, node, node_command
from tests.serving import ROOT, serving

CLIENT, USE = (b.text for b in blocks((ROOT / "docs" / "client.md").read_text(encoding="utf-8")) if b.language == "js")

TERMINAL = """
import { createInterface } from "node:readline"
const client = new Client(process.argv[2], {
  message: (room, envelope) => envelope.off && console.log(envelope.off, envelope.payload.text),
  missed: (room, what) => console.log("missed", JSON.stringify(what)),
})
client.join("africa", null, 20)
for await (const text of createInterface({ input: process.stdin }))
  client.publish("africa", "chat.message", { room: "africa", user: "js", text })
client.close()
"""
"""Publishes what stdin says, without waiting, and prints what the room says."""

MACHINE = """
import { strict as assert } from "node:assert"
const sent = []
globalThis.WebSocket = class { send(text) { sent.push(JSON.parse(text)) } close() {} }
const told = []
const client = new Client("ws://example/", {
  message: (room, envelope) => told.push(envelope.off),
  missed: (room, what) => told.push(what.reason ?? [what.from, what.to]),
})
const say = (type, payload, head = {}) => client.read({ type, room: "africa", payload, ...head })
const message = (off, ep = "e") => say("note", {}, { ep, off, id: `i${off}` })
client.join("africa", { ep: "e", off: 3, id: "i3" })
client.connect()
client.socket.onopen()
say("$welcome", { reconnect_ms: 500 })
assert.deepEqual(sent.map((one) => one.type), ["$hello", "$join"])
assert.deepEqual(sent[1].payload, { since: { ep: "e", off: 3, id: "i3" } })
say("$joined", { ep: "e", from: 3, head: 5, recovered: true, stored: true })
message(4)
message(4)                                       // seen already
message(6)                                       // a jump: joins again from where it is
message(7)                                       // will be sent again
assert.deepEqual(sent.at(-1).payload, { since: { ep: "e", off: 4, id: "i4" } })
assert.equal(sent.length, 3)
say("$joined", { ep: "e", from: 4, head: 7, recovered: true, stored: true })
message(5)
say("$gap", { from: 6, to: 8 })
message(9)
say("$reset", { ep: "f", from: 2, head: 2, reason: "epoch" })
message(3, "f")
client.ask("africa")
say("$joined", { ep: "g", from: 7, head: 7, recovered: false, reason: "epoch", stored: true })
message(8, "g")
assert.deepEqual(told, [4, 5, [6, 8], 9, "epoch", 3, "epoch", 8])
client.quiet = 2
client.beat()                                    // nobody answers: it counts as lost, and waits to come back
assert.equal(client.open, false)
client.close()
process.exit(0)
"""
"""Its rules, without a socket."""


def test_the_page_uses_it_as_it_says(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        told = node(tmp_path, CLIENT + USE.replace("ws://127.0.0.1:9090/", served.ws)).splitlines()

    assert {"server Welcome!", "now open", "stored at 1", "now closed 1000"} <= set(told)
    assert told[-1] == "now closed 1000"


def test_drops_rejoins_and_believes_as_the_protocol_says(tmp_path: Path) -> None:
    node(tmp_path, CLIENT + MACHINE)


def test_it_comes_back_after_a_restart_without_loss_or_repeat(tmp_path: Path) -> None:
    port = str(free_port())
    script = tmp_path / "terminal.mjs"
    script.write_text(CLIENT + TERMINAL, encoding="utf-8")
    command = [*node_command(), str(script), f"ws://127.0.0.1:{port}/"]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as client:
        assert client.stdin is not None and client.stdout is not None
        try:
            with serving(tmp_path, "--port", port) as served:
                client.stdin.write("before\n")
                client.stdin.flush()
                assert client.stdout.readline() == "1 before\n"
                assert served.stop() == 0
            client.stdin.write("while it was away\nand again\n")
            client.stdin.flush()
            with serving(tmp_path, "--port", port):
                assert client.stdout.readline() == "2 while it was away\n"
                assert client.stdout.readline() == "3 and again\n"
                client.stdin.close()
                assert client.wait(timeout=20) == 0
            assert client.stdout.read() == ""
        finally:
            client.kill()
