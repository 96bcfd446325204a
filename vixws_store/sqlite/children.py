"""A child made by `os.fork` without `exec` lets go of our files at once, and runs no code of SQLite.

It would hold the lock for as long as it lives, after us too. What it closes takes nothing from us: SQLite's locks
belong to the process that took them, ours to the open file that we have still.
"""

from __future__ import annotations

import os
from typing import Final

from .lock import Place, place_of

__all__ = ["KeptFromChildren"]

DESCRIPTORS_MAX: Final = 65_536
"""Numbers that are looked at where there is no list of them."""

_KEPT: set[KeptFromChildren] = set()
_nothing = -1
"""A descriptor of /dev/null, opened before it is needed: a child may have none left."""


class KeptFromChildren:
    """Files that no child is to have open, by their paths; which files those are is noted by `note` as well."""

    def __init__(self, *paths: str) -> None:
        global _nothing
        if _nothing < 0:
            _nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._paths = paths
        self._places: set[Place] = set()
        _KEPT.add(self)

    def note(self) -> None:
        """The files are open: these, whatever will be at their paths later."""
        self._places = self.places()

    def end(self) -> None:
        """They are closed."""
        self._places = set()
        _KEPT.discard(self)

    def places(self) -> set[Place]:
        """The files that were noted, and those that are at the paths now."""
        found = set(self._places)
        for path in self._paths:
            try:
                found.add(place_of(path))
            except OSError:
                continue
        return found


def _let_go() -> None:
    """In the child: each descriptor of such a file becomes one of /dev/null.

    Its number stays taken: objects of the parent's that are left in the child may still use it, or close it.
    """
    places = {place for kept in _KEPT for place in kept.places()}
    _KEPT.clear()
    for number in _descriptors() if places else ():
        try:
            found = os.fstat(number)
            if (found.st_dev, found.st_ino) in places:
                os.dup2(_nothing, number, inheritable=False)
        except OSError:
            continue  # The one that the list itself was read from.


def _descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return list(range(DESCRIPTORS_MAX))


os.register_at_fork(after_in_child=_let_go)
