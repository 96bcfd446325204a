"""What every store must do, as checks that any implementer can run: `CHECKS` one by one, or `check_store`.

A check is an async function that makes its own stores, runs them, and raises `AssertionError` with a clear
message where a promise is broken. With pytest, on any loop:

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_store(check: Check) -> None:
        await check(make_store)
"""

from __future__ import annotations

from ._checks import Check, MakeStore, Reopen
from ._checks_append import APPEND_CHECKS
from ._checks_order import ORDER_CHECKS
from ._checks_read import READ_CHECKS
from ._checks_whole import WHOLE_CHECKS

__all__ = ["CHECKS", "Check", "MakeStore", "Reopen", "check_store"]

CHECKS: tuple[Check, ...] = (*APPEND_CHECKS, *READ_CHECKS, *ORDER_CHECKS, *WHOLE_CHECKS)
"""All checks. Those with `durable` need a way to open a store's data again and pass at once without one."""


async def check_store(make: MakeStore, reopen: Reopen | None = None) -> None:
    """Runs all checks, in order.

    `make()` gives a store, not running, over new and empty data; `reopen(store)` another store object over
    the data of a store that has ended, for stores that keep it.

    Raises: `AssertionError` at the first broken promise.
    """
    for check in CHECKS:
        await check(make, reopen)
