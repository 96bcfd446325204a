"""What members are told of their log: `$reset`, `$gap`, `$live` (PROTOCOL §3); and which messages they can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...entries import TYPE_MAX
from ...message import StoredMessage
from ...wire import envelope as wire
from ...wire.frames import TEXT, encode_frame
from ..connection.outbox import Outbox
from ..model import Member

__all__ = ["NONE", "Frame", "Frames", "Telling", "frames_of", "groups_of", "whole_page"]

HEAD_BYTES: Final = 4_096
"""By how much a server's message may exceed the limit of a message, for its head (PROTOCOL §1)."""

GROUP_BYTES: Final = 65_536
"""What a commit brings is broadcast in groups of about so many bytes, so that a mark is passed by one group only."""

Frame = tuple[int, str, bytes | None]
"""Offset, id and frame of an entry; no frame for one that no client could read."""


class Frames(NamedTuple):
    """Entries as a room's members get them."""

    entries: list[Frame]
    plain: list[bytes]
    """The frames of those that a client can read."""


NONE: Final = Frames([], [])


def frames_of(rows: Sequence[StoredMessage], message_bytes_max: int) -> Frames:
    """Entries as a room's members get them; no frame for one that no client could read, whoever stored it."""
    frames: list[Frame] = []
    plain: list[bytes] = []
    most = message_bytes_max + HEAD_BYTES
    for row in rows:
        text = wire.stored_message(row)
        # What follows is `wire.is_readable`, without a call for each entry.
        type, payload, frame = row.type, row.payload_json, None
        begins = payload[:1] == b"{" or payload.lstrip()[:1] == b"{"
        if begins and 0 < len(type) <= TYPE_MAX and type[0] != "$" and len(text) <= most:
            frame = encode_frame(TEXT, text)
            plain.append(frame)
        frames.append((row.off, row.id, frame))
    return Frames(frames, plain)


def groups_of(frames: Frames) -> list[Frames]:
    """The same in groups of about 64 KiB that are readable, each for one broadcast; what is not stands alone."""
    entries, plain = frames
    if len(plain) == len(entries) and sum(map(len, plain)) < GROUP_BYTES:
        return [frames] if entries else []
    groups: list[Frames] = []
    run, texts, size = list[Frame](), list[bytes](), 0
    for entry in entries:
        frame = entry[2]
        if run and (frame is None or size >= GROUP_BYTES):
            groups.append(Frames(run, texts))
            run, texts, size = [], [], 0
        if frame is None:
            groups.append(Frames([entry], []))
        else:
            run.append(entry)
            texts.append(frame)
            size += len(frame)
    return [*groups, Frames(run, texts)] if run else groups


def whole_page(member: Member, page: Frames) -> list[bytes]:
    """The frames of a page in which nothing is missing and nothing is to be told in between; [] for another one.

    A page that many share is looked through once, and costs each of them little.
    """
    frames, plain = page
    if not frames or len(plain) != len(frames):
        return []
    cursor, last = member.cursor, frames[-1][0]
    if last - cursor != len(frames) or last > member.room.pos or cursor < member.announced_head < last:
        return []
    return list(plain)


class Telling:
    """Tells members who said that they want to hear it."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def reset(self, member: Member, reason: str) -> None:
        """The log is not the one that it saw; it goes on from where its cursor was put."""
        room = member.room
        place = {"ep": room.ep, "from": member.cursor, "id": member.cursor_id}
        self._tell(member, "$reset", {**place, "head": room.pos, "floor": max(0, room.floor), "reason": reason})

    def gap(self, member: Member, upto: int, upto_id: str) -> None:
        """The entries behind its cursor, up to this one, are no more, or none that it could read."""
        self._tell(member, "$gap", {"from": member.cursor + 1, "to": upto, "id": upto_id})

    def live(self, member: Member, off: int) -> None:
        """All that was announced was sent."""
        self._tell(member, "$live", {"off": off})

    def _tell(self, member: Member, type: str, payload: dict[str, object]) -> None:
        if member.told:
            self._outbox.answer(member.connection, wire.answer(type, room=member.room.name, payload=payload))
