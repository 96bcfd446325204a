"""Tails: the newest frames of rooms, within their budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vixws_core.hub.rooms.tail import Tail, Tails


def filled(tails: Tails, count: int, size: int = 10, first: int = 1) -> Tail:
    tail = Tail()
    for off in range(first, first + count):
        tails.extend(tail, [(off, f"id {off}", b"x" * size)])
    return tail


def offsets(tail: Tail) -> list[int]:
    return [off for off, _, _ in tail.entries]


def test_empty_tail_covers_nothing() -> None:
    tail = Tail()

    assert not tail.covers(0)
    assert offsets(tail) == []


def test_tail_covers_a_cursor_whose_next_entry_it_has() -> None:
    tail = filled(Tails(100, 1_000), 5, first=4)

    assert [cursor for cursor in range(12) if tail.covers(cursor)] == [3, 4, 5, 6, 7]
    assert [off for off, _, _ in tail.after(5)] == [6, 7, 8]


def test_oldest_entries_go_over_the_budget_of_the_room() -> None:
    tails = Tails(35, 1_000)
    tail = filled(tails, 10)

    assert offsets(tail) == [8, 9, 10]
    assert (tail.size, tails.size) == (30, 30)


def test_frame_larger_than_the_budget_leaves_an_empty_tail() -> None:
    tails = Tails(35, 1_000)
    tail = filled(tails, 3)
    tails.extend(tail, [(4, "id 4", b"x" * 36)])

    assert (offsets(tail), tail.size, tails.size) == ([], 0, 0)
    tails.extend(tail, [(5, "id 5", b"x")])
    assert offsets(tail) == [5]


def test_tail_that_was_added_to_longest_ago_goes_first() -> None:
    tails = Tails(100, 100)
    old, middle = filled(tails, 4), filled(tails, 4)
    tails.extend(old, [(5, "id 5", b"x" * 10)])
    new = filled(tails, 3)

    assert offsets(middle) == []
    assert (len(offsets(old)), len(offsets(new)), tails.size) == (5, 3, 80)


def test_budget_smaller_than_one_frame_keeps_nothing() -> None:
    tails = Tails(100, 5)
    tail = filled(tails, 3)

    assert (offsets(tail), tails.size) == ([], 0)


def test_jump_in_the_offsets_begins_anew() -> None:
    tails = Tails(100, 1_000)
    tail = filled(tails, 3)
    tails.extend(tail, [(7, "id 7", b"y")])

    assert (offsets(tail), tails.size) == ([7], 1)


def test_cleared_tail_is_empty_and_may_be_cleared_again() -> None:
    tails = Tails(100, 1_000)
    tail = filled(tails, 3)
    tails.clear(tail)
    tails.clear(tail)

    assert (offsets(tail), tail.size, tails.size) == ([], 0, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 60), max_size=4)), max_size=60))
def test_tails_stay_within_both_budgets_and_count_right(moves: list[tuple[int, list[int]]]) -> None:
    tails = Tails(100, 150)
    rooms = [Tail() for _ in range(4)]
    heads = [0] * 4
    for room, sizes in moves:
        if not sizes:
            tails.clear(rooms[room])
            continue
        tails.extend(rooms[room], [(heads[room] + at, "", b"x" * size) for at, size in enumerate(sizes, 1)])
        heads[room] += len(sizes)

        assert tails.size == sum(tail.size for tail in rooms) <= 150
        for tail, head in zip(rooms, heads, strict=True):
            assert tail.size == sum(len(frame) for _, _, frame in tail.entries) <= 100
            assert offsets(tail) == list(range(head - len(tail.entries) + 1, head + 1))
