"""Bits that change while a file is at rest: nothing wrong is served, nothing crashes, and the check finds them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from tests.store.damaged import Served, change, change_index, copy, faults, fill, meaning, serve
from vixws_core.errors import StoreError
from vixws_store.inspect import check
from vixws_store.sqlite.damage import RoomDamaged


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Served, object]:
    """A sound file, what is served of it, and what it says."""
    path = tmp_path_factory.mktemp("clean") / "clean.db"
    fill(path)
    data = path.read_bytes()
    said = meaning(path)
    return data, serve(path), said


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def judge(clean: tuple[bytes, Served, object], path: Path, at: int, bit: int) -> tuple[list[str], bool, bool]:
    """What is served wrong of a file with one bit changed; whether that changes what it says; whether that is found."""
    data, was, said = clean
    copy(flipped(data, at, bit), path)
    is_changed = meaning(path) != said
    try:
        is_found = not check(path).sound
    except StoreError:
        is_found = True
    wrong: list[str] = []
    try:
        wrong = faults(was, serve(path))
    except (sqlite3.Error, StoreError):
        pass  # Refused in words.
    return wrong, is_changed, is_found


def pages_of(path: Path) -> dict[str, list[int]]:
    """The numbers of the pages of each table and index, from 0."""
    with closing(sqlite3.connect(path)) as db:
        roots = dict(db.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
    data = path.read_bytes()
    found: dict[str, list[int]] = {}
    for name, root in roots.items():
        numbers, waiting = [], [root]
        while waiting:
            number = waiting.pop()
            numbers.append(number - 1)
            page = data[(number - 1) * 4096 : number * 4096]
            if page[0] in (2, 5):  # An inner page: its children.
                waiting.append(int.from_bytes(page[8:12]))
                cells = (int.from_bytes(page[12 + 2 * n : 14 + 2 * n]) for n in range(int.from_bytes(page[3:5])))
                waiting += [int.from_bytes(page[cell : cell + 4]) for cell in cells]
        found[name] = numbers
    return found


@pytest.mark.threat(26)
def test_400_bits_anywhere_are_never_served_wrong_and_found_where_they_mean_anything(
    clean: tuple[bytes, Served, object], tmp_path: Path
) -> None:
    random = Random(400)
    changed = 0
    for _ in range(400):
        at, bit = random.randrange(len(clean[0])), random.randrange(8)
        wrong, is_changed, is_found = judge(clean, tmp_path / "a.db", at, bit)
        changed += is_changed

        assert (wrong, is_changed and not is_found) == ([], False), (at, bit)
    assert changed > 100


@pytest.mark.threat(26)
def test_200_bits_of_rooms_values_counter_and_indexes_are_never_served_wrong_and_all_found(
    clean: tuple[bytes, Served, object], tmp_path: Path
) -> None:
    path = copy(clean[0], tmp_path / "a.db")
    pages = pages_of(path)
    random = Random(200)
    aims = ("ws_rooms", "ws_meta", "sqlite_sequence", "ws_messages_offset", "ws_messages_key")
    changed = 0
    for number in range(200):
        page = random.choice(pages[aims[number % len(aims)]])
        used = [at for at in range(page * 4096, page * 4096 + 4096) if clean[0][at]]
        at, bit = random.choice(used), random.randrange(8)
        wrong, is_changed, is_found = judge(clean, path, at, bit)
        changed += is_changed

        assert (wrong, is_changed and not is_found) == ([], False), (at, bit)
    assert changed > 100


@pytest.mark.parametrize("kind", ["another stands there twice", "its name is no text", "its row is gone"])
def test_a_room_that_cannot_be_found_is_closed_or_another_log(
    clean: tuple[bytes, Served, object], tmp_path: Path, kind: str
) -> None:
    data, was, _ = clean
    path = copy(data, tmp_path / "a.db")
    (page,) = pages_of(path)["ws_rooms"]
    cells = page * 4096 + 8  # A leaf's pointers to its cells, by names: africa, asia, europe, gone.
    if kind == "another stands there twice":
        copy(data[: cells + 6] + data[cells + 4 : cells + 6] + data[cells + 8 :], path)
    elif kind == "its name is no text":
        change(path, "UPDATE ws_rooms SET room = CAST(room AS BLOB) WHERE room = 'gone'")
    else:
        change(path, "DELETE FROM ws_rooms WHERE room = 'gone'")

    assert not check(path).sound
    found = serve(path)
    assert faults(was, found) == []
    place = found.places["gone"]
    assert isinstance(place, RoomDamaged) or place.ep != was.places["gone"].ep
    assert found.places["asia"] == was.places["asia"]


def test_what_is_served_wrong_is_noticed(clean: tuple[bytes, Served, object], tmp_path: Path) -> None:
    """The judge itself: each lie that a store could tell is one."""
    data, was, said = clean
    row, place, answer = was.all[0], was.places["asia"], was.appended["asia"]
    page = was.pages["asia"]
    lies = (
        ("all", [replace(row, payload_json=b"{}")]),
        ("lists", {**was.lists, "africa": [replace(row, off=2)]}),
        ("pages", {**was.pages, "asia": replace(page, head=page.head - 1)}),
        ("pages", {**was.pages, "asia": replace(page, floor=1)}),
        ("places", {**was.places, "asia": replace(place, id_at=row.id)}),
        ("appended", {**was.appended, "asia": replace(answer, off=answer.off - 1)}),
        ("appended", {**was.appended, "asia": replace(answer, id=row.id)}),
    )
    for name, value in lies:
        found = Served()
        for field in vars(was):
            setattr(found, field, value if field == name else getattr(was, field))

        assert len(faults(was, found)) == 1, (name, value)
    assert faults(was, was) == []
    path = copy(data, tmp_path / "a.db")
    assert meaning(path) == said
    change_index(path, "ws_messages_key", "UPDATE tree SET id = 7 WHERE mid = 'mid-12'")
    assert meaning(path) != said
