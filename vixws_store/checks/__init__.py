"""What every store must do, as checks that any implementer can run: `CHECKS` one by one, or `check_store`.

A check is an async function that makes its own stores, runs them, and raises `AssertionError` with a clear
message where a promise is broken. With pytest, on any loop:

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_store(check: Check) -> None:
        await check(make_store)
"""

from .parts import Check, MakeStore, Reopen
from .suite import CHECKS, check_store

__all__ = ["CHECKS", "Check", "MakeStore", "Reopen", "check_store"]
