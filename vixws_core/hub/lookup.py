"""What a client asks of a room's log, while it waits for its turn and while the store looks."""

from __future__ import annotations

import msgspec

__all__ = ["HistoryAsked"]


class HistoryAsked(msgspec.Struct, frozen=True, gc=False):
    """A client's `$history`: whom to answer, and what to read, as in `ReadStore`.

    `weight`: how many unanswered questions it counts as; `load`: what the read weighs.
    """

    conn: int
    ref: str | None
    room: str
    newest_first: bool
    weight: int
    after: int
    until: int
    limit: int
    size: int
    load: int
