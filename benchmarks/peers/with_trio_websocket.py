"""The benchmark applications on `trio-websocket` (trio): a room's members are sent to one after another."""

from __future__ import annotations

import signal
from collections import defaultdict
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, WebSocketServer, serve_websocket

from benchmarks.peers.common import Message, announce, decode, encode, options

ROOMS: defaultdict[str, set[WebSocketConnection]] = defaultdict(set)


async def echo(request: WebSocketRequest) -> None:
    """Send every message back as it came."""
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(await connection.get_message())
    except ConnectionClosed:
        return


async def room(request: WebSocketRequest) -> None:
    """Typed JSON: members join, a message is decoded, encoded once and sent to each member."""
    connection = await request.accept()
    joined: set[str] = set()
    try:
        while True:
            message: Message = decode(await connection.get_message())
            payload = message["payload"]
            name = payload["room"]
            if message["type"] == "room.join":
                ROOMS[name].add(connection)
                joined.add(name)
            elif message["type"] == "chat.message":
                # send_message makes text frames of str alone.
                out = encode({"type": "chat.message", "room": name, "payload": payload}).decode()
                for member in tuple(ROOMS[name]):
                    await _send(member, out)
    except ConnectionClosed:
        return
    finally:
        for name in joined:
            ROOMS[name].discard(connection)


async def _send(member: WebSocketConnection, out: str) -> None:
    try:
        await member.send_message(out)
    except ConnectionClosed:
        return  # it leaves its rooms in its own task


async def main() -> None:
    """Serve one application until SIGTERM."""
    handler = room if ARGUMENTS.application == "room" else echo
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            # The default queue of one message makes the reader wait for the handler each time.
            serve = partial(serve_websocket, handler, "127.0.0.1", ARGUMENTS.port, None, message_queue_size=64)
            server: WebSocketServer = await nursery.start(serve)
            announce("trio-websocket", server.port)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


if __name__ == "__main__":
    ARGUMENTS = options("trio-websocket", ("echo", "room"), loops=False)
    trio.run(main)
