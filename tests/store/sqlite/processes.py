"""Other processes beside a store: one that serves a file, one that reads for long."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.serving import environment

SERVE = """
import sys, anyio
from vixws_store import SqliteMessageStore

async def main():
    async with SqliteMessageStore(sys.argv[1]).run():
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)

try:
    anyio.run(main)
except Exception as exc:
    print(type(exc).__name__, exc, flush=True)
"""
"""Serves a file until its stdin ends, or says why it cannot."""

READ = """
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM ws_messages").fetchone()
print("ready", flush=True)
sys.stdin.readline()
"""
"""Begins a read, and ends it when its stdin does."""


@contextmanager
def beside(script: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs a script until the end of the block; gives its process and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
