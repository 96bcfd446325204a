"""A chat whose rooms are durable: whoever comes back gets what was missed.

A message that carries a top-level "room" is stored and sent to its members without any code here. Join with
{"type": "$join", "ref": "1", "room": "africa", "payload": {"last": 50}}, or after a reconnect with the position
of the last message seen: {"since": {"ep": …, "off": …, "id": …}}. See docs/protocol.md.
"""

from vixws_anyio import Server, Session
from vixws_core import Refused
from vixws_store import SqliteMessageStore

server = Server(store=SqliteMessageStore("chat_messages.db"))


@server.on("chat.join")
def join(session: Session, payload: dict[str, str]) -> None:
    """The same for clients that know nothing of the protocol: the newest 50 messages, then what comes."""
    server.join_room(session, payload["room"], last=50)


@server.on_publish("chat.message")
def check(session: Session, payload: dict[str, str]) -> None:
    """Guards what is stored: returning lets it pass, a returned payload replaces it, `Refused` refuses it."""
    if not payload.get("text"):
        raise Refused("expected a text")


if __name__ == "__main__":
    server.listen_blocking()
