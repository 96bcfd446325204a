"""`python -m tests.conformance.echo_server LOOP`: echoes on a free loopback port until SIGTERM; prints the port."""

from __future__ import annotations

import sys

from vixws_anyio import Config, Listening, Server, Session

from .cases import FRAGMENTS_MAX, MESSAGE_BYTES_MAX

server = Server(Config(host="127.0.0.1", port=0, message_bytes_max=MESSAGE_BYTES_MAX, fragments_max=FRAGMENTS_MAX))


@server.on_message
def echo(session: Session, message: str | bytes) -> None:
    session.send_text(message) if isinstance(message, str) else session.send_binary(message)


def say_port(listening: Listening) -> None:
    print(listening.port, flush=True)


if __name__ == "__main__":
    server.listen_blocking(sys.argv[1], ready=say_port)
