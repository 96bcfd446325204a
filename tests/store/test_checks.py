"""Both stores pass the published conformance suite, and the suite notices stores that do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vixws_core.log import Page, Redacted
from vixws_core.message import StoredMessage
from vixws_core.protocols import MessageStore
from vixws_core.retention import Retention
from vixws_store import MemoryMessageStore, SqliteMessageStore
from vixws_store.checks import CHECKS, Check, check_store
from vixws_store.checks.reference import compare_with_log

pytestmark = pytest.mark.anyio


def reopen(store: MessageStore) -> MessageStore:
    if isinstance(store, SqliteMessageStore):
        return SqliteMessageStore(store.path)
    return store


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_store_passes(check: Check, make_store: Callable[[], MessageStore]) -> None:
    await check(make_store, reopen)


async def test_check_store_runs_all_checks(tmp_path: Path) -> None:
    await check_store(MemoryMessageStore, reopen)


@given(st.integers(0, 1 << 32))
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_random_calls_equal_the_reference_log(make_store: Callable[[], MessageStore], seed: int) -> None:
    store = make_store()
    async with store.run():
        await compare_with_log(store, Random(seed), 40)


class OffByOne(MemoryMessageStore):
    """Treats `until` as exclusive."""

    async def read(
        self,
        room: str,
        after: int,
        until: int,
        rows_max: int = 500,
        bytes_max: int = 1 << 20,
        newest_first: bool = False,
    ) -> Page:
        return await super().read(room, after, until - 1, rows_max, bytes_max, newest_first)


class NewestFirst(MemoryMessageStore):
    """Lists history in the wrong order."""

    async def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        return (await super().list_by_room(room, limit, before_id))[::-1]


class Forgetful(MemoryMessageStore):
    """Says that it trimmed, and does not."""

    async def trim(self, room: str, upto: int) -> int:
        return upto


class Talkative(MemoryMessageStore):
    """Says that it redacted, and does not."""

    async def redact(self, room: str, off: int) -> Redacted | None:
        place = await self.position(room, off)
        return None if not place.id_at or off <= place.floor else Redacted(place.ep, off, place.id_at)


class Hoarder(MemoryMessageStore):
    """Takes rules, and keeps everything."""

    def retain(self, rules: Sequence[Retention]) -> None:
        pass


@pytest.mark.parametrize("make", [OffByOne, NewestFirst, Forgetful, Talkative, Hoarder])
async def test_a_wrong_store_fails_the_suite(make: Callable[[], MessageStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_store.checks.keeping.WAIT_S", 0.5)
    with pytest.raises(AssertionError):
        await check_store(make)


def test_checks_have_names_and_say_what_they_promise() -> None:
    assert len({str(check) for check in CHECKS}) == len(CHECKS)
    assert all(check.__doc__ for check in CHECKS)
