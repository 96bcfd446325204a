"""A program whose store's files fail under it, call by call: `LD_PRELOAD=faults.so python -m tests.durable.faulty`.

`faulty FOLDER FULL|NORMAL asyncio|trio SCENE KIND FIRST STEP COUNT`. Scenes: `new` (a file that was just made), `known`
(rooms and log are there), `emptied` (commits until the log was copied into the file and emptied). In each the calls
FIRST, FIRST + STEP, … of the scene fail one by one, each on a new file, until the scene has no such call, COUNT of
them at most. What is wrong is a line `wrong …`, the calls of a scene are `calls N` where that came out, and the last
line is `done FAULTS FAILED`. A kind that kills ends the program, and what was told by then are lines as of `writer`.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import anyio

from vixws_store import Limits, SqliteMessageStore

from .ledger import Ledger
from .power import look_again, read_rooms
from .writer import ROOMS, Talk, say

__all__ = ["KINDS", "LIMITS", "SCENES", "Teller", "keys_of", "resent"]

KINDS = ("count", "kill", "kill-after", "enospc", "enospc-on", "eio", "eio-on", "short", "cut")
"""As `faults.c` numbers them; `-on`: all later calls fail too, and `short` is half a write, and ENOSPC from then on."""

SCENES = {"new": 1, "known": 1, "emptied": 8}
"""Commits of each scene: three rooms, several messages in each."""

KNOWN = 3
"""Commits before the scenes that are not the first."""

LIMITS = Limits(log_bytes_max=1 << 16, probe_s=0.01, retry_timeout_s=0.05)
READY_S_MAX = 10.0


class Teller(Talk):
    """Tells the ledger what it hears, and stdout where the process may end any moment."""

    def __init__(self, store: SqliteMessageStore, ledger: Ledger, aloud: bool) -> None:
        super().__init__(store, Random(0))
        self.ledger = ledger
        self.aloud = aloud
        self.failed = 0

    def tell(self, lines: list[str]) -> None:
        """Takes in what happens."""
        for line in lines:
            self.ledger.hear(line)
            self.failed += line.startswith("f ")
        if self.aloud:
            say(lines)


class Played(NamedTuple):
    """What came of one fault: the calls of the scene, publishes that failed, and whatever is wrong."""

    calls: int
    failed: int
    wrong: list[str]


def keys_of(number: int) -> list[tuple[str, str]]:
    """What one commit holds: six messages."""
    return [(room, f"m-{number}-{room}-{at}") for room in ROOMS for at in range(2)]


async def play(path: Path, synchronous: str, scene: str, kind: str, at: int) -> Played:
    """The scene with one fault, the recovery from it, and another start."""
    store = SqliteMessageStore(path, synchronous=synchronous, limits=LIMITS)
    one = Teller(store, Ledger(), kind.startswith("kill"))
    async with store.run(one.post):
        before = KNOWN if scene != "new" else 0
        for number in range(before):
            one.send(keys_of(number))
            await one.answered()
        assert not one.failed
        if kind == "cut":  # What was acknowledged before goes with the log; what is from now on has to be there.
            sent, one.ledger = one.ledger.sent, Ledger()
            one.ledger.sent |= sent
        library = ctypes.CDLL(None)
        library.faults_arm(str(path).encode(), ctypes.c_long(at), KINDS.index(kind))
        for number in range(before, before + SCENES[scene]):
            one.send(keys_of(number))
            await one.answered()
        calls, failed = int(library.faults_disarm()), one.failed
        if kind != "cut":
            await resent(store, one)
    ledger = one.ledger
    store = SqliteMessageStore(path, synchronous=synchronous, limits=LIMITS)
    async with store.run():
        await look_again(store, ledger, may_lose=kind == "cut" and synchronous != "FULL")
    return Played(calls, failed, list(dict.fromkeys(ledger.wrong)))


async def resent(store: SqliteMessageStore, one: Teller) -> None:
    """Once the store is ready again everything is sent once more: all of it must be answered, and be stored once."""
    with anyio.move_on_after(READY_S_MAX):
        while not store.ready:
            await anyio.sleep(0.005)
    held = await read_rooms(store)
    one.ledger.judge(held)
    one.ledger.read(held)
    before = one.failed
    one.send([*sorted(one.ledger.sent), *((room, f"after-{room}") for room in ROOMS)])
    await one.answered()
    if one.failed != before or one.ledger.unanswered():
        one.ledger.wrong.append(f"{one.failed - before} publishes failed when the fault was over")
    one.ledger.judge(await read_rooms(store))


def main(words: Sequence[str]) -> None:
    """Plays faults, one after another."""
    folder, synchronous, backend, scene, kind = words[:5]
    first, step, count = (int(word) for word in words[5:8])
    logging.getLogger("vixws.store").setLevel(logging.CRITICAL)
    done = failed = 0
    for at in range(first, first + step * count, step):
        place = Path(folder) / f"{at}.db"
        played = anyio.run(play, place, synchronous, scene, kind, at, backend=backend)
        if played.calls < at or kind == "count":
            print(f"calls {played.calls}")
            break
        done, failed = done + 1, failed + played.failed
        for wrong in played.wrong:
            print(f"wrong {scene} {kind} {synchronous} {backend} call {at}: {wrong}")
    print(f"done {done} {failed}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
