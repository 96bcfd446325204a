"""The memory store: its bound, and what it shares with the pure executor."""

from __future__ import annotations

import pytest

from vixws_core.errors import LocalError
from vixws_store import MemoryMessageStore

pytestmark = pytest.mark.anyio


@pytest.mark.threat(24)
async def test_full_memory_forgets_the_oldest_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryMessageStore(bytes_max=100_000)
    async with store.run():
        await store.append("event", "quiet", "note", {})
        for number in range(1_000):
            await store.append("event", "loud", "note", {"number": number})
        quiet, loud = await store.position("quiet"), await store.position("loud")
        page = await store.read("loud", 0, 1 << 62)
    told = [int(word) for line in caplog.messages for word in line.split() if word.isdigit()]

    assert (quiet.floor, quiet.head, loud.head) == (0, 1, 1_000)
    assert loud.floor > 700
    assert (page.floor, page.rows[0].off, page.rows[-1].off) == (loud.floor, loud.floor + 1, 1_000)
    assert len(caplog.messages) == 2
    assert sum(told[1::2]) == loud.floor


async def test_log_outlives_run() -> None:
    store = MemoryMessageStore()
    async with store.run():
        await store.append("event", "room", "note", {})
        with pytest.raises(LocalError, match="runs already"):
            async with store.run():
                pass
    async with store.run():
        assert (await store.position("room")).head == 1
