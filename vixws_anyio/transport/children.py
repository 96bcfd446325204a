"""A child made by `os.fork` without `exec` lets go of the server's sockets at once.

It would hold the port and all connections for as long as it lives, after the server too: nobody could listen there
again, and no client would hear that the server is gone.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["GUARD", "forget", "keep", "keep_number"]

GUARD: Final = threading.RLock()
"""Held from the making of a socket until it is kept, and while a process is forked: no child has one that is not."""

_SOCKETS: Final[WeakSet[socket.socket]] = WeakSet()
_NUMBERS: Final[WeakKeyDictionary[object, int]] = WeakKeyDictionary()
"""Descriptors whose sockets belong to an event loop, by who uses them."""
_nothing = -1
"""A descriptor of /dev/null, opened before it is needed: a child may have none left."""


def keep(sock: socket.socket) -> None:
    """No child is to have this socket open."""
    _prepare()
    _SOCKETS.add(sock)


def keep_number(owner: object, number: int) -> None:
    """No child is to have this descriptor open, until `forget`, before it is closed, or the end of its owner."""
    _prepare()
    if number >= 0:
        _NUMBERS[owner] = number


def forget(owner: object) -> None:
    """The owner's descriptor is to be closed. May be repeated."""
    _NUMBERS.pop(owner, None)


def _prepare() -> None:
    global _nothing
    if _nothing < 0:
        _nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _let_go() -> None:
    """In the child: each socket's descriptor becomes one of /dev/null.

    The socket itself is not shut, which is the server's. The number stays taken: objects of the server's that are left
    in the child may still use it, or close it.
    """
    try:
        for number in [*(sock.fileno() for sock in list(_SOCKETS)), *_NUMBERS.values()]:
            if number >= 0:
                os.dup2(_nothing, number, inheritable=False)
        _SOCKETS.clear()
        _NUMBERS.clear()
    finally:
        GUARD.release()


os.register_at_fork(before=GUARD.acquire, after_in_parent=GUARD.release, after_in_child=_let_go)
