"""The server that is attacked: everybody proves who they are by a token, and may then do everything."""

from __future__ import annotations

from vixws_anyio import Config, Server
from vixws_core.app.access import AuthRequest, Denied, User

__all__ = ["server"]

server = Server(Config(access="open"))


@server.authenticate
def who(request: AuthRequest) -> User | None:
    """Knows whoever shows `good NAME`."""
    if not request.token and not request.in_message:
        return None  # It is shown with `$hello`.
    word, _, name = request.token.partition(" ")
    if word != "good" or not name:
        raise Denied("no such token")
    return User(name)
