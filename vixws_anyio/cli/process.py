"""What `vixws serve` does to its own process, which a program that embeds a server decides for itself."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

__all__ = ["SWITCH_S", "Keeper", "memory_given_back", "settle_process"]

SWITCH_S: Final = 0.001
"""How long a thread that computes (the store's, which decodes rows) may keep the loop waiting each time that it comes
back from the system: with Python's 5 ms a message to ten members, which are ten writes, may wait ten times as long."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Parameters of glibc's `mallopt` (malloc.h)."""

_LARGE_BYTES: Final = 262_144
"""What large buffers took is given back at once."""

_LOOK_S: Final = 10.0
_GROWN_KIB: Final = 2_048
_GROWN_PART: Final = 20
"""How often we look, and how much, and which part of all, must be free to be worth it."""

_STATM: Final = Path("/proc/self/statm")


def settle_process() -> bool:
    """Has threads give way sooner, and large buffers given back; False where only the former is known.

    glibc keeps what large buffers took once it has seen some of that size, and has a pool for each thread.
    """
    sys.setswitchinterval(SWITCH_S)
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_TRIM_THRESHOLD, 4 * _LARGE_BYTES), (_M_ARENA_MAX, 1))
    results = [bool(mallopt(name, value)) for name, value in settings]
    return all(results)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc's own; None where the C library is another one."""
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return found


def _resident_kib() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class _Mallinfo(ctypes.Structure):
    """What `mallinfo2` returns (malloc.h): bytes and counts."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def _used_kib() -> int:
    """What of glibc's heap is used; 0 where it does not say, before 2.33."""
    mallinfo = _of_glibc("mallinfo2")
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo  # type: ignore[attr-defined]  # A function of ctypes.
    found = mallinfo()
    assert isinstance(found, _Mallinfo)
    return int(found.uordblks) // 1024


class Keeper:
    """Has free memory given back where there may be enough of it.

    `trim(0)` gives it back; `resident` says how many KiB the process has, `used` how many of the heap's are used.
    """

    def __init__(self, trim: Callable[[int], object], resident: Callable[[], int], used: Callable[[], int]) -> None:
        self._trim = trim
        self._resident = resident
        self._used = used
        self._least = resident()
        """What the process had after the last time, or less."""
        self._most = used()
        """What of the heap was used then, or more."""

    def look(self) -> bool:
        """Gives back what is free, where that is worth it; it takes 0.3 ms a MiB, in a thread of its own.

        What was used in between shows in what the process has, what was used then and is not now in the heap's use.
        """
        resident, used = self._resident(), self._used()
        worth = max(_GROWN_KIB, self._least // _GROWN_PART)
        worth_it = resident - self._least > worth or self._most - used > worth
        if worth_it:
            self._trim(0)
            self._least, self._most = self._resident(), used
        else:
            self._least, self._most = min(self._least, resident), max(self._most, used)
        return worth_it


@asynccontextmanager
async def memory_given_back() -> AsyncGenerator[None]:
    """Inside the block the C library gives back what is free between what is used: glibc does not by itself.

    What the block raises comes out in a group.
    """
    trim = _of_glibc("malloc_trim")
    async with anyio.create_task_group() as tasks:
        if trim is not None and _STATM.exists():
            tasks.start_soon(_keep, Keeper(trim, _resident_kib, _used_kib))
        yield
        tasks.cancel_scope.cancel()


async def _keep(keeper: Keeper) -> None:
    one = anyio.CapacityLimiter(1)  # Ours, so that it takes no thread from handlers.
    while True:
        await anyio.sleep(_LOOK_S)
        await anyio.to_thread.run_sync(keeper.look, limiter=one)
