"""The tenth client is a page in Chromium. In a module of its own: Playwright keeps a loop running while it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.conftest import browser
from tests.serving import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]  # A fixture.

STORY = Path(__file__).with_name("story.mjs")


def test_a_page_in_chromium(browser: Browser, served: Served) -> None:
    program = STORY.read_text(encoding="utf-8").replace("export async", "async")
    page = browser.new_page()
    try:
        page.goto(f"{served.http}healthz")
        told = page.evaluate(
            f"([url, room]) => {{ {program}\nreturn story(WebSocket, url, room) }}", [served.ws, "page"]
        )
    finally:
        page.close()

    assert told == "told"
