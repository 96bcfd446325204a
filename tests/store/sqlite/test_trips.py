"""Positions and a commit share one trip to the writer's thread: each fails alone, and each is answered once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vixws_core.effects import FindPosition, StoreAppend
from vixws_core.inputs import PositionKnown, RoomAdvanced, StoreAppended, StoreFailed
from vixws_store import SqliteMessageStore
from vixws_store.checks.parts import Inbox
from vixws_store.sqlite import Limits
from vixws_store.sqlite.writer import LogWriter

pytestmark = pytest.mark.anyio

QUICK = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)


def append(request: int, room: str = "africa") -> StoreAppend:
    return StoreAppend(request, room, "event", "note", b"{}")


def failing(times: int) -> Callable[..., Any]:
    left = times

    def fail(*_: object) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise sqlite3.OperationalError("disk I/O error")
        return None

    return fail


async def asked(store: SqliteMessageStore, monkeypatch: pytest.MonkeyPatch, method: str) -> Inbox:
    """Asks for two positions and two appends at once, while a method of the writer fails once."""
    inbox = Inbox(store)
    async with store.run(inbox.post):
        inbox.show(append(1))
        await inbox.wait_answers({1})
        shipped, fail = getattr(LogWriter, method), failing(1)

        def first_fails(self: LogWriter, *arguments: Any) -> Any:
            fail()
            return shipped(self, *arguments)

        monkeypatch.setattr(LogWriter, method, first_fails)
        inbox.show(FindPosition(2, "africa"), append(3), FindPosition(4, "asia"), append(5, "asia"))
        await inbox.wait_answers({2, 3, 4, 5})
    return inbox


def kinds(inbox: Inbox) -> dict[int, type[Any]]:
    return {
        input.request: type(input)
        for input in inbox.inputs
        if isinstance(input, PositionKnown | StoreAppended | StoreFailed)
    }


async def test_both_are_answered_positions_first(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", limits=QUICK)
    inbox = Inbox(store)
    async with store.run(inbox.post):
        inbox.show(FindPosition(1, "africa"), append(2), FindPosition(3, "africa"))
        await inbox.wait_answers({1, 2, 3})

    told = [type(input) for input in inbox.inputs]
    assert told == [PositionKnown, PositionKnown, RoomAdvanced, StoreAppended]
    heads = [input.head for input in inbox.inputs if isinstance(input, PositionKnown)]
    assert heads == [0, 0], "both are of a moment before"


async def test_positions_that_cannot_be_found_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = await asked(SqliteMessageStore(tmp_path / "a.db", limits=QUICK), monkeypatch, "positions")

    assert kinds(inbox) == {1: StoreAppended, 2: StoreFailed, 3: StoreAppended, 4: StoreFailed, 5: StoreAppended}


async def test_a_commit_that_fails_leaves_the_positions_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = await asked(SqliteMessageStore(tmp_path / "a.db", limits=QUICK), monkeypatch, "commit")

    assert kinds(inbox) == {1: StoreAppended, 2: PositionKnown, 3: StoreFailed, 4: PositionKnown, 5: StoreFailed}


async def test_where_nothing_can_be_opened_both_fail_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = await asked(SqliteMessageStore(tmp_path / "a.db", limits=QUICK), monkeypatch, "both")

    assert kinds(inbox) == {1: StoreAppended} | dict.fromkeys((2, 3, 4, 5), StoreFailed)
