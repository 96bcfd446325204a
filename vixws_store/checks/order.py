"""The check about the order of positions and appends, which a member's first message hangs on."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from vixws_core.effects import FindPosition, StoreAppend
from vixws_core.inputs import PositionKnown, RoomAdvanced, StoreAppended
from vixws_core.protocols import MessageStore

from .parts import Check, Inbox, MakeStore, Reopen, equal

__all__ = ["ORDER_CHECKS"]

ROUNDS = 120
"""Joins of the check, each followed by a publish."""

ROOMS = 3


async def a_position_keeps_its_place_among_appends(make: MakeStore, reopen: Reopen | None) -> None:
    """A position is told after all that it includes and before any append that was asked after it."""
    store = make()
    inbox = Inbox(store)
    told_at_ask: dict[int, int] = {}
    async with store.run(inbox.post), anyio.create_task_group() as group:
        group.start_soon(_append_beside, store)
        for number in range(ROUNDS):
            room = f"room{number % ROOMS}"
            position = FindPosition(2 * number, room, number % 7)
            append = StoreAppend(2 * number + 1, room, "event", "note", b"{}", f"m{number}")
            told_at_ask[position.request] = _told(inbox, room)
            if number % 2:
                inbox.show(position, append)
            else:
                inbox.show(position)
                inbox.show(append)
            for _ in range(number % 5):
                await checkpoint()
        await inbox.wait_answers(set(range(2 * ROUNDS)))

    heads = dict.fromkeys((f"room{number}" for number in range(ROOMS)), 0)
    known: dict[int, int] = {}
    for input in inbox.inputs:
        if isinstance(input, RoomAdvanced):
            heads[input.room] = input.head
            for row in input.entries:
                if row.mid is not None:
                    equal(True, 2 * int(row.mid[1:]) in known, "a position is told before what was asked after it")
        elif isinstance(input, PositionKnown):
            head = heads[f"room{input.request // 2 % ROOMS}"]
            equal(True, input.head <= head, f"a position {input} includes nothing beyond {head}, which was told")
            before = told_at_ask[input.request]
            equal(True, input.head >= before, f"a position {input} includes {before}, told before it was asked")
            known[input.request] = input.head
        elif isinstance(input, StoreAppended):
            head = known[input.request - 1]
            equal(True, input.off > head, f"a position at {head} was asked before the append at {input.off}")
    inbox.check_order()


async def _append_beside(store: MessageStore) -> None:
    for number in range(ROUNDS):
        await store.append("event", f"room{number % ROOMS}", "beside", {})


def _told(inbox: Inbox, room: str) -> int:
    """The room's newest offset that was told."""
    advances = [told.head for told in inbox.inputs if isinstance(told, RoomAdvanced) and told.room == room]
    return advances[-1] if advances else 0


ORDER_CHECKS = (Check(a_position_keeps_its_place_among_appends, durable=False),)
