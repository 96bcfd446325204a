"""Chromium, the server's process, and people who visit the page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page

    from tests.browser.chatting import ChatServer, Visit

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChatServer]:
    from tests.browser.chatting import ChatServer

    server = ChatServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def visit(browser: Browser, server: ChatServer) -> Iterator[Visit]:
    """Opens the page as a person in a browser of their own; in the end none has seen an error.

    What Chromium itself reports of an attempt to connect while the server is away is expected.
    """
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def visit(user: str, room: str = "africa", before: Callable[[Page], None] | None = None, **options: Any) -> Page:
        def failed(error: Error) -> None:
            faults.append(f"{user}: {error}")

        def said(message: ConsoleMessage) -> None:
            faults.append(f"{user}: {message.type}: {message.text}")

        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", failed)
        page.on("console", said)
        if before is not None:
            before(page)
        page.goto(f"{server.url}#{quote(room)}")
        page.get_by_label("Your name").fill(user)
        page.get_by_role("button", name="Join").click()
        return page

    yield visit
    for context in contexts:
        context.close()
    unexpected = [fault for fault in faults if "WebSocket connection to" not in fault]

    assert unexpected == []
