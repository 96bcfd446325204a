"""A store that lives as long as its process: the pure log of core behind the common contract."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, overload

from anyio.lowlevel import checkpoint

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError
from vixws_core.inputs import EntryRedacted, Input
from vixws_core.log import BatchResult, LogExecutor, Page, Position, PureLog, Redacted
from vixws_core.message import Json, JsonMessage, StoredMessage
from vixws_core.protocols import Consumer, Post
from vixws_core.retention import Retention
from vixws_core.sizes import MEMORY_BYTES, Forgetting

from ._calls import append_ask, batch_asks, settled, wall_time
from ._kept import LogKept
from ._retention import Keeper
from .sqlite.working import working

__all__ = ["MemoryMessageStore"]

LOGGER = logging.getLogger("vixws.store")

STOP_S = 1.0
"""How long the keeper may take to end: a slice takes a hundredth of that."""


def _nowhere(*inputs: Input) -> None:
    """Takes the answers of a store that serves no hub."""


class MemoryMessageStore:
    """Rooms' logs in memory; see `vixws_core.protocols.MessageStore` for the contract.

    `bytes_max` bounds what all entries take in memory: over it the oldest of the biggest rooms are trimmed, which the
    log tells once a minute at most. No append fails for it. `retention` says how much of each room is kept.
    The log outlives `run`, so a server may be stopped and started with the same store object.
    """

    durable = "memory"
    ready = True
    queue_depth = 0

    def __init__(self, *, bytes_max: int = MEMORY_BYTES, retention: Sequence[Retention] = ()) -> None:
        self._forgetting = Forgetting(self._say_forgotten, time.monotonic)
        first_id = secrets.randbelow(1 << 31) + 1
        self.bytes_max: int = bytes_max
        self.message_bytes_max: int | None = None
        """Bytes of a payload that is appended; None: any. A server sets it to its own limit."""
        self._log = PureLog(secrets.token_hex(4), first_id, bytes_max, self._forgetting.add)
        self._executor = LogExecutor(self._log, self._tell, wall_time)
        self._rules = tuple(retention)
        self._keeper: Keeper | None = None
        self._post: Post = _nowhere
        self._running = False

    @property
    def consumer(self) -> Consumer:
        """Carries out a hub's store asks at once, inside `see`."""
        return self._executor

    @asynccontextmanager
    async def run(self, post: Post | None = None) -> AsyncGenerator[None]:
        """Serves a hub through `post`, or nobody, until the end of the block.

        Raises: `LocalError` where it runs already.
        """
        if self._running:
            raise LocalError("this store runs already; a store serves one server at a time")
        self._running = True
        self._post = post or _nowhere
        try:
            if not self._rules:
                yield
                return
            self._keeper = Keeper(self._rules, LogKept(self._log))
            async with working(self._keeper, lambda: STOP_S):
                yield
        finally:
            self._post = _nowhere
            self._running = False
            self._keeper = None
            self._forgetting.tell_rest()

    def retain(self, rules: Sequence[Retention]) -> None:
        """Of each room what the first fitting rule says is kept, from the next `run` on; instead of other rules."""
        self._rules = tuple(rules)

    @overload
    async def append(self, kind: str, room: str, type: str, payload: Json, /) -> str: ...
    @overload
    async def append(self, message: JsonMessage, /) -> str: ...
    async def append(self, *arguments: Any) -> str:
        """Appends one message and returns its id. Takes kind, room, type and payload, or one message.

        Raises: `LocalError` for wrong arguments, `StoreError` where the log is full.
        """
        return settled((await self._append([append_ask(arguments, self.message_bytes_max)])).answers[0])

    async def append_batch(self, appends: Sequence[StoreAppend], /) -> BatchResult:
        """Appends all in one commit, in order; failures stand among the answers."""
        return await self._append(batch_asks(appends, self.message_bytes_max))

    async def read(
        self,
        room: str,
        after: int,
        until: int,
        rows_max: int = 500,
        bytes_max: int = 1 << 20,
        newest_first: bool = False,
    ) -> Page:
        """Rows with `after` < off ≤ `until`; see `ReadStore`."""
        await self._enter()
        return self._log.read(room, after, until, rows_max, bytes_max, newest_first)

    async def position(self, room: str, off: int | None = None) -> Position:
        """Where the room's log stands, and the id at `off`."""
        await self._enter()
        return self._log.position(room, off)

    async def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        """The newest `limit` messages below `before_id`, oldest first."""
        await self._enter()
        return self._log.list_by_room(room, limit, before_id)

    async def replay_from(self, id: str, limit: int | None = None) -> list[StoredMessage]:
        """Messages of all rooms with an id above `id` ("": all), in id order."""
        await self._enter()
        return self._log.replay_from(id, limit)

    async def trim(self, room: str, upto: int) -> int:
        """Forgets entries up to the offset `upto`; returns how many."""
        await self._enter()
        return self._log.trim(room, upto)

    async def redact(self, room: str, off: int) -> Redacted | None:
        """Replaces the payload of the entry at `off` for ever; None where there is no such entry. May be repeated."""
        await self._enter()
        found = self._log.redact(room, off)
        if found is not None:
            if self._keeper is not None:
                self._keeper.forget(room)
            self._tell(EntryRedacted(room, off, found.id))
        return found

    async def _append(self, appends: Sequence[StoreAppend]) -> BatchResult:
        await self._enter()
        result = self._log.append_batch(appends, wall_time())
        if result.advanced:
            self._tell(*result.advanced)
        return result

    def _say_forgotten(self, entries: int) -> None:
        LOGGER.warning(
            "rooms share %d bytes of memory (memory://?max_bytes=): %d of the oldest messages are forgotten",
            self.bytes_max,
            entries,
        )

    def _tell(self, *inputs: Input) -> None:
        if self._keeper is not None:
            self._keeper.note(inputs)
        self._post(*inputs)

    async def _enter(self) -> None:
        if not self._running:
            raise LocalError("the store is not running; enter `async with store.run():` first")
        await checkpoint()
