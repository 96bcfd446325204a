"""All checks, in order, and the function that runs them."""

from __future__ import annotations

from .appending import APPEND_CHECKS
from .keeping import KEEP_CHECKS
from .order import ORDER_CHECKS
from .parts import Check, MakeStore, Reopen
from .reading import READ_CHECKS
from .reference import WHOLE_CHECKS

__all__ = ["CHECKS", "check_store"]

CHECKS: tuple[Check, ...] = (*APPEND_CHECKS, *READ_CHECKS, *KEEP_CHECKS, *ORDER_CHECKS, *WHOLE_CHECKS)
"""All checks. Those with `durable` need a way to open a store's data again and pass at once without one."""


async def check_store(make: MakeStore, reopen: Reopen | None = None) -> None:
    """Runs all checks, in order.

    `make()` gives a store, not running, over new and empty data; `reopen(store)` another store object over
    the data of a store that has ended, for stores that keep it.

    Raises: `AssertionError` at the first broken promise.
    """
    for check in CHECKS:
        await check(make, reopen)
