"""What the tests of the stores share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from vixws_core.protocols import MessageStore
from vixws_store import MemoryMessageStore, SqliteMessageStore


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], MessageStore]:
    """Gives stores over new data."""
    if request.param == "memory":
        return MemoryMessageStore
    numbers: Iterator[int] = count()
    return lambda: SqliteMessageStore(tmp_path / f"{next(numbers)}.db")
