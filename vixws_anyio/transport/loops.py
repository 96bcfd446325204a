"""Which event loop is running, and the driver that goes with it."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager

from .driver import Driver
from .interface import Gate

__all__ = ["driver_for"]


def driver_for(gate: Gate, flush_s: float, unsent_bytes_kernel: int) -> AbstractAsyncContextManager[Driver]:
    """The driver of the loop that is running: trio's, or asyncio's. trio is imported only where it runs."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        from .on_trio import trio_driver

        return trio_driver(gate, flush_s, unsent_bytes_kernel)
    from .on_asyncio import asyncio_driver

    return asyncio_driver(gate, flush_s, unsent_bytes_kernel)
