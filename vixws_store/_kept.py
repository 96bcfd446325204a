"""A log in memory as its keeper sees it."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Final

from anyio.lowlevel import checkpoint

from vixws_core.log import PureLog

from ._retention import Cut, Slice, Survey

__all__ = ["LogKept"]

SIZE_MAX: Final = 1 << 62


class LogKept:
    """A `PureLog`; while one slice is cut nothing else runs in the loop."""

    def __init__(self, log: PureLog) -> None:
        self._log = log
        self._names: list[str] = []

    def is_busy(self) -> bool:
        """Nobody waits for an append: it is done at once."""
        return False

    async def surveys_after(self, room: bytes, limit: int) -> list[tuple[bytes, Survey]]:
        """Rooms behind `room`, of those that there were when the first page was asked for."""
        await checkpoint()
        if not room:
            self._names = self._log.rooms()
        start = bisect_right(self._names, room.decode(errors="surrogatepass")) if room else 0
        names = self._names[start : start + limit]
        return [(name.encode(errors="surrogatepass"), self._survey(name)) for name in names]

    async def surveys(self, rooms: tuple[str, ...]) -> list[Survey | None]:
        """Where rooms stand."""
        await checkpoint()
        return [self._survey(room) for room in rooms]

    async def weigh(self, room: str, after: int, rows_max: int) -> tuple[int, int]:
        """How far entries behind `after` were weighed, and their payload bytes."""
        await checkpoint()
        rows = self._log.read(room, after, after + rows_max, rows_max, SIZE_MAX).rows
        return (rows[-1].off if rows else after), sum(len(row.payload_json) for row in rows)

    async def cut(self, room: str, cut: Cut, rows_max: int) -> tuple[Slice, float]:
        """Removes one slice."""
        await checkpoint()
        since = time.monotonic()
        before = self._log.position(room).floor
        page = self._log.read(room, before, before + rows_max + 1, rows_max + 1, SIZE_MAX)
        count = size = 0
        more = False
        for row in page.rows:
            if not cut.takes(row.off, row.ts.encode(), size, before, page.head):
                break
            if count == rows_max:
                more = True
                break
            count += 1
            size += len(row.payload_json)
        self._log.trim(room, before + count)
        return Slice(count, size, before + count, more), time.monotonic() - since

    def _survey(self, room: str) -> Survey:
        place = self._log.position(room)
        rows = self._log.read(room, place.floor, place.floor + 1).rows
        return Survey(place.floor, place.head, rows[0].ts.encode() if rows else None)
