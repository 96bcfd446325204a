"""The server that foreign clients are tried with: `vixws serve --app tests.foreign.app:server`."""

from __future__ import annotations

from vixws_anyio import Config, Server, Session
from vixws_store import SqliteMessageStore

server = Server(Config(), store=SqliteMessageStore("foreign.db"))


@server.on("echo")
def echo(session: Session, payload: dict[str, object]) -> None:
    """Sends back what came."""
    session.send_json("echo", payload)
