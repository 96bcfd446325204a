"""Makes docs/picture.png, the README's picture: two people chat, beside the terminal that shows it all.

Everything in it is real: `vixws serve` runs with its defaults in a folder of its own, two windows of Chromium
talk, and the terminal shows what the server printed, what the `sqlite3` shell finds in the file and what the
metrics say. Needs the extra `test`, chromium, bash, curl, sqlite3, and the ports 9090 and 9100 free:

    python docs/make_picture.py
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

PICTURE = Path(__file__).with_name("picture.png")
BYTES_MAX = 200_000
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"]
VIEW: ViewportSize = {"width": 390, "height": 560}
QUERY = "SELECT off, payload_json->>'user' AS user, payload_json->>'text' AS text\n    FROM ws_messages"
KINDS = "^vixws_(active|received_m|joins|rooms|broadcasts|deliveries)"
TALK = [
    ("Ada", "Morning! Is the new chat up?"),
    ("Ben", "Since nine. Where does it keep what we say?"),
    ("Ada", "In a log, one for each room, in plain SQLite."),
    ("Ben", "And if my train enters a tunnel?"),
    ("Ada", "Your window goes on from its own position."),
]
STYLE = """
* { box-sizing: border-box; }
body { margin: 0; padding: 24px; display: flex; gap: 20px; background: #0f5f59; }
img, pre { border-radius: 12px; }
pre { margin: 0; width: 700px; height: 560px; padding: 18px 20px; overflow: hidden; background: #12181d;
  color: #b9c4cc; font: 12.5px/1.5 "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
b { color: #5eead4; }
"""


@contextmanager
def serving(folder: Path) -> Generator[str]:
    """Runs `vixws serve` in `folder`; gives the line it printed once it listened."""
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "vixws_anyio", "serve"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        if not line:
            sys.exit(f"vixws serve did not start: {(folder / 'server.log').read_text()}")
        yield line
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        assert server.stdout is not None
        server.stdout.close()


def visit(browser: Browser, url: str, user: str, scheme: Literal["light", "dark"]) -> Page:
    context = browser.new_context(viewport=VIEW, color_scheme=scheme, locale="en-GB", device_scale_factor=1)
    page = context.new_page()
    page.goto(f"{url}#office")
    page.get_by_label("Your name").fill(user)
    page.get_by_role("button", name="Join").click()
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    return page


def talk(pages: dict[str, Page]) -> None:
    for number, (user, text) in enumerate(TALK, 1):
        pages[user].get_by_label("Message", exact=True).fill(text)
        pages[user].get_by_role("button", name="Send").click()
        for page in pages.values():
            expect(page.locator("#messages li[data-off]")).to_have_count(number)
    pages["Ben"].get_by_label("Message", exact=True).fill("Then I am hap")
    expect(pages["Ada"].locator("#typing")).to_contain_text("Ben is typing")


def terminal(ready: str, folder: Path) -> str:
    """The text of the terminal, as HTML: what was asked, and what was really answered."""
    metrics = re.search(r"metrics=(http\S+)", ready)
    if metrics is None:
        sys.exit(f"expected the address of the metrics in {ready!r}")
    shown = [("vixws serve", ready)]
    for command in (
        f'sqlite3 -box chat_messages.db \\\n  "{QUERY}"',
        f"curl -s {metrics[1]} |\n  grep -E '{KINDS}'",
    ):
        told = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
        shown.append((command, told.stdout.rstrip()))
    return "\n\n".join(f"<b>$ {html.escape(asked)}</b>\n{html.escape(told)}" for asked, told in shown)


def image(page: Page) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(page.screenshot()).decode()}">'


def main() -> None:
    chromium = shutil.which("chromium") or sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as ready, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        url = ready.partition(" http=")[2].partition(" ")[0]
        pages = {"Ada": visit(browser, url, "Ada", "light"), "Ben": visit(browser, url, "Ben", "dark")}
        talk(pages)
        text = terminal(ready, Path(name))
        canvas = browser.new_page(viewport={"width": 1568, "height": 608})
        canvas.set_content(f"<style>{STYLE}</style>{image(pages['Ada'])}{image(pages['Ben'])}<pre>{text}</pre>")
        canvas.screenshot(path=PICTURE)
        browser.close()
    size = PICTURE.stat().st_size
    if size > BYTES_MAX:
        sys.exit(f"{PICTURE.name} has {size} bytes, expected at most {BYTES_MAX}")
    print(f"{PICTURE.name}: {size} bytes")


if __name__ == "__main__":
    main()
