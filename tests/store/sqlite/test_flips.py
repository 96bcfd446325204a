"""Bits that change while a file is at rest: nothing wrong is served, nothing crashes, and the check finds them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from tests.store.damaged import Served, change, change_index, copy, faults, meaning, serve
from tests.store.flipping import Clean, aimed, anywhere, flip, in_rows, make_clean, pages_of
from vixws_store.inspect import check
from vixws_store.sqlite.damage import RoomDamaged


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """A sound file, what is served of it, and what it says."""
    return make_clean(tmp_path_factory.mktemp("clean") / "clean.db")


@pytest.mark.threat(26)
def test_400_bits_anywhere_are_never_served_wrong_and_found_where_they_mean_anything(
    clean: Clean, tmp_path: Path
) -> None:
    found = flip(clean, tmp_path / "a.db", anywhere(clean, Random(400), 400))

    assert (found.bits, found.wrong) == (400, [])
    assert found.changed > 100


@pytest.mark.threat(26)
def test_200_bits_of_rooms_values_counter_and_indexes_are_never_served_wrong_and_all_found(
    clean: Clean, tmp_path: Path
) -> None:
    found = flip(clean, tmp_path / "a.db", aimed(clean, tmp_path / "a.db", Random(200), 200))

    assert (found.bits, found.wrong) == (200, [])
    assert found.changed > 100


@pytest.mark.threat(26)
def test_80_bits_in_rows_that_are_live_are_all_noticed(clean: Clean, tmp_path: Path) -> None:
    found = flip(clean, tmp_path / "a.db", in_rows(clean, tmp_path / "a.db", Random(80), 80), all_change=True)

    assert found == (80, 80, [])


@pytest.mark.parametrize("kind", ["another stands there twice", "its name is no text", "its row is gone"])
def test_a_room_that_cannot_be_found_is_closed_or_another_log(clean: Clean, tmp_path: Path, kind: str) -> None:
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


def test_what_is_served_wrong_is_noticed(clean: Clean, tmp_path: Path) -> None:
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
