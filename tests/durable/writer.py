"""A program that runs the shipped store as a hub does, and says what it does: to be killed, traced, cut off.

`python -m tests.durable.writer PATH FULL|NORMAL asyncio|trio SEED STEPS [BOOT]`. Each line is one event, in the order
of the world: `s ROOM MID` before it is sent, `r ROOM MID EP OFF ID` what members are told, `a ROOM MID EP OFF ID DUP`
and `f ROOM MID CODE` answers, `t ROOM UPTO` before a trim, and `end`. One `write` for each post of the store, so that
a trace of the system calls has them at their place. `BOOT` is what is said of the machine's start.
"""

from __future__ import annotations

import os
import sys
from hashlib import blake2b
from random import Random

import anyio

from vixws_core.effects import Effect, StoreAppend
from vixws_core.inputs import Input, RoomAdvanced, StoreAppended, StoreFailed
from vixws_store import Limits, SqliteMessageStore
from vixws_store.sqlite import mark

from .ledger import payload_of

__all__ = ["ROOMS", "Talk", "ask_of", "say"]

ROOMS = ("africa", "asia", "europe")
COUNTS = (1, 1, 1, 2, 9, 40)
PART_AGAIN = 0.1
"""Of the messages, those that were sent before."""


def ask_of(request: int, room: str, mid: str) -> StoreAppend:
    """The append of one message."""
    payload = payload_of(mid)
    return StoreAppend(
        request, room, "event", "note", payload, mid, blake2b(payload, digest_size=16).digest(), "scope", "ada"
    )


def say(lines: list[str]) -> None:
    """Says some lines at once."""
    if lines:
        os.write(1, ("\n".join(lines) + "\n").encode())


class Talk:
    """The one who asks the store, and hears its answers."""

    def __init__(self, store: SqliteMessageStore, random: Random) -> None:
        self.store = store
        self.random = random
        self.asked: dict[int, tuple[str, str]] = {}
        self.sent: list[tuple[str, str]] = []
        self.heard = anyio.Event()

    def tell(self, lines: list[str]) -> None:
        """Says what happens."""
        say(lines)

    def post(self, *answers: Input) -> None:
        """What the store tells its hub."""
        lines: list[str] = []
        for answer in answers:
            if isinstance(answer, RoomAdvanced):
                lines += [f"r {row.room} {row.mid} {row.ep} {row.off} {row.id}" for row in answer.entries]
            elif isinstance(answer, StoreAppended):
                room, mid = self.asked.pop(answer.request)
                lines.append(f"a {room} {mid} {answer.ep} {answer.off} {answer.id} {int(answer.dup)}")
            elif isinstance(answer, StoreFailed):
                room, mid = self.asked.pop(answer.request)
                lines.append(f"f {room} {mid} {answer.code}")
        self.tell(lines)
        self.heard.set()

    def send(self, keys: list[tuple[str, str]]) -> None:
        """Gives messages to the store, in one step."""
        asks: list[Effect] = []
        for key in keys:
            number = len(self.sent)
            self.sent.append(key)
            self.asked[number] = key
            asks.append(ask_of(number, *key))
        self.tell([f"s {room} {mid}" for room, mid in keys])
        self.store.consumer.see(0.0, StoreFailed(0, "", "", False), asks)

    async def answered(self, left: int = 0) -> None:
        """Waits until no more than so many are unanswered."""
        while len(self.asked) > left:
            self.heard = anyio.Event()
            await self.heard.wait()


async def talk(path: str, synchronous: str, seed: str, steps: int) -> None:
    """One life of a store."""
    random = Random(seed)
    store = SqliteMessageStore(path, synchronous=synchronous, limits=Limits(log_bytes_max=1 << 18))
    one = Talk(store, random)
    async with store.run(one.post):
        for step in range(steps):
            keys = [(random.choice(ROOMS), f"{seed}-{step}-{number}") for number in range(random.choice(COUNTS))]
            if one.sent and random.random() < PART_AGAIN:
                keys.append(random.choice(one.sent))
            one.send(keys)
            if random.random() < 0.02:
                await one.answered()
                room = random.choice(ROOMS)
                upto = random.randrange(4)
                say([f"t {room} {upto}"])
                await store.trim(room, upto)
            await one.answered(random.choice((0, 0, 3, 30)))
        await one.answered()
    say(["end"])


if __name__ == "__main__":
    if len(sys.argv) > 6:
        boot = sys.argv[6]
        mark.boot_id = lambda: boot
    anyio.run(talk, sys.argv[1], sys.argv[2], sys.argv[4], int(sys.argv[5]), backend=sys.argv[3])
