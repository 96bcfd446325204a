"""Every Python block of the README runs, and every command in it is one that works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.serving import ROOT, environment, serving

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


PYTHON = blocks(README, "python")


def test_readme_has_an_application_and_four_ways() -> None:
    assert len(PYTHON) == 5


@pytest.mark.parametrize("number", range(1, 5))
def test_readme_snippet_runs_to_its_end(number: int, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(PYTHON[number], encoding="utf-8")
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100
    )

    assert (run.returncode, run.stderr) == (0, "")


def test_readme_application_chats_and_remembers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PYTHON[0], encoding="utf-8")
    with serving(tmp_path, "--app", "app:server") as served:
        with connect(served.ws) as ada:
            assert json.loads(ada.recv(timeout=10)) == {"type": "chat.system", "payload": {"text": "Welcome!"}}
            ada.send(json.dumps({"type": "chat.join", "payload": {"room": "africa", "user": "ada"}}))
            assert json.loads(ada.recv(timeout=10))["payload"] == {"text": "ada joined"}
            ada.send(json.dumps({"type": "chat.message", "payload": {"room": "africa", "text": "Hi"}}))
            sent = json.loads(ada.recv(timeout=10))
        assert served.stop() == 0
    with serving(tmp_path, "--app", "app:server") as served, connect(served.ws) as bob:
        bob.recv(timeout=10)
        bob.send(json.dumps({"type": "chat.join", "payload": {"room": "africa", "user": "bob"}}))
        heard = [json.loads(bob.recv(timeout=10)) for _ in range(2)]

    assert sent in heard


def test_readme_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)

    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_readme_gives_the_two_commands() -> None:
    shell = blocks(README, "sh")

    assert shell[0] == (
        'python3 -m venv .venv && .venv/bin/python -m pip install -e ".[test]" && .venv/bin/vixws serve\n'
    )
    assert shell[1] == ".venv/bin/python -m pytest\n"
    assert README.index(shell[1]) < 1800  # They stand on the first screen.
