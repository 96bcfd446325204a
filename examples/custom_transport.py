"""The hub on plain `selectors`: it repeats everything to everybody, without asyncio, trio or anyio."""

import selectors
import socket
from itertools import count
from time import monotonic

from vixws_core import Hub, Pump, effects, inputs

listener = socket.create_server(("127.0.0.1", 9090))
socks: dict[int, socket.socket] = {}
numbers = count(1)


def repeat(told: effects.Opened | effects.MessageReceived) -> None:
    for message in told.messages if isinstance(told, effects.MessageReceived) else ():
        pump.do(inputs.SendToAll(str(message).encode()))
    pump.put(inputs.HandlerFinished(told.conn))


class Shell:
    def see(self, now: float, input: object, asked: list[effects.Effect]) -> None:
        for effect in asked:
            if isinstance(effect, effects.SendBytes | effects.Broadcast):
                for conn in effect.conns if isinstance(effect, effects.Broadcast) else (effect.conn,):
                    socks[conn].sendall(effect.data)
                    pump.put(inputs.BytesFlushed(((conn, len(effect.data)),)))
            elif isinstance(effect, effects.CloseTransport):
                socks.pop(effect.conn).close()
                pump.put(inputs.Disconnected(effect.conn))


calls = {effects.Requested: lambda told: pump.do(inputs.Accept(told.conn, typed=False)), effects.Opened: repeat}
pump: Pump[inputs.Input, effects.Effect] = Pump(Hub(), monotonic, [Shell()], calls | {effects.MessageReceived: repeat})
while True:
    with selectors.DefaultSelector() as selector:
        for conn, sock in [(0, listener), *socks.items()]:
            selector.register(sock, selectors.EVENT_READ, conn)
        deadline = pump.door.next_deadline()
        ready = selector.select(None if deadline is None else max(0.0, deadline - monotonic()))
    for conn in [key.data for key, _ in ready]:
        if conn == 0:
            socks[number := next(numbers)] = listener.accept()[0]
            pump.put(inputs.Connected(number))
        elif conn in socks and (data := socks[conn].recv(65_536)):
            pump.put(inputs.BytesReceived(conn, data))
        elif socks.pop(conn, None):
            pump.put(inputs.Disconnected(conn))
    pump.put(inputs.TimePassed())
