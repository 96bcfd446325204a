"""The application of varied worlds: the chat, and handlers that wait, guard, and speak to everybody."""

from __future__ import annotations

from typing import Any

from ..app.chat import build as build_chat
from ..app.session import Session
from ..errors import Refused
from .app_server import SimServer

__all__ = ["build"]


class _Later:
    """Waits for some steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __await__(self) -> Any:
        for _ in range(self._steps):
            yield


def build(server: SimServer) -> None:
    """Registers the handlers."""
    build_chat(server)

    @server.on("work")
    async def work(session: Session, payload: dict[str, Any]) -> dict[str, Any]:
        await _Later(3)
        session.send_json("done", {"n": payload.get("n", 0)})
        return {"n": payload.get("n", 0)}

    @server.on("shout")
    def shout(session: Session, payload: dict[str, Any]) -> None:
        server.broadcast_json("shout", payload, but=session)

    @server.on_publish("checked")
    async def check(session: Session, payload: dict[str, Any]) -> dict[str, Any] | None:
        await _Later(2)
        number = payload.get("n", 0)
        if number % 5 == 0:
            raise Refused("not this one")
        return {**payload, "checked": True} if number % 5 == 1 else None
