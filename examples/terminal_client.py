"""A chat in the terminal, for `vixws serve`: `python examples/terminal_client.py [URL [ROOM [NAME]]]`.

Prints what the room says and publishes each line of stdin. Restart the server while it runs: it comes back, prints
what it missed, and a line typed meanwhile is sent then, once.
"""

import sys
from contextlib import suppress
from functools import partial

import anyio

from vixws_anyio import Client, PublishError, Room


async def show(room: Room) -> None:
    """Prints the room's messages, the newest 20 stored ones first; goes on by itself after every loss."""
    async for message in room:
        if isinstance(message.payload, dict) and "text" in message.payload:
            print(f"{message.payload.get('user', '*')}: {message.payload['text']}", flush=True)


async def main(url: str = "ws://127.0.0.1:9090/", room: str = "africa", user: str = "terminal") -> None:
    """Talks until stdin ends, or Ctrl-C."""
    client = Client(url)

    @client.on_open
    def opened(client: Client) -> None:
        print(f"connected to {url}", file=sys.stderr)  # Losses are in the log, which goes to stderr as well.

    # A terminal or a pipe, without a buffer in which a line could wait unseen; not in a thread, which Ctrl-C
    # would have to wait for.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(show, client.room(room, last=20))
            while True:
                await anyio.wait_readable(stdin)
                line = stdin.readline()
                if not line:
                    break
                try:
                    text = line.decode(errors="replace").rstrip("\n")
                    await client.publish(room, "chat.message", {"room": room, "user": user, "text": text})
                except PublishError as exc:
                    print(f"not sent: {exc}", file=sys.stderr)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(partial(main, *sys.argv[1:4]))
