"""The check that compares a store with the reference log over random sequences of calls."""

from __future__ import annotations

from random import Random

import msgspec

from vixws_core.inputs import StoreAppended, StoreFailed
from vixws_core.log import BatchResult, PureLog
from vixws_core.message import StoredMessage
from vixws_core.protocols import MessageStore

from .parts import ask, check, equal

__all__ = ["WHOLE_CHECKS", "compare_with_log"]

STEPS = 300
"""Calls of one sequence."""


class _Names:
    """Makes answers of two logs comparable: their ids differ, the order of their ids must not.

    Ids become their rank in order of first appearance, which is the order of appending.
    """

    def __init__(self) -> None:
        self._ranks: dict[str, str] = {"": ""}

    def id(self, id: str | None) -> str | None:
        return None if id is None else self._ranks.setdefault(id, str(len(self._ranks)))

    def row(self, row: StoredMessage) -> StoredMessage:
        return msgspec.structs.replace(row, id=self.id(row.id), ep="", ts="")

    def batch(self, result: BatchResult) -> object:
        def answer(found: StoreAppended | StoreFailed) -> object:
            if isinstance(found, StoreFailed):
                return found.request, found.code, found.retry, found.expected
            return found.request, found.off, self.id(found.id), found.dup

        answers = [answer(found) for found in result.answers]
        return answers, [(r.room, r.head, [self.row(row) for row in r.entries]) for r in result.advanced]


async def compare_with_log(store: MessageStore, random: Random, steps: int = STEPS) -> None:
    """Does the same random calls on a running, empty store and on a `PureLog` and compares all answers.

    Raises: `AssertionError` where they differ.
    """
    log = PureLog("reference")
    mine, theirs = _Names(), _Names()
    rooms = ("a", "b", "%", "'")
    for step in range(steps):
        room = random.choice(rooms)
        what = f"step {step}"
        if random.random() < 0.4:
            asks = [
                ask(
                    number,
                    random.choice(rooms),
                    b'{"n":%d}' % random.randrange(1 << 40),
                    mid=_key(random),
                    digest=random.choice((b"a" * 16, b"b" * 16)),
                    scope=random.choice(("", "ada")),
                    sender=random.choice((None, "ada")),
                )
                for number in range(random.randrange(1, 9))
            ]
            expected = mine.batch(log.append_batch(asks, ""))
            equal(expected, theirs.batch(await store.append_batch(asks)), f"{what}: append_batch")
        elif random.random() < 0.15:
            upto = random.randrange(0, 40)
            equal(log.trim(room, upto), await store.trim(room, upto), f"{what}: trim({room!r}, {upto})")
        elif random.random() < 0.15:
            off = random.randrange(0, 40)
            mine_found, found = log.redact(room, off), await store.redact(room, off)
            equal(
                None if mine_found is None else (mine_found.off, mine.id(mine_found.id)),
                None if found is None else (found.off, theirs.id(found.id)),
                f"{what}: redact({room!r}, {off})",
            )
        else:
            await _compare_reads(store, log, random, room, what, mine, theirs)


def _key(random: Random) -> str | None:
    """No key, a plain one, or that of an ordered producer, whose number may well be the next one."""
    choice = random.random()
    if choice < 0.3:
        return None
    if choice < 0.7:
        return f"m{random.randrange(12)}"
    return f"~{random.choice('pq')}:{random.choice((0, 0, 0, 1))}:{random.randrange(1, 9)}"


async def _compare_reads(
    store: MessageStore, log: PureLog, random: Random, room: str, what: str, mine: _Names, theirs: _Names
) -> None:
    span = sorted(random.randrange(-1, 60) for _ in range(2))
    bounds = (span[0], span[1], random.randrange(1, 30), random.randrange(1, 300), random.random() < 0.5)
    expected, page = log.read(room, *bounds), await store.read(room, *bounds)
    equal(
        (expected.floor, expected.head, [mine.row(row) for row in expected.rows]),
        (page.floor, page.head, [theirs.row(row) for row in page.rows]),
        f"{what}: read({room!r}, {bounds})",
    )
    off = random.randrange(0, 60)
    place, found = log.position(room, off), await store.position(room, off)
    equal(
        (place.floor, place.head, mine.id(place.id), mine.id(place.id_at)),
        (found.floor, found.head, theirs.id(found.id), theirs.id(found.id_at)),
        f"{what}: position({room!r}, {off})",
    )
    everything, replayed = log.replay_from(""), await store.replay_from("")
    equal([mine.row(row) for row in everything], [theirs.row(row) for row in replayed], f"{what}: replay")
    limit = random.randrange(0, 10)
    before = random.randrange(len(everything)) if everything else None
    listed = log.list_by_room(room, limit, None if before is None else everything[before].id)
    rows = await store.list_by_room(room, limit, None if before is None else replayed[before].id)
    equal([mine.row(row) for row in listed], [theirs.row(row) for row in rows], f"{what}: list_by_room")


@check
async def random_calls_are_answered_as_the_reference_log_does(store: MessageStore) -> None:
    """Random sequences of calls give what `vixws_core.log.PureLog` gives, but for ids, epochs and times."""
    await compare_with_log(store, Random(1))


WHOLE_CHECKS = (random_calls_are_answered_as_the_reference_log_does,)
