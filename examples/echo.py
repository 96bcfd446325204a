"""The smallest server: whatever comes is sent back. `python examples/echo.py`, then connect to ws://127.0.0.1:9090/."""

from vixws_anyio import Server, Session

server = Server()


@server.on_message
def echo(session: Session, message: str | bytes) -> None:
    """Sends a message back as it came."""
    if isinstance(message, str):
        session.send_text(message)
    else:
        session.send_binary(message)


if __name__ == "__main__":
    server.listen_blocking()
