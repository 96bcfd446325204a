"""Broadcasts typed JSON to a room that is not stored."""

from vixws_anyio import Server, Session

server = Server()


@server.on("room.join")
def join(session: Session, payload: dict[str, str]) -> None:
    server.join_room(session, payload["room"])


@server.on("chat.message")
def message(session: Session, payload: dict[str, str | int]) -> None:
    server.broadcast_room_json(str(payload["room"]), "chat.message", payload, store=False)
