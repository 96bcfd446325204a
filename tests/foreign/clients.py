"""Other people's clients in Python: each carries out a story."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .story import Act, Story

__all__ = ["CLIENTS", "tell"]

Do: TypeAlias = Callable[[str, str], Awaitable[str | bytes | None]]
"""Carries out one act: its name and the text to send; returns what came."""

PATIENCE_S = 20.0


async def tell(story: Story, do: Do) -> None:
    """Tells a story to its end."""
    act: Act = next(story)
    try:
        while True:
            found = await do(*act)
            act = story.send(found if isinstance(found, str) else "")
    except StopIteration:
        return


def with_websockets(story: Story, url: str) -> None:
    """`websockets`, on asyncio."""
    from websockets.asyncio.client import ClientConnection, connect

    found: list[ClientConnection] = []

    async def do(act: str, text: str) -> str | bytes | None:
        if act == "open":
            found[:] = [await connect(url, proxy=None)]
        elif act == "send":
            await found[0].send(text)
        elif act == "receive":
            return await found[0].recv()
        else:
            await found[0].close()
        return None

    asyncio.run(asyncio.wait_for(tell(story, do), PATIENCE_S))


def with_aiohttp(story: Story, url: str) -> None:
    """`aiohttp`."""
    from aiohttp import ClientSession, ClientWebSocketResponse

    async def main() -> None:
        async with ClientSession() as session:
            found: list[ClientWebSocketResponse] = []

            async def do(act: str, text: str) -> str | None:
                if act == "open":
                    found[:] = [await session.ws_connect(url)]
                elif act == "send":
                    await found[0].send_str(text)
                elif act == "receive":
                    return await found[0].receive_str()
                else:
                    await found[0].close()
                    assert found[0].close_code == 1000
                return None

            await tell(story, do)

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def with_websocket_client(story: Story, url: str) -> None:
    """`websocket-client`, which blocks."""
    import websocket

    found: list[Any] = []

    async def do(act: str, text: str) -> str | bytes | None:
        if act == "open":
            found[:] = [websocket.create_connection(url, timeout=PATIENCE_S)]
        elif act == "send":
            found[0].send(text)
        elif act == "receive":
            got: str | bytes = found[0].recv()
            return got
        else:
            found[0].close()
        return None

    asyncio.run(tell(story, do))


def with_trio_websocket(story: Story, url: str) -> None:
    """`trio-websocket`, on trio."""
    import trio
    from trio_websocket import WebSocketConnection, connect_websocket_url

    async def main() -> None:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                found: list[WebSocketConnection] = []

                async def do(act: str, text: str) -> str | bytes | None:
                    if act == "open":
                        found[:] = [await connect_websocket_url(nursery, url)]
                    elif act == "send":
                        await found[0].send_message(text)
                    elif act == "receive":
                        got: str | bytes = await found[0].get_message()
                        return got
                    else:
                        await found[0].aclose()
                    return None

                await tell(story, do)

    trio.run(main)


def with_picows(story: Story, url: str) -> None:
    """`picows`, whose frames come by callback."""
    from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    texts: asyncio.Queue[str] = asyncio.Queue()

    class Listener(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                texts.put_nowait(frame.get_payload_as_utf8_text())
            elif frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()

    found: list[WSTransport] = []

    async def do(act: str, text: str) -> str | None:
        if act == "open":
            found[:] = [(await ws_connect(Listener, url))[0]]
        elif act == "send":
            found[0].send(WSMsgType.TEXT, text.encode())
        elif act == "receive":
            return await texts.get()
        else:
            found[0].send_close(WSCloseCode.OK)
            await found[0].wait_disconnected()
        return None

    asyncio.run(asyncio.wait_for(tell(story, do), PATIENCE_S))


def with_tornado(story: Story, url: str) -> None:
    """`tornado`."""
    from tornado.websocket import WebSocketClientConnection, websocket_connect

    found: list[WebSocketClientConnection] = []

    async def do(act: str, text: str) -> str | bytes | None:
        if act == "open":
            found[:] = [await websocket_connect(url)]
        elif act == "send":
            await found[0].write_message(text)
        elif act == "receive":
            return await found[0].read_message()
        else:
            found[0].close(1000)
            assert await found[0].read_message() is None and found[0].close_code == 1000
        return None

    asyncio.run(asyncio.wait_for(tell(story, do), PATIENCE_S))


CLIENTS: dict[str, tuple[str, Callable[[Story, str], None]]] = {
    "websockets": ("websockets", with_websockets),
    "aiohttp": ("aiohttp", with_aiohttp),
    "websocket-client": ("websocket", with_websocket_client),
    "trio-websocket": ("trio_websocket", with_trio_websocket),
    "picows": ("picows", with_picows),
    "tornado": ("tornado", with_tornado),
}
"""By the name of their distribution: the module to import, and who tells a story with it."""
