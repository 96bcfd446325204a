"""The client as Autobahn wants it: one connection for each case, on which every message is sent back."""

from __future__ import annotations

import anyio

from vixws_anyio import Client
from vixws_core.client import ClientConfig, ClientState

from .cases import FRAGMENTS_MAX, MESSAGE_BYTES_MAX

__all__ = ["echo_all"]

CONFIG = ClientConfig(message_bytes_max=MESSAGE_BYTES_MAX, fragments_max=FRAGMENTS_MAX, reconnect_first_s=3600.0)
"""One connection is one case: nothing comes back by itself, which would run the case again."""

SENDABLE = (ClientState.OPEN, ClientState.ENDING)

CASE_S = 30.0
"""Seconds for one case; each takes less than 5."""


async def echo_all(url: str, agent: str) -> None:
    """Runs all cases of the fuzzing server at `url`, and has it write its reports about `agent`.

    Raises: `TimeoutError` for a case that does not end.
    """
    told = await talk(f"{url}/getCaseCount", echo=False)
    for number in range(1, int(told[0]) + 1):
        await talk(f"{url}/runCase?case={number}&agent={agent}")
    await talk(f"{url}/updateReports?agent={agent}", echo=False)


async def talk(url: str, *, echo: bool = True) -> list[str | bytes]:
    """One connection, until the server ends it; returns its messages, which are sent back or kept."""
    kept: list[str | bytes] = []
    ended = anyio.Event()
    client = Client(url, hello=False, config=CONFIG)

    @client.on_message
    async def answer(client: Client, message: str | bytes) -> None:
        if not echo:
            kept.append(message)
        elif client.state not in SENDABLE:
            return  # The server closed behind this message; to send would wait for the next connection.
        elif isinstance(message, str):
            await client.send_text(message)
        else:
            await client.send_binary(message)

    @client.on_close
    def end(client: Client) -> None:
        ended.set()

    with anyio.move_on_after(CASE_S):
        async with client:
            await ended.wait()
        return kept
    raise TimeoutError(f"{url} did not end within {CASE_S:g} s")
