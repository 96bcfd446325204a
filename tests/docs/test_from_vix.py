"""Every block of the page for those who come from Vix runs, and the page names all that the seed has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.docs.test_snippets import blocks
from tests.serving import ROOT, environment, serving

PAGE = (ROOT / "docs" / "from-vix.md").read_text(encoding="utf-8")
PYTHON = blocks(PAGE, "python")
CHAT = 3

NAMES = """
append(kind, room, type, payload)|append(message)|list_by_room(room, limit, before_id)|replay_from(id)|StoredMessage
SqliteMessageStore store{"chat_messages.db"}|WebSocketMetrics metrics|run_metrics_server(metrics, "0.0.0.0", 9100)
JsonMessage::serialize(type, kvs)|ws_kvs_to_nlohmann|Server ws(cfg, executor)|ws.listen_blocking()|ws.on_open
ws.on_close|ws.on_error|ws.on_message|ws.on_typed_message|ws.join_room(session, room)|ws.leave_room(session, room)
ws.broadcast_room_json(room, type, payload)|make_threadpool_executor(4, 8, 0)|session.send_text
EXAMPLES.md|CLIENT_GUIDE.md|LONGPOLLING.md|TECHNICAL.md|vix_websocket_examples.md
Presence|Binary frames|Encrypted channels|Batches|Replay by id|port|maxMessageSize|idleTimeout|pingInterval
"""


@pytest.mark.parametrize("name", NAMES.replace("\n", "|").strip("|").split("|"))
def test_page_says_what_became_of(name: str) -> None:
    assert name in PAGE


@pytest.mark.parametrize("number", [number for number in range(len(PYTHON)) if number != CHAT])
def test_block_runs_to_its_end(number: int, tmp_path: Path) -> None:
    (config,) = blocks(PAGE, "json")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    script = tmp_path / "block.py"
    script.write_text(PYTHON[number], encoding="utf-8")
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100
    )

    assert run.returncode == 0, run.stderr


def test_chat_chats_and_remembers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PYTHON[CHAT], encoding="utf-8")

    def say(type: str, **payload: str) -> str:
        return json.dumps({"type": type, "payload": {"room": "africa", **payload}})

    ping = json.dumps({"type": "$ping", "ref": "1"})
    with serving(tmp_path, "--app", "app:server") as served, connect(served.ws) as ada, connect(served.ws) as bob:
        welcome = {"type": "chat.system", "payload": {"user": "server", "text": "Welcome!"}}
        assert [json.loads(peer.recv(timeout=10)) for peer in (ada, bob)] == [welcome, welcome]
        ada.send(say("chat.join", user="ada"))
        assert json.loads(ada.recv(timeout=10))["payload"] == {"text": "ada joined"}
        bob.send(say("chat.join", user="bob"))
        assert [json.loads(peer.recv(timeout=10))["payload"]["text"] for peer in (ada, bob)] == ["bob joined"] * 2
        ada.send(say("chat.message", user="ada", text="Hello!"))
        heard = [json.loads(peer.recv(timeout=10)) for peer in (ada, bob)]
        bob.send(say("chat.leave"))
        bob.send(ping)
        assert json.loads(bob.recv(timeout=10))["type"] == "$pong"  # Its leave is handled by now.
        ada.send(say("chat.message", text="Bye"))
        assert json.loads(ada.recv(timeout=10))["off"] == 2
        bob.send(ping)
        assert json.loads(bob.recv(timeout=10))["type"] == "$pong"  # And nothing came before.

    assert heard[0] == heard[1]
    assert (heard[0]["off"], heard[0]["payload"]["text"]) == (1, "Hello!")


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "docs" / name for name in ("from-vix.md", "sqlite.md")]
    links = [(page, part.split(")")[0]) for page in pages for part in page.read_text(encoding="utf-8").split("](")[1:]]

    assert [(page.name, to) for page, to in links if "://" not in to and not (page.parent / to).exists()] == []
