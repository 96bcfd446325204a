"""What the server's port answers to plain HTTP: the chat page and the two health checks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Final

__all__ = ["Answer", "Headers", "pages"]

Headers = tuple[tuple[str, str], ...]
Answer = tuple[int, Headers, bytes]

_TEXT: Final[Headers] = (("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store"))
_PAGE: Final[Headers] = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("content-security-policy", "frame-ancestors 'none'"),  # The page's own meta says the rest.
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)


def pages(is_ready: Callable[[], bool]) -> Callable[[str, str, Headers], Answer]:
    """Returns what answers `(method, path, headers)` with `(status, headers, body)`.

    `/healthz` is 200 as long as the loop turns; `/readyz` is 503 while the store fails or the server drains.
    """

    def answer(method: str, path: str, headers: Headers) -> Answer:
        if method not in ("GET", "HEAD"):
            return 405, (*_TEXT, ("allow", "GET, HEAD")), b"only GET and HEAD are answered here\n"
        if path == "/":
            return 200, _PAGE, _page()
        if path == "/healthz":
            return 200, _TEXT, b"ok\n"
        if path == "/readyz":
            return (200, _TEXT, b"ready\n") if is_ready() else (503, _TEXT, b"not ready\n")
        return 404, _TEXT, b"not found\n"

    return answer


def _page() -> bytes:
    """The chat page; read at each request, which is rare, so that a server holds no copy of it."""
    return files("vixws_anyio").joinpath("web", "chat.html").read_bytes()
