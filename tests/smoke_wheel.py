"""Smoke test of an installed wheel, run from another folder: `python smoke_wheel.py` with its interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path


def main() -> int:
    """Starts the installed server on SQLite, asks for its page and its health, and stops it."""
    vixws = Path(sys.executable).with_name("vixws")
    version = subprocess.run([vixws, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [vixws, "serve", "--port", "0", "--metrics", "127.0.0.1:0"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            assert ready.startswith("vixws ready "), ready
            fields = dict(item.split("=", 1) for item in ready.split()[2:])
            with urllib.request.urlopen(fields["http"], timeout=10) as page:
                text = page.read().decode()
            assert "<html" in text.lower(), text[:200]
            for path in ("healthz", "readyz"):
                with urllib.request.urlopen(fields["http"].rstrip("/") + "/" + path, timeout=10) as answer:
                    assert answer.status == 200
            with urllib.request.urlopen(fields["metrics"], timeout=10) as metrics:
                assert b"vixws_" in metrics.read()
            assert int(fields["pid"]) == server.pid
            os.kill(server.pid, signal.SIGTERM)
            assert server.wait(timeout=10) == 0
            assert (Path(folder) / "chat_messages.db").exists()
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
    print(f"the wheel works: {version.strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
