"""What the peers share: their command line, their ready line, and ending at SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

import msgspec

__all__ = ["Message", "Options", "announce", "decode", "encode", "options", "run", "stop_event"]

Message = dict[str, Any]
"""One decoded JSON object."""

decode = msgspec.json.Decoder(Message).decode
encode = msgspec.json.Encoder().encode


class Options(argparse.Namespace):
    """The parsed command line of a peer."""

    application: str
    port: int
    uvloop: bool
    store: str
    fill: int


def options(library: str, applications: tuple[str, ...], loops: bool = True) -> Options:
    """Parse a peer's command line; wrong usage ends the process with status 2."""
    parser = argparse.ArgumentParser(description=f"A benchmark application on {library}.")
    parser.add_argument("application", choices=applications)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: any free one)")
    parser.add_argument("--store", default="", help="SQLite file of publish")
    parser.add_argument("--fill", type=int, default=0, help="messages put into room r0 before listening")
    if loops:
        parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    found = parser.parse_args(namespace=Options())
    if found.application == "publish" and not found.store:
        parser.error("publish needs --store FILE")
    return found


def announce(library: str, port: int) -> None:
    """Say on stdout that the server listens."""
    print(f"{library} ready ws=ws://127.0.0.1:{port}/ pid={os.getpid()}", flush=True)


def run(main: Coroutine[Any, Any, None], uvloop: bool) -> None:
    """Run an asyncio program, on uvloop where that is asked."""
    if uvloop:
        import uvloop as library

        library.run(main)
    else:
        asyncio.run(main)


def stop_event() -> asyncio.Event:
    """An event of the running asyncio loop that SIGTERM and SIGINT set from now on; made before `announce`."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped
