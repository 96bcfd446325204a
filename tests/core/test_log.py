"""The reference log: dense offsets, rising ids, unique keys, and what a store must answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vixws_core import LocalError
from vixws_core.effects import FindPosition, ListStore, ReadStore, SendBytes, StoreAppend
from vixws_core.inputs import (
    Input,
    PositionKnown,
    RoomAdvanced,
    StoreAppended,
    StoreFailed,
    StoreListed,
    StoreRead,
    TimePassed,
)
from vixws_core.log import (
    LogExecutor,
    Position,
    PureLog,
    StoreAsk,
    id_number,
    message_id,
    run_asks,
    store_asks,
)


def append(
    request: int = 1,
    room: str = "r",
    mid: str | None = None,
    digest: bytes | None = None,
    size: int = 2,
    scope: str = "",
) -> StoreAppend:
    return StoreAppend(request, room, "event", "chat", b"x" * size, mid, digest, scope, "ada")


def filled(count: int = 10, room: str = "r", trimmed: int = 0, size: int = 2) -> PureLog:
    log = PureLog("e")
    log.append_batch([append(number, room, size=size) for number in range(count)], "now")
    log.trim(room, trimmed)
    return log


def offsets(log: PureLog, *args: int, **more: Any) -> list[int]:
    return [row.off for row in log.read("r", args[0], args[1], **more).rows]


# ---- appending ------------------------------------------------------------------------------------------


def test_append_gives_offset_id_epoch_and_time() -> None:
    log = PureLog("e", last_id=41)
    result = log.append_batch([append(5, mid="m")], "now")
    (advanced,) = result.advanced
    (row,) = advanced.entries

    assert result.answers == (StoreAppended(5, "e", 1, message_id(42)),)
    assert (advanced.room, advanced.ep, advanced.head) == ("r", "e", 1)
    assert (row.id, row.kind, row.room, row.type, row.ts, row.payload_json, row.ep, row.off, row.mid, row.sender) == (
        message_id(42), "event", "r", "chat", "now", b"xx", "e", 1, "m", "ada",
    )  # fmt: skip


def test_offsets_are_dense_per_room_and_ids_rise_over_all() -> None:
    log = PureLog("e")
    rooms = ["a", "b", "a", "a", "b"]
    result = log.append_batch([append(number, room) for number, room in enumerate(rooms)], "now")
    answers = [answer for answer in result.answers if isinstance(answer, StoreAppended)]

    assert [answer.off for answer in answers] == [1, 1, 2, 3, 2]
    assert [answer.id for answer in answers] == [message_id(number) for number in range(1, 6)]
    assert [(told.room, told.head, len(told.entries)) for told in result.advanced] == [("a", 3, 3), ("b", 2, 2)]
    assert log.rooms() == ["a", "b"]


def test_empty_batch_is_nothing() -> None:
    result = PureLog("e").append_batch([], "now")

    assert (result.advanced, result.answers) == ((), ())


def test_repeat_is_a_dup_and_advances_nothing() -> None:
    log = PureLog("e")
    first = log.append_batch([append(1, mid="m", digest=b"d"), append(2, mid="m", digest=b"d")], "now")
    second = log.append_batch([append(3, mid="m", digest=b"d")], "later")

    assert [(a.off, a.dup) for a in first.answers if isinstance(a, StoreAppended)] == [(1, False), (1, True)]
    assert len(first.advanced[0].entries) == 1
    assert second.advanced == ()
    assert second.answers == (StoreAppended(3, "e", 1, message_id(1), True),)


def test_repeat_with_another_content_is_a_conflict() -> None:
    log = PureLog("e")
    log.append_batch([append(1, mid="m", digest=b"d")], "now")
    (answer,) = log.append_batch([append(2, mid="m", digest=b"other")], "now").answers

    assert isinstance(answer, StoreFailed)
    assert (answer.request, answer.code, answer.retry) == (2, "mid_conflict", False)
    assert log.position("r").head == 1


def test_key_is_room_scope_and_mid() -> None:
    log = PureLog("e")
    asks = [append(1, mid="m"), append(2, "s", mid="m"), append(3, mid="n"), append(4, mid="m", scope="bob")]
    answers = log.append_batch(asks, "now").answers

    assert [isinstance(answer, StoreAppended) and not answer.dup for answer in answers] == [True] * 4


def test_key_lives_as_long_as_its_message() -> None:
    log = PureLog("e")
    log.append_batch([append(1, mid="m"), append(2, mid="n")], "now")
    log.trim("r", 1)
    again, known = log.append_batch([append(3, mid="m"), append(4, mid="n")], "now").answers

    assert isinstance(again, StoreAppended)
    assert isinstance(known, StoreAppended)
    assert (again.off, again.dup) == (3, False)
    assert (known.off, known.dup) == (2, True)


# ---- reading --------------------------------------------------------------------------------------------


def test_read_gives_what_lies_between() -> None:
    log = filled(10, trimmed=2)

    assert offsets(log, 0, 1 << 53) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert offsets(log, 4, 6) == [5, 6]
    assert offsets(log, 6, 4) == []
    assert offsets(log, 10, 20) == []
    assert offsets(log, 0, 2) == []
    assert offsets(log, 1 << 53, 1 << 53) == []


def test_read_is_bounded_in_rows_and_bytes_and_never_empty_where_a_row_exists() -> None:
    log = filled(10, size=100)

    assert offsets(log, 0, 10, rows_max=3) == [1, 2, 3]
    assert offsets(log, 0, 10, bytes_max=250) == [1, 2]
    assert offsets(log, 0, 10, bytes_max=200) == [1, 2]
    assert offsets(log, 0, 10, bytes_max=1) == [1]
    assert offsets(log, 0, 10, rows_max=0) == []


def test_read_newest_first_is_bounded_from_the_other_end() -> None:
    log = filled(10, size=100)

    assert offsets(log, 0, 10, rows_max=3, newest_first=True) == [10, 9, 8]
    assert offsets(log, 0, 6, bytes_max=250, newest_first=True) == [6, 5]
    assert offsets(log, 4, 6, newest_first=True) == [6, 5]


def test_read_of_an_unknown_room_is_empty_and_makes_none() -> None:
    log = filled()
    page = log.read("other", 0, 10)

    assert (page.ep, page.floor, page.head, page.rows) == ("e", 0, 0, ())
    assert log.position("other", 5) == Position("e", 0, 0, "")
    assert log.rooms() == ["r"]


def test_position_tells_the_head_and_the_id_at_an_offset() -> None:
    log = filled(5, trimmed=2)

    assert log.position("r") == Position("e", 2, 5, message_id(5), None, message_id(2))
    assert {off: log.position("r", off).id_at for off in range(7)} == {
        0: None,
        1: None,
        2: message_id(2),  # The floor keeps its id.
        3: message_id(3),
        4: message_id(4),
        5: message_id(5),
        6: None,
    }


def test_room_trimmed_to_its_head_keeps_its_place() -> None:
    log = filled(3, trimmed=3)
    position = log.position("r", 3)
    log.append_batch([append()], "now")

    assert position == Position("e", 3, 3, message_id(3), message_id(3), message_id(3))
    assert offsets(log, 0, 10) == [4]


@pytest.mark.parametrize(("upto", "count"), [(0, 0), (-5, 0), (3, 3), (10, 10), (99, 10)])
def test_trim_forgets_up_to_an_offset_and_counts(upto: int, count: int) -> None:
    log = filled(10)

    assert log.trim("r", upto) == count
    assert log.trim("r", upto) == 0
    assert log.position("r").floor == count
    assert log.trim("unknown", 5) == 0


def test_list_by_room_gives_the_newest_oldest_first() -> None:
    log = filled(5)

    assert [row.off for row in log.list_by_room("r", 2)] == [4, 5]
    assert [row.off for row in log.list_by_room("r", 99)] == [1, 2, 3, 4, 5]
    assert [row.off for row in log.list_by_room("r", 2, message_id(4))] == [2, 3]
    assert [row.off for row in log.list_by_room("r", 2, "4")] == [2, 3]
    assert log.list_by_room("r", 2, message_id(1)) == []
    assert [log.list_by_room("r", limit) for limit in (0, -1)] == [[], []]
    assert log.list_by_room("unknown", 5) == []


def test_replay_goes_over_all_rooms_in_order_of_ids() -> None:
    log = PureLog("e")
    log.append_batch([append(number, "ab"[number % 2]) for number in range(6)], "now")

    assert [row.id for row in log.replay_from("")] == [message_id(number) for number in range(1, 7)]
    assert [row.id for row in log.replay_from("4")] == [message_id(5), message_id(6)]
    assert [row.id for row in log.replay_from(message_id(2), 2)] == [message_id(3), message_id(4)]
    assert log.replay_from(message_id(6)) == []


@pytest.mark.parametrize("text", ["", "x", "-1", "+1", "1_0", "1" * 21, " 1", "\u0661", 5, None], ids=repr)
def test_what_is_no_id_is_the_callers_fault(text: str) -> None:
    with pytest.raises(LocalError, match="message id"):
        id_number(text)


def test_ids_have_twenty_digits_and_sort_as_numbers() -> None:
    assert message_id(7) == "0" * 19 + "7"
    assert id_number(message_id(1 << 62)) == 1 << 62
    assert sorted([message_id(10), message_id(9)]) == [message_id(9), message_id(10)]


def test_replay_and_list_refuse_what_is_no_id() -> None:
    log = filled()
    with pytest.raises(LocalError):
        log.replay_from("x")
    with pytest.raises(LocalError):
        log.list_by_room("r", 5, "x")


# ---- carrying out -----------------------------------------------------------------------------------------


def test_asks_are_found_among_effects_in_order() -> None:
    asks = (append(1), ReadStore(2, "r", 0, 1, 1, 1), ListStore(3, "r", 1), FindPosition(4, "r"))

    assert store_asks([SendBytes(1, b""), *asks, SendBytes(1, b"")]) == asks


def test_one_commit_tells_its_advances_then_its_answers_then_the_reads() -> None:
    log = PureLog("e")
    asks: list[StoreAsk] = [append(2), ReadStore(3, "r", 0, 9, 9, 999), append(4, "s"), ListStore(5, "r", 9)]
    told = run_asks(log, asks, "now")

    assert [type(answer) for answer in told] == [
        RoomAdvanced,
        RoomAdvanced,
        StoreAppended,
        StoreAppended,
        StoreRead,
        StoreListed,
    ]
    assert [answer.request for answer in told if not isinstance(answer, RoomAdvanced)] == [2, 4, 3, 5]


def test_position_is_told_from_one_snapshot() -> None:
    (told,) = run_asks(filled(5, trimmed=2), [FindPosition(1, "r", 4)], "now")

    assert told == PositionKnown(1, "e", 2, 5, message_id(5), message_id(4), message_id(2))


def test_list_before_no_id_fails_as_a_bad_message() -> None:
    (answer,) = run_asks(PureLog("e"), [ListStore(7, "r", 5, "x")], "now")

    assert isinstance(answer, StoreFailed)
    assert (answer.request, answer.code, answer.retry) == (7, "bad_message", False)


def test_executor_posts_the_answers_of_a_step_in_one_go() -> None:
    posts: list[tuple[Input, ...]] = []
    executor = LogExecutor(PureLog("e"), lambda *inputs: posts.append(inputs), lambda: "now")
    executor.see(0.0, TimePassed(), [])
    executor.see(0.0, TimePassed(), [SendBytes(1, b"")])
    executor.see(0.0, TimePassed(), [append(1), append(2)])

    assert [[type(input) for input in post] for post in posts] == [[RoomAdvanced, StoreAppended, StoreAppended]]


@given(
    st.lists(
        st.tuples(st.sampled_from("abt"), st.sampled_from("rs"), st.integers(0, 3), st.sampled_from([b"d", b"e"])),
        max_size=40,
    )
)
def test_same_key_is_the_same_offset_while_the_message_is_kept(moves: list[tuple[str, str, int, bytes]]) -> None:
    log = PureLog("e")
    known: dict[tuple[str, str], tuple[int, bytes]] = {}
    heads = {"r": 0, "s": 0}
    floors = {"r": 0, "s": 0}
    for move, room, number, digest in moves:
        if move == "t":
            log.trim(room, number)
            floors[room] = max(floors[room], min(number, heads[room]))
            known = {key: value for key, value in known.items() if key[0] != room or value[0] > floors[room]}
            continue
        mid = f"m{number}"
        (answer,) = log.append_batch([append(1, room, mid, digest)], "").answers
        before = known.get((room, mid))
        if before is None:
            heads[room] += 1
            known[room, mid] = (heads[room], digest)

            assert isinstance(answer, StoreAppended)
            assert (answer.off, answer.dup) == (heads[room], False)
        elif before[1] == digest:
            assert isinstance(answer, StoreAppended)
            assert (answer.off, answer.dup) == (before[0], True)
        else:
            assert isinstance(answer, StoreFailed)
        position = log.position(room)
        assert (position.floor, position.head) == (floors[room], heads[room])
