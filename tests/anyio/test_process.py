"""What `vixws serve` does to its own process: memory that is free is given back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vixws_anyio.cli.process import SWITCH_S, Keeper

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import anyio
import vixws_anyio.cli.process as process

settled = process.settle_process()
process._LOOK_S = 0.01
resident = process._resident_kib


async def main():
    async with process.memory_given_back():
        before = resident()
        kept = [bytes(4_000) for _ in range(10_000)]
        kept[:] = kept[::50]  # What stays lies between what goes.
        most = resident()
        for _ in range(500):
            await anyio.sleep(0.01)
            if resident() - before < (most - before) // 2:
                break
        print(settled, sys.getswitchinterval(), before, most, resident())


anyio.run(main)
"""


class Heap:
    """A process that has so many KiB, of which so many are used or free."""

    def __init__(self, used: int) -> None:
        self.used = used
        self.free = 0
        self.trims = 0
        self.keeper = Keeper(self.trim, lambda: self.used + self.free, lambda: self.used)

    def trim(self, _: int) -> None:
        self.trims += 1
        self.free = 0

    def take(self, size: int) -> None:
        """So much more is used, of what is free first."""
        self.used += size
        self.free = max(0, self.free - size)

    def let_go(self, size: int) -> None:
        """So much less is used, and stays."""
        self.used -= size
        self.free += size


def test_memory_is_given_back_where_it_has_grown_and_not_again_before_it_has() -> None:
    heap = Heap(100_000)
    for size in (4_000, 20_000):
        heap.take(size)
        heap.let_go(size)
        heap.keeper.look()
    assert (heap.trims, heap.free) == (1, 0)
    for _ in range(10):
        assert not heap.keeper.look()


def test_memory_that_becomes_free_without_growth_is_given_back() -> None:
    heap = Heap(100_000)
    heap.take(30_000)
    assert heap.keeper.look(), "it may be free, from outside nobody knows"
    heap.let_go(30_000)
    assert heap.keeper.look()

    assert (heap.trims, heap.used, heap.free) == (2, 100_000, 0)
    assert not heap.keeper.look()


def test_a_small_process_is_not_trimmed_for_every_page() -> None:
    heap = Heap(20_000)
    heap.take(2_000)
    assert not heap.keeper.look()
    heap.take(1_000)
    assert heap.keeper.look()


@pytest.mark.skipif(sys.platform != "linux", reason="what is given back is seen in /proc")
def test_a_process_gives_back_what_lies_between_what_stays() -> None:
    done = subprocess.run(
        (sys.executable, "-c", SCRIPT),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    settled, switch, before, most, after = done.stdout.split()
    if settled == "False":
        pytest.skip("the C library is not glibc")

    assert float(switch) == SWITCH_S
    assert int(most) - int(before) > 20_000
    assert int(after) - int(before) < (int(most) - int(before)) // 2
