"""The pure executor: one commit per step, positions and advances first, halves that can be run apart."""

from __future__ import annotations

import pytest

from vixws_core.effects import CloseTransport, Effect, FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.errors import LocalError
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
from vixws_core.log import LogExecutor, PureLog, id_number, run_asks, store_asks

STEP: list[Effect] = [
    FindPosition(1, "a"),
    StoreAppend(2, "a", "event", "t", b"{}"),
    CloseTransport(9),
    StoreAppend(3, "b", "event", "t", b"{}"),
    ReadStore(4, "a", 0, 9, 9, 999),
    StoreAppend(5, "a", "event", "t", b"{}"),
    ListStore(6, "b", 5),
    ListStore(7, "b", 5, "nonsense"),
]


def test_step_is_one_post_with_positions_and_advances_first() -> None:
    posts: list[tuple[Input, ...]] = []
    executor = LogExecutor(PureLog("e"), lambda *inputs: posts.append(inputs), lambda: "2026-01-01T00:00:00.000Z")
    executor.see(0.0, TimePassed(), STEP)

    assert len(posts) == 1
    assert [PositionKnown] + [RoomAdvanced] * 2 + [StoreAppended] * 3 + [StoreRead, StoreListed, StoreFailed] == [
        type(input) for input in posts[0]
    ]
    place, first = posts[0][:2]
    assert isinstance(place, PositionKnown)
    assert place.head == 0
    assert isinstance(first, RoomAdvanced)
    assert (first.room, first.head, [row.off for row in first.entries]) == ("a", 2, [1, 2])
    assert first.entries[0].ts == "2026-01-01T00:00:00.000Z"


def test_step_without_asks_posts_nothing() -> None:
    posts: list[Input] = []
    executor = LogExecutor(PureLog("e"), lambda *inputs: posts.extend(inputs), lambda: "")
    executor.see(0.0, TimePassed(), [])
    executor.see(0.0, TimePassed(), [CloseTransport(1)])

    assert posts == []


def test_halves_can_be_run_apart() -> None:
    log = PureLog("e")
    asks = store_asks(STEP)
    answers = run_asks(log, asks, "")

    assert [ask.request for ask in asks] == [1, 2, 3, 4, 5, 6, 7]
    assert log.position("a").head == 2
    assert [answer.request for answer in answers if not isinstance(answer, RoomAdvanced)] == [1, 2, 3, 5, 4, 6, 7]


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "٣", "1" * 21, " 1"])
def test_id_must_be_digits(text: str) -> None:
    with pytest.raises(LocalError, match="1 to 20 digits"):
        id_number(text)


def test_id_number_ignores_leading_zeros() -> None:
    assert 17 == id_number("00000000000000000017") == id_number("17")
