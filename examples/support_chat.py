"""Customer support: a private room for each ticket, for its customer and the agents; nobody else gets anything.

Who somebody is says a JSON Web Token, signed with a secret of yours, with the claims `sub`, `exp` and `role`:

    export SUPPORT_SECRET=$(python -c "import secrets; print(secrets.token_hex(32))")
    python examples/support_chat.py token ada customer      # prints a token that is good for 8 hours
    python examples/support_chat.py token tom agent
    python examples/support_chat.py                         # serves on ws://127.0.0.1:9090/

Try it with `from vixws_anyio import Client`, ada's token in `ada` and tom's in `tom`:

    async with Client("ws://127.0.0.1:9090/", token=ada) as client:
        ticket = json.loads(await client.request("ticket.open", {"key": "1", "subject": "It leaks"}))["ticket"]
        await client.publish(f"ticket/{ticket}", "message", {"text": "Please help"})
    async with Client("ws://127.0.0.1:9090/", token=tom) as client:
        async for message in client.room("agents", last=50):                      # ticket.opened, ticket.closed
            print(message.payload)

Rooms: `ticket/<n>`; `agents`, the list that the agents see; `@user/<id>`, everybody's own, into which agents may write.
Messages to the server: `ticket.open {key, subject}`, and `ticket.close {ticket}`, after which the customer still reads
the ticket and writes no more. Messages are kept in support.db, the tickets beside them in tickets.db.
"""

import os
import sqlite3
import sys
import time
from typing import Annotated, Literal

import anyio.to_thread
import jwt
import msgspec

from vixws_anyio import Grant, Server, Session, User
from vixws_anyio.auth.jwt import jwt_users
from vixws_core import Refused
from vixws_store import SqliteMessageStore

SECRET = os.environ.get("SUPPORT_SECRET", "")
if not SECRET:
    sys.exit("SUPPORT_SECRET: expected the secret that signs tokens, 32 bytes at least, got nothing")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]

server = Server(store=SqliteMessageStore("support.db"))
server.authenticate(jwt_users(SECRET))


class Open(msgspec.Struct):
    """A customer has a question. The same `key` again is the same ticket, so that a repeat opens no second one."""

    key: Text
    subject: Text


class Close(msgspec.Struct):
    """An agent is done with it."""

    ticket: int


class Message(msgspec.Struct):
    """What somebody writes."""

    text: Text


# ---- tickets --------------------------------------------------------------------------------------

tickets = sqlite3.connect("tickets.db", isolation_level=None, check_same_thread=False)
tickets.execute(
    "CREATE TABLE IF NOT EXISTS tickets (number INTEGER PRIMARY KEY, customer TEXT NOT NULL, key TEXT NOT NULL, "
    "subject TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0, UNIQUE (customer, key))"
)


def find(room: str) -> tuple[str, bool] | None:
    """The customer of the ticket with this room, and whether it is closed."""
    asked = "SELECT customer, closed FROM tickets WHERE number = ? AND 'ticket/' || number = ?"
    row = tickets.execute(asked, (room.removeprefix("ticket/"), room)).fetchone()
    return None if row is None else (row[0], bool(row[1]))


def insert(customer: str, key: str, subject: str) -> tuple[int, str]:
    """Number and subject of a customer's ticket with this key; in a thread, for the disk may be slow."""
    new = "INSERT INTO tickets (customer, key, subject) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    tickets.execute(new, (customer, key, subject))
    found = "SELECT number, subject FROM tickets WHERE customer = ? AND key = ?"
    number, subject = tickets.execute(found, (customer, key)).fetchone()
    return number, subject


def close(number: int) -> None:
    """Notes that a ticket is closed; in a thread as well."""
    tickets.execute("UPDATE tickets SET closed = 1 WHERE number = ?", (number,))


# ---- who may do what --------------------------------------------------------------------------------


def role_of(user: User | None) -> str:
    """`customer`, `agent`, or "" for whoever has another role or none."""
    role = "" if user is None else user.claims.get("role")
    return role if role in ("customer", "agent") else ""


@server.authorize
def may(user: User, action: str, room: str) -> Grant | None:
    """Asked before anybody does anything in a room; a room that there is not is nobody's."""
    role, ticket = role_of(user), find(room)
    if role == "agent":
        if room.startswith("@user/"):
            return Grant("publish")
        if room == "agents":
            return Grant("join", "read")
        return Grant("join", "read", "publish") if ticket is not None else None
    if role == "customer" and ticket is not None and ticket[0] == user.id:
        return Grant("join", "read") if ticket[1] else Grant("join", "read", "publish")
    return None


@server.on_publish("message")
def stamp(session: Session, payload: Message) -> dict[str, str]:
    """What is stored says who wrote it: the name is in `from`, and the role comes from the token."""
    return {"text": payload.text, "role": role_of(session.user)}


@server.on_publish()
def nothing_else(session: Session, payload: dict[str, object]) -> None:
    """Other types are the server's own: nobody can announce a ticket that there is not."""
    raise Refused("expected a message")


# ---- what the server does ---------------------------------------------------------------------------


@server.on("ticket.open")
async def open_ticket(session: Session, payload: Open) -> dict[str, int]:
    """Opens a ticket for a customer; it is answered once the agents' list has it, and may be repeated until then."""
    if session.user is None or role_of(session.user) != "customer":
        raise Refused("expected a customer")
    customer = session.user.id
    number, subject = await anyio.to_thread.run_sync(insert, customer, payload.key, payload.subject)
    told = {"ticket": number, "customer": customer, "subject": subject}
    await server.publish("agents", "ticket.opened", told, mid=f"opened {number}")
    return {"ticket": number}


@server.on("ticket.close")
async def close_ticket(session: Session, payload: Close) -> None:
    """Closes a ticket: its customer may not write into it any more, from now on, on all connections."""
    room = f"ticket/{payload.ticket}"
    ticket = find(room)
    if role_of(session.user) != "agent" or ticket is None:
        raise Refused("expected an agent, and a ticket that there is")
    await anyio.to_thread.run_sync(close, payload.ticket)
    server.revoke(ticket[0], room)
    for told in (room, "agents", f"@user/{ticket[0]}"):
        await server.publish(told, "ticket.closed", {"ticket": payload.ticket}, mid=f"closed {payload.ticket}")


def token_for(name: str, role: Literal["customer", "agent"], hours: float = 8.0) -> str:
    """A token: what the login of your site would give to whoever typed the right password."""
    return jwt.encode({"sub": name, "role": role, "exp": int(time.time() + hours * 3600)}, SECRET, "HS256")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            server.listen_blocking()
        case ["token", name, ("customer" | "agent") as role]:
            print(token_for(name, role))
        case _:
            sys.exit("usage: support_chat.py [token NAME customer|agent]")
