"""A log in memory that is full forgets the oldest entries of its biggest rooms: whose, how many, and at what cost."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from vixws_core.effects import StoreAppend
from vixws_core.inputs import RoomAdvanced, StoreAppended
from vixws_core.log import PureLog
from vixws_core.sizes import ENTRY_BYTES, KEY_BYTES, Forgetting, Sizes, size_of
from vixws_core.testing import World

from .harness import EPOCH, Harness

ENTRY = ENTRY_BYTES + len("chat") + 100
"""Bytes of an entry of `append`, without a key."""


def append(room: str, mid: str | None = None, size: int = 100) -> StoreAppend:
    return StoreAppend(1, room, "event", "chat", b"x" * size, mid, b"d" if mid else None)


def full(entries: int, *rooms: str) -> PureLog:
    """A log with room for so many entries, which has one of each of these rooms, in order."""
    log = PureLog("e", bytes_max=entries * ENTRY)
    for room in rooms:
        log.append_batch([append(room)], "")
    return log


def lines(act: Callable[[], object]) -> int:
    """Lines of the log that run while `act` does."""
    count = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if frame.f_code.co_filename.endswith(("vixws_core/log.py", "vixws_core/sizes.py")) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


# ---- sizes --------------------------------------------------------------------------------------


def test_one_of_the_biggest_is_found_whatever_was_added_and_taken() -> None:
    chance = random.Random(3)
    sizes, known = Sizes(), dict[str, int]()
    for _ in range(3_000):
        room = f"r{chance.randrange(20)}"
        size = chance.choice((1, 100, 5_000, -known.get(room, 0), -(known.get(room, 0) // 2)))
        known[room] = known.get(room, 0) + size
        sizes.add(room, size)

        assert sizes.total == sum(known.values())
        if sizes.total:
            name, of_name, least = sizes.biggest()
            assert of_name == known[name] >= least > max(known.values()) / 2 - 1
    for room, size in known.items():
        sizes.add(room, -size)

    assert (sizes.total, sizes._classes, sizes._sizes) == (0, {}, {})


# ---- forgetting ---------------------------------------------------------------------------------


def test_the_oldest_of_the_biggest_room_go_and_small_rooms_stay() -> None:
    log = full(20, "quiet", *["loud"] * 19)
    results = [log.append_batch([append("loud")], "") for _ in range(100)]

    assert all(isinstance(result.answers[0], StoreAppended) for result in results)
    assert all(isinstance(result.advanced[0], RoomAdvanced) for result in results)
    assert log.position("quiet").floor == 0
    position = log.position("loud")
    assert position.head == 119
    assert position.head - position.floor in (18, 19)
    assert position.id == f"{120:020d}"
    assert log.position("loud", position.floor).id_at == f"{position.floor + 1:020d}"


def test_room_after_room_gives_where_all_are_alike() -> None:
    log = full(10, *"abcdefghij")
    log.append_batch([append(room) for room in "klmn"], "")

    assert [room for room in log.rooms() if log.position(room).floor] == list("abcde")
    assert log.read("a", 0, 9).head == 1


def test_a_batch_and_an_entry_larger_than_the_log_are_stored_and_told() -> None:
    log = full(4)
    result = log.append_batch([append("r", size=200_000) for _ in range(3)], "")

    assert [answer.off for answer in result.answers if isinstance(answer, StoreAppended)] == [1, 2, 3]
    assert [len(advanced.entries) for advanced in result.advanced] == [3]
    assert (log.position("r").floor, log.position("r").head) == (3, 3)
    (after,) = log.append_batch([append("r")], "").answers
    assert isinstance(after, StoreAppended)
    assert after.off == 4


def test_keys_of_forgotten_entries_go_with_them() -> None:
    log = PureLog("e", bytes_max=10 * (ENTRY + KEY_BYTES + 3))
    for number in range(200):
        log.append_batch([append("r", f"m{number % 100:02d}")], "")
    (known,) = log.append_batch([append("r", "m99")], "").answers
    (gone,) = log.append_batch([append("r", "m50")], "").answers

    assert isinstance(known, StoreAppended) and isinstance(gone, StoreAppended)
    assert (known.dup, gone.dup) == (True, False)
    assert len(log._rooms["r"].keys) == len(log._rooms["r"].rows) < 10


def test_what_is_trimmed_by_hand_makes_room_too() -> None:
    log = full(10, *["r"] * 10)
    log.trim("r", 9)
    log.append_batch([append("s") for _ in range(9)], "")

    assert (log.position("r").floor, log.position("s").floor) == (9, 0)


def test_what_went_is_told_by_count() -> None:
    told: list[int] = []
    log = PureLog("e", bytes_max=10 * ENTRY, forgot=told.append)
    for _ in range(30):
        log.append_batch([append("r")], "")

    assert sum(told) == log.position("r").floor > 0


def test_without_a_bound_nothing_is_forgotten_and_nothing_counted() -> None:
    log = PureLog("e")
    log.append_batch([append("r", size=100_000) for _ in range(2_000)], "")

    assert (log.position("r").floor, log._sizes.total) == (0, 0)
    assert World(seed=1)._store.log.bytes_max is None


# ---- costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True])
def test_an_append_to_a_full_log_costs_the_same_whatever_it_holds(keyed: bool) -> None:
    costs = []
    for rooms in (400, 4_000):
        log = PureLog("e", bytes_max=2 * rooms * ENTRY)
        mids = iter(range(10**6))

        def one(log: PureLog = log, mids: Any = mids, rooms: int = rooms) -> None:
            number = next(mids)
            log.append_batch([append(f"r{number % rooms}", f"{number}" if keyed else None)], "")

        for _ in range(2 * rooms + 500):
            one()
        costs.append(lines(lambda one=one: [one() for _ in range(1_000)]) / 1_000)  # type: ignore[misc]

    assert max(costs) < 1.1 * min(costs) < 130


@pytest.mark.parametrize("size", [2, 1_000])
@pytest.mark.parametrize("keyed", [False, True])
def test_the_memory_taken_is_about_the_bound(size: int, keyed: bool) -> None:
    tracemalloc.start()
    try:
        log = PureLog("e", bytes_max=4 << 20)
        for number in range(20_000):
            mid = f"m{number:020d}" if keyed else None
            ask = StoreAppend(1, f"room{number % 7}", "event", "chat", bytes(size), mid, bytes(16) if keyed else None)
            log.append_batch([ask], f"2026-01-01T00:00:00.{number % 1000:03d}Z")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.6 * (4 << 20) < taken < 1.35 * (4 << 20)


# ---- what members see ---------------------------------------------------------------------------


def test_who_reads_behind_is_told_of_the_gap_and_a_join_that_it_was_trimmed() -> None:
    harness = Harness(log=PureLog(EPOCH, bytes_max=10 * (ENTRY_BYTES + 150)))
    reader, publisher = harness.client(), harness.client()
    for _ in range(50):
        publisher.publish("africa", "x" * 100, ref="p")
    floor = harness.log.position("africa").floor
    told = reader.join("africa", since={"ep": EPOCH, "off": 3}, on_fail="floor")

    assert floor > 35
    assert [m["type"] for m in publisher.messages()] == ["$ack"] * 50
    assert told[0]["payload"]["reason"] == "trimmed"
    assert [m["off"] for m in told if "off" in m] == list(range(floor + 1, 51))


# ---- telling ------------------------------------------------------------------------------------


def test_it_is_told_once_a_minute_at_most_and_nothing_is_left_out() -> None:
    now, told = [0.0], list[int]()
    forgetting = Forgetting(told.append, lambda: now[0])
    for _ in range(1_000):
        now[0] += 0.1
        forgetting.add(3)
    forgetting.tell_rest()
    forgetting.tell_rest()

    assert len(told) == 3
    assert told[0] == 3
    assert sum(told) == 3_000


def test_a_size_grows_with_what_a_client_chooses() -> None:
    log = full(100)
    log.append_batch([append("r"), append("r", "m" * 64)], "")
    plain, keyed = log.read("r", 0, 9).rows

    assert size_of(plain) == ENTRY
    assert size_of(keyed) == ENTRY + KEY_BYTES + 64
