"""What waits for the writer: whose turn it is, and how much goes into one transaction."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from vixws_core.effects import StoreAppend
from vixws_store.sqlite.limits import Limits
from vixws_store.sqlite.queue import BEHIND_OTHERS_MAX, Alone, AppendQueue, Item


def append(number: int, scope: str = "", size: int = 2) -> StoreAppend:
    return StoreAppend(number, "africa", "event", "note", b"1" * size, scope=scope)


def numbers(items: Iterable[Item]) -> list[int]:
    return [item.request for item in items if isinstance(item, StoreAppend)]


@pytest.fixture
def queue() -> AppendQueue:
    return AppendQueue(Limits(batch_rows_max=4, batch_bytes_max=1_000))


def drained(queue: AppendQueue) -> list[list[int]]:
    batches = []
    while queue:
        items = queue.take()
        batches.append(numbers(items))
        queue.settled(items)
    return batches


def test_a_sender_with_many_appends_keeps_nobody_else_waiting(queue: AppendQueue) -> None:
    for number in range(12):
        queue.put(append(number, "flood"))
    queue.put(append(100, "ada"))
    queue.put(append(101, "bob"))
    queue.put(append(102, "ada"))

    batches = drained(queue)

    assert {100, 101, 102} <= set(batches[0] + batches[1])
    assert [number for batch in batches for number in batch if number < 100] == list(range(12))
    assert max(map(len, batches)) == 4


def test_a_commit_that_others_wait_for_is_short() -> None:
    queue = AppendQueue(Limits(batch_rows_max=256))
    for number in range(1_000):
        queue.put(append(number, "flood"))
    queue.put(append(2_000, "ada"))
    first, second = queue.take(), queue.take()

    assert (len(first), len(second)) == (BEHIND_OTHERS_MAX + 2, 256)
    assert 2_000 in numbers(first)


def test_each_senders_appends_stay_in_order_and_the_turn_goes_on_with_the_next_batch(queue: AppendQueue) -> None:
    scopes = [f"user{number}" for number in range(6)]
    for number in range(18):
        queue.put(append(number, scopes[number % 6]))

    batches = drained(queue)

    assert [sorted(number % 6 for number in batch) for batch in batches[:3]] == [
        [0, 1, 2, 3],
        [0, 1, 4, 5],
        [2, 3, 4, 5],
    ]
    for scope in range(6):
        mine = [number for batch in batches for number in batch if number % 6 == scope]
        assert mine == sorted(mine)


def test_what_goes_alone_goes_behind_all_before_it_and_before_all_after_it(queue: AppendQueue) -> None:
    alone = Alone(1, 10, print, (), None)
    for number in range(6):
        queue.put(append(number, "flood"))
    queue.put(alone)
    queue.put(append(7, "ada"))

    taken = [queue.take() for _ in range(4)]

    assert [numbers(items) for items in taken] == [[0, 1, 2, 3], [4, 5], [], [7]]
    assert taken[2] == [alone]
    assert not queue
    assert (queue.rows, queue.size) == (8, 7 * 2 + 10)
    for items in taken:
        queue.settled(items)
    assert (queue.rows, queue.size) == (0, 0)


def test_what_is_put_back_goes_first(queue: AppendQueue) -> None:
    for number in range(8):
        queue.put(append(number, "flood" if number % 2 else "ada"))
    first = queue.take()
    queue.put_back(first)
    queue.put(append(9, "bob"))

    again = queue.take()

    assert sorted(numbers(again)) == sorted(numbers(first)) == [0, 1, 2, 3]
    queue.settled(again)
    assert len(drained(queue)) == 2
    assert (queue.rows, queue.size) == (0, 0)


def test_one_batch_holds_so_many_bytes_and_one_append_of_any_size(queue: AppendQueue) -> None:
    for number, size in enumerate((600, 600, 300, 5_000, 100)):
        queue.put(append(number, str(number), size))

    assert drained(queue) == [[0], [1, 2], [3], [4]]


def test_taking_all_leaves_nothing(queue: AppendQueue) -> None:
    for number in range(9):
        queue.put(append(number, str(number % 2)))
    queue.put(Alone(2, 20, print, (), None))

    assert sorted(numbers(queue.take_all())) == list(range(9))
    assert not queue
    assert (queue.rows, queue.size) == (0, 0)
