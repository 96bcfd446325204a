"""The log of a server that has no store: it lives in memory, within a bound, and ends with the run."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from vixws_core.log import LogExecutor, PureLog
from vixws_core.sizes import MEMORY_BYTES, Forgetting

from ..logs import log

__all__ = ["memory_log"]


def memory_log(post: Callable[..., None]) -> LogExecutor:
    """An empty log that answers through `post`; over 64 MiB it forgets its oldest messages, and says so in the log."""
    forgetting = Forgetting(_say_forgotten, time.monotonic)
    first_id = secrets.randbelow(1 << 31) + 1
    return LogExecutor(PureLog(secrets.token_hex(4), first_id, MEMORY_BYTES, forgetting.add), post, _wall)


def _say_forgotten(entries: int) -> None:
    log.warning(
        "without a store rooms share %d bytes of memory: %d of the oldest messages are forgotten", MEMORY_BYTES, entries
    )


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
