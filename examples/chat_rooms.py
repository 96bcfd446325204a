"""Chat rooms with typed, validated messages; nothing is stored.

Send {"type": "chat.join", "payload": {"room": "africa", "user": "ada"}} to ws://127.0.0.1:9090/.
"""

import msgspec

from vixws_anyio import Config, Server, Session


class Join(msgspec.Struct):
    """Who wants in, and where."""

    room: str
    user: str


class Message(Join):
    """What somebody says."""

    text: str


server = Server(Config(unstored_rooms=("*",)))


@server.on_open
def welcome(session: Session) -> None:
    """Greets a newcomer."""
    session.send_json("chat.system", {"text": "Welcome!"})


@server.on("chat.join")
def join(session: Session, payload: Join) -> None:
    """Lets a user in and tells the room; a payload without `user` is answered `$err bad_message`."""
    server.join_room(session, payload.room)
    server.broadcast_room_json(payload.room, "chat.system", {"text": f"{payload.user} joined"})


@server.on("chat.message")
def say(session: Session, payload: Message) -> None:
    """Tells the room what somebody said."""
    server.broadcast_room_json(payload.room, "chat.message", payload)


if __name__ == "__main__":
    server.listen_blocking()
