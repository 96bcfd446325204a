"""The chat page's file: whole in itself, and true to its own content security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE_FILE = Path(__file__).parents[2] / "vixws_anyio" / "web" / "chat.html"


class Reader(HTMLParser):
    """Collects what a content security policy is about."""

    def __init__(self) -> None:
        super().__init__()
        self.inline_events: list[str] = []
        self.links: list[str] = []
        self.policy = ""
        self.blocks: dict[str, str] = {}
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        named = dict(attrs)
        self.inline_events += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.blocks[self._inside] = self.blocks.get(self._inside, "") + data


def read_page() -> Reader:
    reader = Reader()
    reader.feed(PAGE_FILE.read_text(encoding="utf-8"))
    reader.close()
    return reader


@pytest.mark.parametrize("tag", ["script", "style"])
def test_the_policy_names_the_digest_of_the_inline_block(tag: str) -> None:
    page = read_page()
    digest = base64.b64encode(hashlib.sha256(page.blocks[tag].encode()).digest()).decode()

    assert f"{tag}-src 'sha256-{digest}'" in page.policy


def test_the_page_needs_no_other_host_and_has_no_inline_handlers() -> None:
    page = read_page()

    assert page.inline_events == []
    assert all(link.startswith("data:") for link in page.links)
    assert "innerHTML" not in page.blocks["script"]
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", PAGE_FILE.read_text(encoding="utf-8")) == []
