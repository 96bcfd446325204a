"""What a disk may hold after a power cut: made from the system calls of a program, as `strace` saw them.

What was written and not synced may be there or not, page by page, each page as it was at some moment; a name that was
made or removed is so for certain when its folder is synced. Nothing else is believed of a file system.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

__all__ = ["CALLS", "Disk", "Op", "read_trace"]

CALLS: Final = (
    "openat,open,creat,pwrite64,pwritev,write,writev,ftruncate,fsync,fdatasync,unlink,unlinkat,rename,fallocate"
)
"""What `strace` has to show. Of these a store uses some; the others fail the reading, for nothing knows them."""

PAGE: Final = 4_096
SECTOR: Final = 512
MODES: Final = ("nothing", "all", "time", "pages", "torn")
PASSING: Final = ("-shm", ".lock")
"""Files of which nothing outlives a process."""

_LINE: Final = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*)|[+-]{3}.*)")
_BYTES: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FD: Final = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")
_NUMBERS: Final = re.compile(r", (\d+)(?:, (\d+))?")


class Op(NamedTuple):
    """One call that succeeded, or began and was never seen to end.

    `kind`: make, remove, write, cut, sync, sync folder, say. `name` is what follows the database's path.
    """

    kind: str
    name: str = ""
    at: int = 0
    data: bytes = b""


def read_trace(path: Path, database: Path) -> list[Op]:
    """The calls on a database and the files beside it, and what was said on stdout, in the order of the world.

    A write counts from its start, a sync from its end. Raises: `ValueError` where a call is not understood.
    """
    ops: list[Op] = []
    begun: dict[str, tuple[str, str, int]] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"expected a call, found {line[:120]!r}")
        task, name, rest, resumed, end = found.groups()
        if name is not None:
            if rest.endswith(" <unfinished ...>"):
                begun[task] = (name, rest, len(ops))
                if name in ("pwrite64", "write", "ftruncate"):
                    ops += _ops(name, rest, database)
                continue
            if not _failed(rest):
                ops += _ops(name, rest, database)
        elif resumed is not None:
            name, rest, _at = begun.pop(task)
            if name in ("pwrite64", "write", "ftruncate"):
                if _failed(end):
                    raise ValueError(f"{name} failed: {end!r}")
            elif not _failed(end):
                ops += _ops(name, rest + end, database)
    pipes = [op.name for op in ops if op.kind == "say"]
    return [op for op in ops if op.kind != "say" or op.name == pipes[-1]]  # Programs that it starts say things too.


def _failed(text: str) -> bool:
    return " = -1 " in text[-120:]


def _ops(name: str, rest: str, database: Path) -> Iterator[Op]:
    """What a call does to the files that are looked at."""
    if name in ("openat", "open"):
        path = _text(rest)
        if path.startswith(str(database)) and "O_CREAT" in rest:
            yield Op("make", path.removeprefix(str(database)))
        return
    if name in ("unlink", "unlinkat"):
        path = _text(rest)
        if path.startswith(str(database)):
            yield Op("remove", path.removeprefix(str(database)))
        return
    descriptor = _FD.match(rest)
    if descriptor is None:
        raise ValueError(f"{name} is not understood: {rest[:120]!r}")
    path = _decoded(descriptor[2])
    if descriptor[1] == "1" and name == "write":
        yield Op("say", path, data=_data(rest))
    elif path == str(database.parent) and name in ("fsync", "fdatasync"):
        yield Op("sync folder")
    elif path.startswith(str(database)):
        yield _file_op(name, path.removeprefix(str(database)), rest)


def _file_op(name: str, file: str, rest: str) -> Op:
    if name in ("fsync", "fdatasync"):
        return Op("sync", file)
    numbers = _NUMBERS.search(rest, rest.rindex('"') if '"' in rest else 0)
    if name == "ftruncate" and numbers is not None:
        return Op("cut", file, int(numbers[1]))
    if name == "pwrite64" and numbers is not None and numbers[2] is not None:
        data = _data(rest)
        if len(data) != int(numbers[1]):
            raise ValueError(f"{len(data)} of {numbers[1]} bytes were shown")
        return Op("write", file, int(numbers[2]), data)
    if name == "write" and file == ".lock":
        return Op("write", file, 0, _data(rest))
    raise ValueError(f"{name} of {file!r} is not understood: {rest[:120]!r}")


def _data(rest: str) -> bytes:
    found = _BYTES.search(rest)
    if found is None or found[2]:
        raise ValueError(f"expected all bytes, found {rest[:120]!r}")
    return bytes.fromhex(found[1].replace("\\x", ""))


def _text(rest: str) -> str:
    return _data(rest).decode()


def _decoded(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode()


@dataclass
class _File:
    """One file: what is certain of it, and what was done since."""

    synced: bytes = b""
    since: list[tuple[int, Op]] = field(default_factory=list)

    def sync(self) -> None:
        self.synced = bytes(_replayed(self.synced, [op for _, op in self.since], None))
        self.since.clear()


class Disk:
    """Some files in one folder, while a program works on them."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._live: dict[str, _File] = {name: _File(data) for name, data in files.items()}
        self._certain = dict(self._live)
        self._time = 0

    def do(self, op: Op) -> None:
        """The program did this."""
        self._time += 1
        match op.kind:
            case "make":
                self._live.setdefault(op.name, _File())
            case "remove":
                self._live.pop(op.name, None)
            case "write" | "cut":
                if (file := self._live.get(op.name)) is not None:
                    file.since.append((self._time, op))
            case "sync":
                if (file := self._live.get(op.name)) is not None:
                    file.sync()
            case "sync folder":
                self._certain = dict(self._live)

    def unsynced(self) -> int:
        """Writes and cuts that may be lost now."""
        return sum(len(file.since) for name, file in self._live.items() if name not in PASSING)

    def image(self, random: Random, mode: str) -> dict[str, bytes]:
        """The files as they may be found after a power cut now."""
        until = random.randrange(self._time + 1) if mode == "time" else self._time
        found: dict[str, bytes] = {}
        for name in sorted({*self._live, *self._certain}):
            live, certain = self._live.get(name), self._certain.get(name)
            if live is not certain and mode != "all":
                live = certain if mode == "nothing" else random.choice((live, certain))
            if live is None or name in PASSING:
                continue
            ops = [] if mode == "nothing" else [op for time, op in live.since if time <= until]
            found[name] = bytes(_replayed(live.synced, ops, random if mode in ("pages", "torn") else None, mode))
        return found


def _replayed(base: bytes, ops: Sequence[Op], random: Random | None, mode: str = "") -> bytearray:
    """A file after writes and cuts; with `random` only after some of them, page by page."""
    pieces = [(op, page) for op in ops if op.kind == "write" for page in range(op.at // PAGE, _end(op) // PAGE + 1)]
    upto: dict[int, int] = {}
    if random is not None:
        counts: dict[int, int] = {}
        for _, page in pieces:
            counts[page] = counts.get(page, 0) + 1
        part = random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for page, count in counts.items():
            upto[page] = count if random.random() < part else random.randrange(count + 1)
        cuts = random.randrange(sum(op.kind == "cut" for op in ops) + 1)
    else:
        cuts = len(ops)
    torn = random.choice(list(upto)) if random is not None and upto and mode == "torn" else -1
    done: dict[int, int] = {}
    data = bytearray(base)
    for op in ops:
        if op.kind == "cut":
            cuts -= 1
            if cuts >= 0:
                del data[op.at :]
                data += bytes(op.at - len(data))
            continue
        for page in range(op.at // PAGE, _end(op) // PAGE + 1):
            done[page] = done.get(page, 0) + 1
            start, end = max(op.at, page * PAGE), min(op.at + len(op.data), (page + 1) * PAGE)
            if random is None or done[page] <= upto[page]:
                _put(data, start, op.data[start - op.at : end - op.at])
            elif page == torn and done[page] == upto[page] + 1:
                _tear(data, start, op.data[start - op.at : end - op.at], random)
    return data


def _tear(data: bytearray, start: int, piece: bytes, random: Random) -> None:
    """Of what was written to a page some sectors are there."""
    for sector in range(start // SECTOR, (start + len(piece) - 1) // SECTOR + 1):
        first, last = max(start, sector * SECTOR), min(start + len(piece), (sector + 1) * SECTOR)
        if random.random() < 0.5:
            _put(data, first, piece[first - start : last - start])


def _put(data: bytearray, at: int, piece: bytes) -> None:
    if not piece:
        return
    data += bytes(max(0, at - len(data)))
    data[at : at + len(piece)] = piece


def _end(op: Op) -> int:
    """The offset of the last byte that is written."""
    return op.at + max(1, len(op.data)) - 1
