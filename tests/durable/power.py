"""Power cuts: a store's own system calls are traced, and from them images are made of what a disk may hold.

Histories go over several lives: each begins on an image of the one before. Every image is opened by the shipped store,
judged by what was told until that moment, written on, and judged again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from unittest.mock import patch

import anyio

from tests.serving import ROOT
from vixws_core.inputs import StoreAppended
from vixws_store import SqliteMessageStore
from vixws_store.sqlite import mark

from .disk import CALLS, MODES, Disk, Op, read_trace
from .ledger import Held, Ledger, Place, held_of
from .writer import ROOMS, ask_of

__all__ = ["Cuts", "history", "look_again", "read_rooms", "strace_works"]

LIVES = 3
STEPS = (4, 45)
"""Steps of one life: from and below."""
LIFE_S_MAX = 60.0


class Cuts:
    """What came of some histories."""

    def __init__(self) -> None:
        self.images = self.told = self.unsynced = self.renewed = self.lost = self.calls = 0
        self.wrong: list[str] = []

    def add(self, more: Cuts) -> None:
        """Adds the counts and the faults of some more."""
        for name in ("images", "told", "unsynced", "renewed", "lost", "calls"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.wrong += more.wrong

    def text(self) -> str:
        """The counts, for a person."""
        return (
            f"{self.images} images from {self.calls} system calls, {self.unsynced} with writes that may be lost, "
            f"{self.told} messages told before the cuts, {self.renewed} images with new epochs, "
            f"{self.lost} messages lost in them; {len(self.wrong)} wrong"
        )


def strace_works() -> bool:
    """Whether this process may trace another one."""
    program = shutil.which("strace")
    return program is not None and not subprocess.run([program, "-o", os.devnull, "true"], check=False).returncode


def history(seed: str, synchronous: str, images: int, cuts: Cuts, tree: Path = ROOT) -> None:
    """One history of a store from the packages in `tree`, and so many images of it; counts and faults go to `cuts`."""
    random, ledger = Random(seed), Ledger()
    with tempfile.TemporaryDirectory(prefix="vixws-power-") as folder:
        files: dict[str, bytes] = {}
        for life in range(LIVES):
            place = Path(folder) / str(life)
            place.mkdir()
            for name, data in files.items():
                (place / f"a.db{name}").write_bytes(data)
            backend = random.choice(("asyncio", "trio"))
            ops = _traced(place, synchronous, backend, f"{seed}/{life}".replace(" ", "-"), random, tree)
            cuts.calls += len(ops)
            moments = sorted(_moment(ops, random) for _ in range(images // LIVES + (life < images % LIVES)))
            disk, at, goes_on = Disk(files), 0, random.randrange(len(moments))
            ledger.begin()
            before = ledger
            for number, moment in enumerate(moments):
                for op in ops[at:moment]:
                    _hear(ledger, op)
                    disk.do(op)
                at = moment
                if number == goes_on:  # The next life begins on another image of this moment.
                    files, before = disk.image(random, random.choice(("nothing", *MODES))), deepcopy(ledger)
                made = disk.image(random, random.choice(MODES))
                cuts.unsynced += disk.unsynced() > 0
                seen = f"{seed}, life {life}, call {moment} of {len(ops)}"
                _look(Path(folder) / f"{life}-{number}", made, deepcopy(ledger), synchronous, seen, cuts)
            ledger = before


def _traced(place: Path, synchronous: str, backend: str, seed: str, random: Random, tree: Path) -> list[Op]:
    """The calls of one life, and what it said."""
    trace, path = place / "trace", place / "a.db"
    strace = ("strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(trace))
    program = (sys.executable, "-m", "tests.durable.writer")
    done = subprocess.run(
        (*strace, *program, str(path), synchronous, backend, seed, str(random.randrange(*STEPS)), _boot(random)),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=LIFE_S_MAX,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a life ended with {done.returncode}: {done.stderr.decode()[-2_000:]}")
    ops = read_trace(trace, path)
    said = b"".join(op.data for op in ops if op.kind == "say")
    assert said == done.stdout  # The trace is whole.
    return ops


def _boot(random: Random) -> str:
    """A name of the machine's start: after a power cut it is another one."""
    return f"{random.getrandbits(128):032x}0000"


def _moment(ops: Sequence[Op], random: Random) -> int:
    """When the power is cut: any time, half of the times shortly after something was told, or synced."""
    if random.random() < 0.5:
        return random.randrange(1, len(ops) + 1)
    told = [at for at, op in enumerate(ops) if op.kind in ("say", "sync")]
    return min(len(ops), random.choice(told) + random.randrange(1, 4))


def _hear(ledger: Ledger, op: Op) -> None:
    if op.kind == "say":
        for line in op.data.decode().splitlines():
            ledger.hear(line)


def _look(place: Path, files: dict[str, bytes], ledger: Ledger, synchronous: str, seen: str, cuts: Cuts) -> None:
    """Opens an image as the machine does that starts again, and judges it."""
    place.mkdir()
    for name, data in files.items():
        (place / f"a.db{name}").write_bytes(data)
    before = {place.ep for place in ledger.places.values()}
    try:
        with patch.object(mark, "boot_id", lambda: "0" * 36):
            lost, now = anyio.run(_judge, place / "a.db", ledger, synchronous)
        cuts.renewed += bool(before) and before.isdisjoint(now)
        cuts.lost += lost
    except Exception as exc:
        ledger.wrong.append(f"{type(exc).__name__}: {exc}")
    cuts.images += 1
    cuts.told += len(ledger.places)
    cuts.wrong += [f"{seen}: {each}" for each in dict.fromkeys(ledger.wrong)]
    shutil.rmtree(place)


async def _judge(path: Path, ledger: Ledger, synchronous: str) -> tuple[int, set[str]]:
    """Reads all, sends again what is missing and something new, reads all again; how many were lost, and epochs."""
    store = SqliteMessageStore(path, synchronous=synchronous)
    async with store.run():
        return await look_again(store, ledger, synchronous != "FULL")


async def look_again(store: SqliteMessageStore, ledger: Ledger, may_lose: bool = False) -> tuple[int, set[str]]:
    """After a start: reads all, sends again what is missing or unanswered, and something new, and reads all again.

    Returns how many messages were lost, and the epochs.
    """
    ledger.begin()
    held = await read_rooms(store)
    ledger.judge(held, may_lose)
    ledger.read(held)
    gone = ledger.missing(held)
    lost = sum(key in ledger.places for key in gone)
    again = sorted({*gone, *(ledger.sent - ledger.acked)})
    await resend(store, ledger, [*again, *((room, f"new-{len(ledger.sent)}-{room}") for room in ROOMS)])
    ledger.judge(await read_rooms(store), may_lose)
    return lost, {one.ep for one in held.values()}


async def read_rooms(store: SqliteMessageStore) -> dict[str, Held]:
    """All that a store has of the rooms."""
    return held_of(ROOMS, [await store.read(room, 0, 1 << 40, 100_000, 1 << 30) for room in ROOMS])


async def resend(store: SqliteMessageStore, ledger: Ledger, keys: Sequence[tuple[str, str]]) -> None:
    """Sends messages, again or for the first time; each must be stored."""
    for room, mid in keys:
        ledger.send(room, mid)
    if not keys:
        return
    result = await store.append_batch([ask_of(number, *key) for number, key in enumerate(keys)])
    for (room, mid), answer in zip(keys, result.answers, strict=True):
        if isinstance(answer, StoreAppended):
            ledger.ack(room, mid, Place(answer.ep, answer.off, int(answer.id)), answer.dup)
        else:
            ledger.wrong.append(f"{room} {mid} was refused: {answer.code} {answer.message}")
