"""The benchmark applications on `picows` (asyncio, Cython): listeners and direct sends, no pings."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_create_server,  # pyright: ignore[reportUnknownVariableType]  # its **kwargs are untyped
)

from benchmarks.peers.common import Message, announce, decode, encode, options, run, stop_event
from benchmarks.peers.sqlite_log import SqliteLog, envelope

ROOMS: defaultdict[str, set[WSTransport]] = defaultdict(set)
DATA = (WSMsgType.TEXT, WSMsgType.BINARY)


class Listener(WSListener):
    """Answers a close frame, as picows leaves that to its user, and keeps the rooms of one connection."""

    def __init__(self) -> None:
        """Start in no room."""
        self.joined: set[str] = set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand data on; answer a close. The load client sends no fragments."""
        if frame.msg_type in DATA:
            self.on_data(transport, frame)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send the message back as it came."""
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    def join(self, transport: WSTransport, room: str) -> None:
        """Put this connection into a room."""
        ROOMS[room].add(transport)
        self.joined.add(room)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Leave all rooms."""
        for room in self.joined:
            ROOMS[room].discard(transport)


class RoomListener(Listener):
    """Typed JSON: members join, a message is decoded, encoded once and sent to each member."""

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one message."""
        message: Message = decode(frame.get_payload_as_memoryview())
        payload = message["payload"]
        room = payload["room"]
        if message["type"] == "room.join":
            self.join(transport, room)
        elif message["type"] == "chat.message":
            out = encode({"type": "chat.message", "room": room, "payload": payload})
            for member in ROOMS[room]:
                member.send(WSMsgType.TEXT, out)


class PublishListener(Listener):
    """Durable rooms: each publish is committed, then answered, then broadcast, in order of arrival."""

    def __init__(self, log: SqliteLog, tasks: set[asyncio.Task[None]]) -> None:
        """Publish into a log; `tasks` holds what is not done."""
        super().__init__()
        self._log = log
        self._tasks = tasks

    def on_data(self, transport: WSTransport, frame: WSFrame) -> None:
        """Start handling one message; the log's one thread keeps the order."""
        task = asyncio.ensure_future(self._handle(transport, decode(frame.get_payload_as_memoryview())))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, transport: WSTransport, message: Message) -> None:
        room, ref, kind = message["room"], message["ref"], message["type"]
        if kind == "$join":
            self.join(transport, room)
            epoch, head = self._log.position(room)
            answer = {"ep": epoch, "from": head, "head": head, "floor": 0, "recovered": True, "stored": True}
            transport.send(WSMsgType.TEXT, encode({"type": "$joined", "ref": ref, "room": room, "payload": answer}))
            return
        payload = encode(message["payload"]).decode()
        off, number = await self._log.append(room, kind, payload)
        answer = {"off": off, "id": f"{number:020}"}
        transport.send(WSMsgType.TEXT, encode({"type": "$ack", "ref": ref, "room": room, "payload": answer}))
        if members := ROOMS[room]:
            out = envelope(room, off, number, kind, payload).encode()
            for member in members:
                member.send(WSMsgType.TEXT, out)


async def main() -> None:
    """Serve one application until SIGTERM."""
    stopped = stop_event()
    log = await SqliteLog.open(ARGUMENTS.store) if ARGUMENTS.application == "publish" else None
    tasks: set[asyncio.Task[None]] = set()

    def listener(_request: object) -> WSListener:
        if log is not None:
            return PublishListener(log, tasks)
        return RoomListener() if ARGUMENTS.application == "room" else Listener()

    server = await ws_create_server(listener, "127.0.0.1", ARGUMENTS.port, backlog=1024)
    announce("picows", server.sockets[0].getsockname()[1])
    await stopped.wait()
    server.close()
    if log is not None:
        await log.close()


if __name__ == "__main__":
    ARGUMENTS = options("picows", ("echo", "room", "publish"))
    run(main(), ARGUMENTS.uvloop)
