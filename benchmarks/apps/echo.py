"""Sends every message back as it came."""

from vixws_anyio import Server, Session

server = Server()


@server.on_message
def echo(session: Session, message: str | bytes) -> None:
    session.send_text(message) if isinstance(message, str) else session.send_binary(message)
