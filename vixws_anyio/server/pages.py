"""What the server's port answers to plain HTTP: the chat page, the two health checks, and pages of the application."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, TypeAlias
from urllib.parse import unquote

from vixws_core.message import encode_json
from vixws_core.wire.http import http_answer

__all__ = ["HEALTH", "Answer", "Headers", "OwnPage", "Page", "PageRequest", "pages"]

Headers: TypeAlias = tuple[tuple[str, str], ...]
Answer: TypeAlias = tuple[int, Headers, bytes]

HEALTH: Final = ("/healthz", "/readyz")
"""The paths that no application answers itself: load balancers rely on them."""

ROOMS_NAMED_MAX: Final = 10
"""Damaged rooms that `/readyz` names."""

_TEXT: Final[Headers] = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))
_PAGE: Final[Headers] = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("content-security-policy", "frame-ancestors 'none'"),  # The page's own meta says the rest.
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A plain `GET` (or `HEAD`, answered without the body). Header names are lower case, values latin-1.

    `path` is as requested, percent signs and all; `query` is what follows the `?`, see `urllib.parse.parse_qs`.
    """

    method: str
    path: str
    query: str
    headers: Headers

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header, by its name in lower case."""
        return next((value for known, value in self.headers if known == name), default)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a `PageRequest`. The length and `connection: close` are added; further `headers` are yours."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Headers = ()


OwnPage: TypeAlias = Callable[[PageRequest], object]
"""What `Server.page` registers; it returns a `Page`, HTML as `str`, or what JSON can hold (`bytes`: JSON already)."""


def pages(
    is_ready: Callable[[], bool],
    own: Mapping[str, OwnPage],
    damaged_rooms: Callable[[], Sequence[str]] = tuple,
) -> Callable[[str, str, Headers], Answer]:
    """Returns what answers `(method, target, headers)` with `(status, headers, body)`.

    `/healthz` is 200 as long as the loop turns; `/readyz` is 503 while the store fails or the server drains, and names
    the rooms that the store found damaged, at most 10: all others are served, so they do not make it 503.
    `own` are the application's pages by their path; one at `/` takes the chat page's place.
    """

    def answer(method: str, target: str, headers: Headers) -> Answer:
        path, _, query = target.partition("?")
        if method not in ("GET", "HEAD"):
            return 405, (*_TEXT, ("allow", "GET, HEAD")), b"only GET and HEAD are answered here\n"
        found = own.get(path) or own.get(unquote(path))
        if found is not None:
            return _answer(found(PageRequest(method, path, query, headers)))
        if path == "/":
            return 200, _PAGE, _page()
        if path == "/healthz":
            return 200, _TEXT, b"ok\n"
        if path == "/readyz":
            status, word = (200, b"ready\n") if is_ready() else (503, b"not ready\n")
            return status, _TEXT, word + _named(damaged_rooms())
        return 404, _TEXT, b"not found\n"

    return answer


def _named(rooms: Sequence[str]) -> bytes:
    """A line with the number of damaged rooms and the first of their names, as JSON; nothing where all are sound."""
    if not rooms:
        return b""
    names = ", ".join(json.dumps(name) for name in rooms[:ROOMS_NAMED_MAX])
    more = "" if len(rooms) <= ROOMS_NAMED_MAX else ", ..."
    return f"damaged rooms: {len(rooms)}: {names}{more}\n".encode()


def _answer(returned: object) -> Answer:
    """What an application's page comes to. Raises: `LocalError` for a status or header that cannot be sent."""
    if isinstance(returned, Page):
        page = returned
    elif isinstance(returned, str):
        page = Page(returned.encode())
    else:
        page = Page(encode_json(returned), "application/json")
    usual: Headers = (
        ("content-type", page.content_type),
        ("cache-control", "no-cache"),
        ("x-content-type-options", "nosniff"),
    )
    given = {name.lower() for name, _ in page.headers}
    headers = (*(pair for pair in usual if pair[0] not in given), *page.headers)
    http_answer(page.status, headers)  # Raises here, where it is reported as the page's, what the hub would raise.
    return page.status, headers, page.body


def _page() -> bytes:
    """The chat page; read at each request, which is rare, so that a server holds no copy of it."""
    return files("vixws_anyio").joinpath("web", "chat.html").read_bytes()
