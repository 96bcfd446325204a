"""The server of a simulated world is to handlers what a real one is: the same methods, asked in the same way."""

from __future__ import annotations

import inspect

import pytest

from vixws_anyio import Server
from vixws_core.testing import SimServer

SERVING = frozenset(("http", "listen_blocking", "listening", "page", "port", "serve", "serve_stream", "stop", "ws"))
"""What is about sockets and pages, which a world has not."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_a_worlds_server_has_what_handlers_call() -> None:
    assert public(Server) - public(SimServer) == SERVING


@pytest.mark.parametrize("name", sorted(set(vars(Server)) & set(vars(SimServer)) & public(Server)))
def test_what_it_has_is_asked_in_the_same_way(name: str) -> None:
    real, simulated = getattr(Server, name), getattr(SimServer, name)

    assert inspect.signature(simulated) == inspect.signature(real)
    assert inspect.iscoroutinefunction(simulated) is inspect.iscoroutinefunction(real)
