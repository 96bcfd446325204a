"""The judges themselves: each thing that a store could get wrong is seen, and a disk is as forgetful as it may be."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from random import Random

import pytest

from .disk import MODES, Disk, Op
from .ledger import Entry, Held, Ledger, Place, payload_of

MIDS = ("one", "two", "three")


def told() -> tuple[Ledger, dict[str, Held]]:
    """Three messages that were acknowledged, one that was not answered, and what is stored."""
    ledger = Ledger()
    for number, mid in enumerate(MIDS, 1):
        ledger.send("africa", mid)
        ledger.ack("africa", mid, Place("e1", number, 10 + number), False)
    ledger.send("africa", "four")
    rows = tuple(Entry(number, 10 + number, "e1", mid, payload_of(mid)) for number, mid in enumerate(MIDS, 1))
    return ledger, {"africa": Held("e1", 0, 3, rows)}


def changed(held: dict[str, Held], second: Entry) -> dict[str, Held]:
    """The same with another row in the second place."""
    one = held["africa"]
    return {"africa": replace(one, rows=(one.rows[0], second, one.rows[2]))}


def test_what_is_as_it_was_told_is_right() -> None:
    ledger, held = told()
    four = Entry(4, 20, "e1", "four", payload_of("four"))
    more = {"africa": Held("e1", 0, 4, (*held["africa"].rows, four))}

    assert deepcopy(ledger).judge(held) == []
    assert deepcopy(ledger).judge(more) == []  # It was stored, and nobody was told.
    assert ledger.unanswered() == 1
    assert ledger.missing(held) == [("africa", "four")]


@pytest.mark.parametrize(
    ("what", "may_lose"),
    [
        ("lost", False),
        ("lost", True),
        ("double", True),
        ("gap", True),
        ("payload", True),
        ("id", True),
        ("epoch", False),
    ],
)
def test_what_is_not_as_it_was_told_is_wrong(what: str, may_lose: bool) -> None:
    ledger, held = told()
    one = held["africa"]
    wrong = {
        "lost": {"africa": replace(one, head=2, rows=one.rows[:2])},
        "double": {"africa": replace(one, head=4, rows=(*one.rows, one.rows[0]._replace(off=4, id=30)))},
        "gap": {"africa": replace(one, head=4, rows=(*one.rows[:2], one.rows[2]._replace(off=4)))},
        "payload": changed(held, one.rows[1]._replace(payload=payload_of("three"))),
        "id": changed(held, one.rows[1]._replace(id=99)),
        "epoch": {"africa": replace(one, ep="e2", rows=tuple(row._replace(ep="e2") for row in one.rows))},
    }[what]

    assert ledger.judge(wrong, may_lose) != []


def test_a_loss_is_none_where_it_is_told_by_another_epoch() -> None:
    ledger, held = told()
    rows = tuple(row._replace(ep="e2") for row in held["africa"].rows[:2])
    less = {"africa": Held("e2", 0, 2, rows)}

    assert deepcopy(ledger).judge(less, may_lose=True) == []
    assert ledger.judge(less) != []


def test_places_and_ids_are_given_once() -> None:
    for place, mid in (
        (Place("e1", 3, 40), "four"),  # The place of another one.
        (Place("e1", 4, 13), "four"),  # The id of another one.
        (Place("e2", 4, 12), "four"),  # The same under another epoch.
        (Place("e1", 5, 50), "three"),  # It was stored already.
        (Place("e1", 4, 50), "five"),  # It was never sent.
    ):
        ledger, _ = told()
        ledger.told("africa", mid, place)
        assert ledger.wrong != [], (place, mid)

    ledger, _ = told()
    ledger.begin()
    ledger.told("africa", "four", Place("e1", 4, 9), fresh=True)
    assert ledger.wrong == ["('africa', 'four') was given the id 9, not above 13"]


def test_what_is_not_synced_may_be_lost_and_what_is_synced_may_not() -> None:
    disk = Disk({})
    for op in (
        Op("make"),
        Op("write", "", 0, b"a" * 8_192),
        Op("sync"),
        Op("sync folder"),
        Op("write", "", 0, b"b" * 8_192),
        Op("write", "", 8_192, b"c" * 100),
        Op("make", "-wal"),
        Op("write", "-wal", 0, b"d" * 10),
    ):
        disk.do(op)
    random = Random(3)
    images = [disk.image(random, random.choice(MODES)) for _ in range(300)]

    assert all(len(image[""]) in (8_192, 8_292) for image in images)
    pages = {(image[""][0], image[""][4_096]) for image in images}
    assert {(97, 97), (98, 97), (97, 98), (98, 98)} <= pages
    assert {"-wal" in image for image in images} == {True, False}
    assert any(0 < image[""][:4_096].count(b"b") < 4_096 for image in images)  # Torn.
    disk.do(Op("sync"))
    assert all(disk.image(random, mode)[""] == b"b" * 8_192 + b"c" * 100 for mode in MODES for _ in range(20))
    disk.do(Op("cut", "", 4_096))
    assert {len(disk.image(random, mode)[""]) for mode in MODES for _ in range(20)} == {4_096, 8_292}
    disk.do(Op("remove"))
    assert {"" in disk.image(random, mode) for mode in MODES for _ in range(20)} == {True, False}
    disk.do(Op("sync folder"))
    assert not any("" in disk.image(random, mode) for mode in MODES for _ in range(20))
