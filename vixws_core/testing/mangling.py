"""What a client of a world is given: its server's bytes, now and then with entries twice, missing or of another log.

A server of ours does none of that; a proxy, an older server or another one may, and a client must bear it (PROTOCOL §3:
it "drops offsets it has seen, and joins again with `since` when an offset jumps").
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .faults import Faults
from .streams import Chance

__all__ = ["Mangler"]

_EPOCH: Final = re.compile(rb'"ep":"([^"]*)(.)"')


class _Head(msgspec.Struct):
    room: str | None = None
    off: int = 0


_HEADS: Final = msgspec.json.Decoder(_Head)


class Mangler:
    """Stands between the network and one client. Without such faults bytes pass as they are cut."""

    def __init__(self, chance: Chance, faults: Faults, index: int) -> None:
        self._chance = chance
        self._faults = faults
        self._index = index
        self._on = faults.repeat > 0 or faults.skip > 0 or faults.stale > 0
        self._held = b""
        self._in_head = True
        self.calm: bool = False
        """Nothing is changed from now on."""
        self.repeated: int = 0
        """Entries that were given twice."""
        self.jumps: int = 0
        """Entries left out, or of another log."""

    def begin(self) -> None:
        """A new connection."""
        self._held = b""
        self._in_head = True

    def feed(self, data: bytes) -> bytes:
        """Takes bytes of the server and returns what the client gets."""
        if not self._on:
            return data
        data = self._held + data
        out: list[bytes] = []
        if self._in_head:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._held = data
                return b""
            self._in_head = False
            out.append(data[:end])
            data = data[end:]
        frames, self._held = _split(data)
        heads = [_stored(frame) for frame in frames]
        for at, frame in enumerate(frames):
            behind = heads[at + 1] if at + 1 < len(heads) else None
            out += self._given(frame, heads[at], behind)
        return b"".join(out)

    def _given(self, frame: bytes, head: _Head | None, behind: _Head | None) -> list[bytes]:
        if head is None or self.calm:
            return [frame]
        follows = behind is not None and (behind.room, behind.off) == (head.room, head.off + 1)
        if follows and self._chance.fault("skip", self._faults.skip):
            self.jumps += 1
            return []
        if self._chance.fault("repeat", self._faults.repeat):
            self.repeated += 1
            return [frame, frame]
        if self._chance.fault("stale", self._faults.stale):
            self.jumps += 1
            return [frame, _EPOCH.sub(rb'"ep":"\1~"', frame, count=1)]
        return [frame]


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames in bytes of a server, which masks nothing, and what is left."""
    frames: list[bytes] = []
    at = 0
    while len(data) - at >= 2:
        size, head = data[at + 1] & 0x7F, 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if len(data) - at < head or len(data) - at < head + size:
            break
        frames.append(data[at : at + head + size])
        at += head + size
    return frames, data[at:]


def _stored(frame: bytes) -> _Head | None:
    """Room and offset of a stored message; None for anything else."""
    start = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
    if frame[start : start + 9] != b'{"type":"' or b'"off":' not in frame or frame[start + 9 : start + 10] == b"$":
        return None
    head = _HEADS.decode(frame[start:])
    return head if head.off else None
