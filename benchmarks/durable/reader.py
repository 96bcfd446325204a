"""A member that reads a room to an offset: `python -m benchmarks.durable.reader PORT ROOM UNTIL`.

Says `in` when it is a member, and at last one line: how many messages came, the last offset, how often one did not
follow the one before, and how often it was told of another log or of a gap.
"""

from __future__ import annotations

import sys

import anyio

from vixws_anyio import Client
from vixws_core.client import RoomGap, RoomLive, RoomReset


async def read(port: str, room: str, until: int) -> None:
    """Reads, over reconnects if need be."""
    count = broken = told = last = 0
    is_in = False
    client = Client(f"ws://127.0.0.1:{port}/")

    @client.on_room
    def heard(_: Client, event: object) -> None:
        nonlocal told, is_in
        if isinstance(event, RoomLive) and not is_in:
            is_in = True
            print("in", flush=True)
        told += isinstance(event, RoomGap | RoomReset)

    async with client:
        async for message in client.room(room, last=0):
            count += 1
            broken += bool(last) and message.off != last + 1
            last = message.off
            if last >= until:
                break
    print(count, last, broken, told, flush=True)


if __name__ == "__main__":
    anyio.run(read, sys.argv[1], sys.argv[2], int(sys.argv[3]))
