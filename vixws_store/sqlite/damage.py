"""Damage: what stands in a file and is not what was written, and the rooms that have it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

__all__ = ["FileDamaged", "Quarantine", "RoomDamaged", "is_damage"]

LOGGER = logging.getLogger("vixws.store")

QUARANTINED_MAX = 10_000
"""Rooms that are kept in mind; further ones are found damaged anew each time they are asked for."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
"""What SQLite says where pages are damaged, and where an index knows of a row that the table does not, or the reverse:
nothing that we write breaks a constraint of a sound file."""


class FileDamaged(StoreError):
    """The file as a whole is not what was written; nothing of it can be used."""

    def __init__(self, why: str) -> None:
        super().__init__(STORE_UNAVAILABLE, why, retry=True)


class RoomDamaged(StoreError):
    """A room's log is not what was written: its appends and reads fail, those of all others go on."""

    def __init__(self, room: str, why: str) -> None:
        message = f"room {room!r:.140} is damaged: {why}; it is closed until vixws store repair has seen its file"
        super().__init__(STORE_UNAVAILABLE, message, retry=True)
        self.room: str = room
        self.why: str = why


def is_damage(error: BaseException) -> bool:
    """Whether a failure comes of what the file holds, and not of the disk, a lock or this program."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


class Quarantine:
    """The rooms found damaged since the file was opened, each with why. May be used from any thread.

    `epoch` is what rooms without messages have where rooms are lost without their names: such a room that begins anew
    must not be taken for the old one. Empty where the file's own epoch will do.
    """

    __slots__ = ("_found", "epoch", "path")

    def __init__(self, path: str) -> None:
        self.path: str = path
        self.epoch: str = ""
        self._found: dict[str, RoomDamaged] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __contains__(self, room: str) -> bool:
        return room in self._found

    @property
    def rooms(self) -> tuple[str, ...]:
        """Their names, in the order in which they were found."""
        return tuple(self._found)

    def check(self, room: str) -> None:
        """Raises: `RoomDamaged` where the room is among them."""
        if room in self._found:
            found = self._found[room]
            raise RoomDamaged(found.room, found.why)

    def put(self, found: RoomDamaged) -> RoomDamaged:
        """Takes in a room, which the log names once; returns what was given."""
        if found.room not in self._found and len(self._found) < QUARANTINED_MAX:
            self._found[found.room] = found
            LOGGER.error("room quarantined: file=%r room=%r: %s", self.path, found.room, found.why)
        return found

    def blame(self, room: str, error: BaseException) -> RoomDamaged | None:
        """Takes in a room at whose rows something failed; None where the failure comes of something else."""
        if isinstance(error, RoomDamaged):
            return self.put(error)
        return self.put(RoomDamaged(room, f"sqlite: {error}")) if is_damage(error) else None

    def begin_with(self, damaged: Iterable[RoomDamaged], epoch: str) -> None:
        """The file was opened anew, and these were found at once."""
        self._found = {}
        self.epoch = epoch
        for found in damaged:
            self.put(found)
