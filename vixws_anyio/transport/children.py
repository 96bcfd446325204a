"""A child made by `os.fork` without `exec` lets go of the server's sockets at once.

It would hold the port and all connections for as long as it lives, after the server too: nobody could listen there
again, and no client would hear that the server is gone.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Final
from weakref import WeakSet

__all__ = ["GUARD", "keep"]

GUARD: Final = threading.RLock()
"""Held from the making of a socket until it is kept, and while a process is forked: no child has one that is not."""

_SOCKETS: Final[WeakSet[socket.socket]] = WeakSet()
_nothing = -1
"""A descriptor of /dev/null, opened before it is needed: a child may have none left."""


def keep(sock: socket.socket) -> None:
    """No child is to have this socket open."""
    global _nothing
    if _nothing < 0:
        _nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    _SOCKETS.add(sock)


def _let_go() -> None:
    """In the child: each socket's descriptor becomes one of /dev/null.

    The socket itself is not shut, which is the server's. The number stays taken: objects of the server's that are left
    in the child may still use it, or close it.
    """
    try:
        for sock in list(_SOCKETS):
            number = sock.fileno()
            if number >= 0:
                os.dup2(_nothing, number, inheritable=False)
        _SOCKETS.clear()
    finally:
        GUARD.release()


os.register_at_fork(before=GUARD.acquire, after_in_parent=GUARD.release, after_in_child=_let_go)
