"""Bits that are changed in a file at rest, and what becomes of each: judged by what was written, and by SQL alone.

A place means something where the tables, read with and without their indexes (`damaged.meaning`), say something else
once its bit is changed: that `check` must find. Where they say the same, whatever is served must still be true.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple

from vixws_core.errors import StoreError
from vixws_store.inspect import check

from .damaged import Served, copy, faults, fill, meaning, serve

__all__ = [
    "AIMS",
    "Clean",
    "Flips",
    "aimed",
    "anywhere",
    "flip",
    "flipped",
    "in_rows",
    "judge",
    "make_clean",
    "pages_of",
]

AIMS = ("ws_rooms", "ws_meta", "sqlite_sequence", "ws_messages_offset", "ws_messages_key")
"""What stands beside the messages themselves."""

Clean = tuple[bytes, Served, object]
"""A sound file, what is served of it, and what it says."""


class Flips(NamedTuple):
    """What came of some bits: how many there were, and how many changed what the file says, all of them found."""

    bits: int
    changed: int
    wrong: list[str]


def make_clean(path: Path) -> Clean:
    """Fills a file."""
    fill(path)
    data = path.read_bytes()
    said = meaning(path)
    return data, serve(path), said


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def judge(clean: Clean, path: Path, at: int, bit: int) -> tuple[list[str], bool, bool]:
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


def anywhere(clean: Clean, random: Random, count: int) -> list[tuple[int, int]]:
    """Places of so many bits, anywhere in the file."""
    return [(random.randrange(len(clean[0])), random.randrange(8)) for _ in range(count)]


def aimed(clean: Clean, path: Path, random: Random, count: int) -> list[tuple[int, int]]:
    """Places of bits in what stands beside the messages."""
    pages = pages_of(copy(clean[0], path))
    places = []
    for number in range(count):
        page = random.choice(pages[AIMS[number % len(AIMS)]])
        used = [at for at in range(page * 4096, page * 4096 + 4096) if clean[0][at]]
        places.append((random.choice(used), random.randrange(8)))
    return places


def in_rows(clean: Clean, path: Path, random: Random, count: int) -> list[tuple[int, int]]:
    """Places of bits in the texts of messages that are there: payload, room, mid, digest."""
    leaves = [page for page in pages_of(copy(clean[0], path))["ws_messages"] if clean[0][page * 4096] == 13]
    places: list[tuple[int, int]] = []
    while len(places) < count:
        start = random.choice(leaves) * 4096
        cell = start + 8 + 2 * random.randrange(int.from_bytes(clean[0][start + 3 : start + 5]))
        at = start + int.from_bytes(clean[0][cell : cell + 2])
        # A cell of a leaf begins with two numbers of a byte or two, and the head of 14 or 15 bytes.
        places.append((at + 24 + random.randrange(100), random.randrange(7)))
    return places


def flip(clean: Clean, path: Path, places: Iterable[tuple[int, int]], all_change: bool = False) -> Flips:
    """Changes bits one at a time and judges each; with `all_change` each must be noticed."""
    bits = changed = 0
    wrong: list[str] = []
    for at, bit in places:
        served_wrong, is_changed, is_found = judge(clean, path, at, bit)
        bits, changed = bits + 1, changed + is_changed
        wrong += [f"byte {at}, bit {bit}: {each}" for each in served_wrong]
        if (is_changed and not is_found) or (all_change and not is_changed):
            wrong.append(f"byte {at}, bit {bit}: it was not found")
    return Flips(bits, changed, wrong)
