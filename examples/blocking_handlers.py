"""A handler that blocks runs in a worker thread; calls on the session from there are carried to the loop."""

import hashlib

from vixws_anyio import Server, Session

server = Server()


@server.on("password.hash", thread=True)
def hash_password(session: Session, payload: dict[str, str]) -> None:
    """Takes its time without holding anybody up; messages of this one connection wait their turn."""
    digest = hashlib.scrypt(payload["password"].encode(), salt=b"example salt", n=2**14, r=8, p=1)
    session.send_json("password.hashed", {"scrypt": digest.hex()})


if __name__ == "__main__":
    server.listen_blocking()
