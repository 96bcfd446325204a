"""The memory store: its bound, and what it shares with the pure executor."""

from __future__ import annotations

import pytest

from vixws_core.errors import LocalError, StoreError
from vixws_store import MemoryMessageStore

pytestmark = pytest.mark.anyio


@pytest.mark.threat(24)
async def test_full_memory_refuses_until_trimmed() -> None:
    store = MemoryMessageStore(bytes_max=100)
    async with store.run():
        for _ in range(2):
            await store.append("event", "room", "note", {"text": "x" * 30})
        with pytest.raises(StoreError) as caught:
            await store.append("event", "other", "note", {"text": "x" * 30})
        assert (caught.value.code, caught.value.retry) == ("store_full", True)
        assert (await store.position("other")).head == 0

        await store.trim("room", 1)
        await store.append("event", "other", "note", {"text": "x" * 30})

        assert (await store.position("other")).head == 1


async def test_log_outlives_run() -> None:
    store = MemoryMessageStore()
    async with store.run():
        await store.append("event", "room", "note", {})
        with pytest.raises(LocalError, match="runs already"):
            async with store.run():
                pass
    async with store.run():
        assert (await store.position("room")).head == 1
