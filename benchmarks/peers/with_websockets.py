"""The benchmark applications on `websockets` (asyncio): `broadcast` to rooms, no compression, no pings."""

from __future__ import annotations

from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosedError

from benchmarks.peers.common import Message, announce, decode, encode, options, run, stop_event
from benchmarks.peers.sqlite_log import SqliteLog, envelope

Rooms = defaultdict[str, set[ServerConnection]]


async def echo(connection: ServerConnection) -> None:
    """Send every message back as it came."""
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosedError:
        return  # the load client goes without a close frame when it is done


class Room:
    """Typed JSON: members join, a message is decoded, encoded once and broadcast."""

    def __init__(self) -> None:
        """Start without rooms."""
        self._rooms: Rooms = defaultdict(set)

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it closes."""
        joined: set[str] = set()
        try:
            async for text in connection:
                message: Message = decode(text)
                payload = message["payload"]
                room = payload["room"]
                if message["type"] == "room.join":
                    self._rooms[room].add(connection)
                    joined.add(room)
                elif message["type"] == "chat.message":
                    out = encode({"type": "chat.message", "room": room, "payload": payload})
                    broadcast(self._rooms[room], out, text=True)
        except ConnectionClosedError:
            return
        finally:
            for room in joined:
                self._rooms[room].discard(connection)


class Publish:
    """Durable rooms: each publish is committed, then answered, then broadcast."""

    def __init__(self, log: SqliteLog) -> None:
        """Publish into a log."""
        self._log = log
        self._rooms: Rooms = defaultdict(set)

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it closes; its messages are handled one after another."""
        joined: set[str] = set()
        try:
            async for text in connection:
                message: Message = decode(text)
                room = message["room"]
                if message["type"] == "$join":
                    joined.add(room)
                    await self._join(connection, room, message)
                elif message["type"] == "$position":
                    epoch, head = self._log.position(room)
                    answer = {"ep": epoch, "head": head, "floor": 0}
                    await connection.send(
                        encode({"type": "$position", "ref": message["ref"], "room": room, "payload": answer}), text=True
                    )
                else:
                    await self._publish(connection, room, message)
        except ConnectionClosedError:
            return
        finally:
            for room in joined:
                self._rooms[room].discard(connection)

    async def _publish(self, connection: ServerConnection, room: str, message: Message) -> None:
        payload = encode(message["payload"]).decode()
        off, number = await self._log.append(room, message["type"], payload)
        answer = {"off": off, "id": f"{number:020}"}
        await connection.send(
            encode({"type": "$ack", "ref": message["ref"], "room": room, "payload": answer}), text=True
        )
        if members := self._rooms[room]:
            broadcast(members, envelope(room, off, number, message["type"], payload))

    async def _join(self, connection: ServerConnection, room: str, message: Message) -> None:
        epoch, head = self._log.position(room)
        since = message.get("payload", {}).get("since")
        start = head if since is None else since["off"]
        answer = {"ep": epoch, "from": start, "head": head, "floor": 0, "recovered": True, "stored": True}
        await connection.send(
            encode({"type": "$joined", "ref": message["ref"], "room": room, "payload": answer}), text=True
        )
        if start < head:
            async for off, out in self._log.read(room, start):
                await connection.send(out)
                start = off
        self._rooms[room].add(connection)
        await connection.send(encode({"type": "$live", "room": room, "payload": {"off": start}}), text=True)


async def main() -> None:
    """Serve one application until SIGTERM."""
    stopped = stop_event()
    log: SqliteLog | None = None
    handler = echo
    if ARGUMENTS.application == "room":
        handler = Room().handle
    elif ARGUMENTS.application == "publish":
        log = await SqliteLog.open(ARGUMENTS.store, ARGUMENTS.fill)
        handler = Publish(log).handle
    async with serve(handler, "127.0.0.1", ARGUMENTS.port, compression=None, ping_interval=None) as server:
        announce("websockets", server.sockets[0].getsockname()[1])
        await stopped.wait()
    if log is not None:
        await log.close()


if __name__ == "__main__":
    ARGUMENTS = options("websockets", ("echo", "room", "publish"))
    run(main(), ARGUMENTS.uvloop)
