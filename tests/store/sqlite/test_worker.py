"""The worker behind a SQLite store: shared reads, bounded trips, and what happens when an answer is not taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from vixws_core.effects import FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.inputs import Input, StoreFailed, StoreListed, StoreRead, TimePassed
from vixws_core.log import Page
from vixws_store import Limits, SqliteMessageStore
from vixws_store.sqlite.database import Database
from vixws_store.sqlite.worker import READS_PER_TRIP_MAX, Worker

pytestmark = pytest.mark.anyio


class FakeDatabase:
    """Notes every trip and answers reads with empty pages."""

    path = "fake.db"

    def __init__(self) -> None:
        self.trips: list[Sequence[tuple[str, tuple[Any, ...]]]] = []

    async def read(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        self.trips.append(calls)
        await anyio.lowlevel.checkpoint()
        return [Page("e", 0, 0, ()) if name == "read" else [] for name, _ in calls]


async def run_reads(limits: Limits, asks: Sequence[ReadStore | ListStore]) -> tuple[FakeDatabase, list[Input]]:
    """Asks all at once, then lets the worker answer until nothing is left."""
    fake, posts = FakeDatabase(), list[Input]()
    worker = Worker(cast(Database, fake), lambda *inputs: posts.extend(inputs), limits)
    for ask in asks:
        worker.read(ask)
    worker.stop()
    await worker.answer_reads()
    return fake, posts


async def test_identical_reads_share_one() -> None:
    asks = [ReadStore(number, "room", 0, 9, 9, 999) for number in range(50)]
    fake, posts = await run_reads(Limits(), [*asks, ListStore(50, "room", 9)])

    assert fake.trips == [[("read", ("room", 0, 9, 9, 999, False)), ("list_by_room", ("room", 9, None))]]
    assert list(range(50)) == [post.request for post in posts if isinstance(post, StoreRead)]
    assert [post.request for post in posts if isinstance(post, StoreListed)] == [50]


async def test_one_trip_holds_a_bounded_number_of_reads() -> None:
    count = 2 * READS_PER_TRIP_MAX + 1
    fake, posts = await run_reads(Limits(), [ReadStore(n, f"room{n}", 0, 9, 9, 999) for n in range(count)])

    assert [len(trip) for trip in fake.trips] == [READS_PER_TRIP_MAX, READS_PER_TRIP_MAX, 1]
    assert list(range(count)) == [post.request for post in posts if isinstance(post, StoreRead)]


async def test_read_over_the_queue_is_refused_at_once() -> None:
    asks = [ReadStore(number, "room", number, 9, 9, 999) for number in range(4)]
    _, posts = await run_reads(Limits(queue_rows_max=3), asks)

    refused = posts[0]
    assert isinstance(refused, StoreFailed)
    assert (refused.request, refused.code, refused.retry) == (3, "store_unavailable", True)
    assert [post.request for post in posts if isinstance(post, StoreRead)] == [0, 1, 2]


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.consumer.see(0.0, TimePassed(), [StoreAppend(1, "r", "event", "t", b"{}")]),
        lambda store: store.consumer.see(0.0, TimePassed(), [FindPosition(1, "r")]),
        lambda store: store.consumer.see(0.0, TimePassed(), [ListStore(1, "r", 5)]),
    ],
    ids=["append", "position", "read"],
)
async def test_mistake_in_a_hub_ends_run_loudly(tmp_path: Path, act: Callable[[SqliteMessageStore], None]) -> None:
    def post(*inputs: Input) -> None:
        raise ZeroDivisionError("a mistake in the hub")

    store = SqliteMessageStore(tmp_path / "a.db")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with store.run(post):
            act(store)
            await anyio.sleep_forever()

    assert caught.value.subgroup(ZeroDivisionError) is not None
    async with SqliteMessageStore(tmp_path / "a.db").run():
        pass  # The file was closed and its lock is free.
