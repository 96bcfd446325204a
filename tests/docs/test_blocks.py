"""Every fenced block of the README and of docs/ runs, in the order of its page; no block is of an unknown language.

`sh` and `console` commands are executed as they stand: a server listens on the port of `VIXWS_PORT`, and where a later
block of the page says `127.0.0.1:9090` that server's address is put in. Each `python` block is a program, or with a
`def test_…` a module of tests; a `server` that it names is served as well, and where it begins with `# app.py` it is
saved under that name. The `js` blocks of a page are one program.
`json` is read as an envelope or a configuration.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ROOT, Served, environment, serving
from vixws_anyio import Config
from vixws_anyio.config import ConfigError
from vixws_core import wire
from vixws_core.errors import BadMessage

LANGUAGES = ("", "console", "js", "json", "python", "sh", "text")
"""Those a block may be of; "" and `text` are pictures and quotations."""

MORE_LANGUAGES = {"from-vix.md": ("cpp",), "sqlite.md": ("sql",)}
"""Those of pages with tests of their own, which know what to do with them."""

OWN_TESTS = {"README.md": "test_snippets.py", "from-vix.md": "test_from_vix.py", "sqlite.md": "test_sqlite.py"}
"""Pages whose blocks a module of their own runs."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if page.name not in OWN_TESTS]
PLACE = "127.0.0.1:9090"
PAYLOADS: dict[str, Any] = {"$hello": wire.HelloPayload, "$join": wire.JoinPayload, "$history": wire.HistoryPayload}


@dataclass
class Block:
    """One fenced block, and the line where it begins."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.strip().startswith("```")
        if inside is None and fence:
            inside = Block(line.strip()[3:].strip(), "", number)
        elif inside is not None and fence:
            assert line.strip() == "```", f"line {number}: a fence inside the block of line {inside.line}"
            found.append(inside)
            inside = None
        elif inside is not None:
            inside.text += line + "\n"
    assert inside is None, "a block is not closed"
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_known_language(page: Path) -> None:
    known = (*LANGUAGES, *MORE_LANGUAGES.get(page.name, ()))
    unknown = [(b.line, b.language) for b in blocks(page.read_text(encoding="utf-8")) if b.language not in known]

    assert unknown == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in OWN_TESTS], ids=lambda page: page.name)
def test_a_page_that_is_not_run_here_has_a_test_of_its_own(page: Path) -> None:
    assert page.name in (Path(__file__).parent / OWN_TESTS[page.name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        running = Running(page, tmp_path, stack)
        for block in blocks(page.read_text(encoding="utf-8")):
            running.run(block)
        running.run_javascript()
        if running.served is not None:
            assert running.served.stop() == 0


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("text", ["```rust\n```", "```yaml a\n```", "~~~\n```cobol\n```"])
def test_an_unknown_language_is_noticed(text: str) -> None:
    assert [block.language in LANGUAGES for block in blocks(text)] == [False]


@pytest.mark.parametrize(
    "text", ["{", '{"type": "$join", "payload": {"since": 1}}', '{"typ": "x"}', '{"websocket": {"prt": 1}}', "[1]"]
)
def test_json_that_is_no_envelope_and_no_configuration_is_noticed(text: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, BadMessage, ConfigError, ValueError)):
        check_json(text, tmp_path)


@dataclass
class Running:
    """The blocks of one page, run one after another in one folder; `served` is the server that the page started."""

    page: Path
    folder: Path
    stack: ExitStack
    served: Served | None = None
    javascript: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        """Runs a block; what fails names its line."""
        text = self.here(block.text)
        where = f"{self.page.name}, line {block.line}"
        match block.language:
            case "python":
                self.python(text, where)
            case "js":
                self.javascript.append(text)
            case "json":
                check_json(text, self.folder)
            case "sh":
                for command in joined_lines(text):
                    self.command(command, where)
            case "console":
                self.console(text, where)

    def here(self, text: str) -> str:
        """The text with the address of the page's server."""
        if self.served is None or PLACE not in text:
            assert self.served is None or PLACE not in text
            return text
        return text.replace(PLACE, self.served.http.removeprefix("http://").rstrip("/"))

    def environment(self) -> dict[str, str]:
        """Commands find `vixws` and `python`, and servers a port, where the settings are documented."""
        tools = self.folder / "tools"
        if not tools.exists():
            tools.mkdir()
            for name, arguments in (("vixws", "-m vixws_anyio"), ("python", "")):
                script = tools / name
                script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
                script.chmod(0o755)
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        return environment() | {"PATH": path, "VIXWS_PORT": "0", "VIXWS_METRICS": "off"}

    # ---- languages ------------------------------------------------------------------------------

    def command(self, command: str, where: str) -> str:
        """Runs one shell command and returns what it printed; `vixws serve` goes on until the page's end."""
        if command.startswith("vixws serve"):
            assert self.served is None, f"{where}: a second server"
            self.served = self.stack.enter_context(serving(self.folder, *command.split()[2:]))
            assert fetch(self.served.http + "healthz") == "ok\n"
            return ""
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{where}: {command!r} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def console(self, text: str, where: str) -> None:
        """Runs the lines behind `$ `, and compares what they print; `…` stands for anything."""
        parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
        assert parts[0] == "", f"{where}: expected a command first"
        for part in parts[1:]:
            command, _, expected = part.partition("\n")
            pattern = ".*".join(re.escape(piece) for piece in expected.rstrip().split("…"))
            told = self.command(command, where).rstrip()
            assert re.fullmatch(pattern, told, re.DOTALL), f"{where}: {command!r} printed {told!r}"

    def python(self, text: str, where: str) -> None:
        """Runs a program to its end, without a word on stderr; a `server` that it names is served as well."""
        port = 0
        if re.search(r"^threading\.Thread\(target=run_metrics_server", text, re.MULTILINE):
            port = free_port()
            text = text.replace("9100", str(port)) + PROBE.format(port=port)
        script = self.folder / "block.py"
        script.write_text(text, encoding="utf-8")
        if named := re.match(r"# (\w+\.py)\n", text):
            (self.folder / named[1]).write_text(text, encoding="utf-8")
        is_test = re.search("^def test_", text, re.MULTILINE)
        as_tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "vixws_pytest") if is_test else ()
        command = [sys.executable, *as_tests, str(script)]
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), f"{where}: {done.stdout}{done.stderr}"
        if port:
            assert done.stdout == "vixws_active_sessions 0.0\n"
        if re.search(r"^server = Server\(", text, re.MULTILINE):
            store = () if self.served is None else ("--store", "memory://")  # The page's server holds the file.
            with serving(self.folder, "--app", "block:server", *store) as served:
                assert fetch(served.http + "readyz") == "ready\n"
                assert served.stop() == 0

    def run_javascript(self) -> None:
        """Runs the page's JavaScript in Node."""
        if self.javascript:
            node(self.folder, "\n".join(self.javascript))


PROBE = """
import time
import urllib.request

for attempt in range(500):
    try:
        text = urllib.request.urlopen("http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        break
    except ConnectionRefusedError:
        time.sleep(0.02)
    except OSError as exc:
        if not isinstance(getattr(exc, "reason", None), ConnectionRefusedError):
            raise
        time.sleep(0.02)
print(*[line for line in text.splitlines() if line.startswith("vixws_active_sessions ")])
"""
"""Scrapes, as soon as somebody listens."""


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def joined_lines(text: str) -> list[str]:
    """The commands of a block: lines, those that end in a backslash with the next."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def check_json(text: str, folder: Path) -> None:
    """Reads all values of a block, each an envelope or a configuration. Raises where one is neither."""
    for value in json_values(text):
        assert isinstance(value, dict), f"expected an object, got {value!r:.100}"
        if "type" in value:
            envelope = wire.decode(json.dumps(value))
            if envelope.type in PAYLOADS:
                wire.decode_payload(PAYLOADS[envelope.type], envelope.payload)
        else:
            (folder / "block.json").write_text(json.dumps(value), encoding="utf-8")
            Config.from_file(folder / "block.json")


def json_values(text: str) -> Iterator[Any]:
    """The JSON values in a text, one behind another."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].lstrip()


def node(folder: Path, program: str) -> str:
    """Runs a JavaScript module to its end; returns what it printed."""
    script = folder / "block.mjs"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run([*node_command(), str(script)], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def node_command() -> list[str]:
    """Node with its WebSocket; skips where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return [found, "--no-warnings", "--experimental-websocket"]
