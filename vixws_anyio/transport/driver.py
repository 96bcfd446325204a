"""Carries out a hub's transport asks: outboxes that are flushed once per tick, reading, ending, and time.

The loop's own part (readiness, waking, one timer) is in `on_asyncio` and `on_trio`.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final

from vixws_core.effects import Broadcast, CloseTransport, Effect, Opened, PauseReading, ResumeReading, SendBytes
from vixws_core.inputs import BytesFlushed, Connected, Disconnected, Input, TimePassed
from vixws_core.pump import Pump

from ..logs import clean, log
from . import children
from .interface import Gate, Transport, Watched
from .socket import SocketTransport
from .turns import Turns

__all__ = ["Driver", "host_of"]

FLUSHES_MAX: Final = 500
"""Outboxes flushed in one tick; the rest waits for the next, so that reading goes on in between."""

ACCEPTS_MAX: Final = 64
"""Connections accepted in one wake-up."""

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
"""Seconds of silence after the system is out of descriptors or memory, doubled up to the maximum."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

OVERLOADED: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class Driver(ABC):
    """A consumer that owns the transports. Belongs to one event loop's thread.

    `flush_s` is the time that a closing connection may take to write its last bytes.
    """

    def __init__(self, gate: Gate, flush_s: float, unsent_bytes_kernel: int) -> None:
        self.flush_s: float = flush_s
        self.unsent_bytes_kernel: int = unsent_bytes_kernel
        self.links: dict[int, Transport] = {}
        self.flushed: list[tuple[int, int]] = []
        """What was written since the last tick: (conn, bytes)."""
        self.turns: Turns = Turns(self.wake, monotonic)
        """Who is read between two ticks."""
        self._gate = gate
        self._unlinked: dict[int, Callable[[], object]] = {}
        """For admitted connections without a transport yet, how to end them."""
        self._dirty: list[Transport] = []
        self._gone: list[Disconnected] = []
        self._conns = count(1)
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._timer_numbers = count()
        self._armed = float("inf")
        self._due = False
        self._scheduled = False
        self._backoff_s = BACKOFF_FIRST_S
        self._pump: Pump[Input, Effect] | None = None
        self._table: dict[type, Callable[[Any], None]] = {
            Broadcast: self._broadcast,
            PauseReading: self._pause,
            ResumeReading: self._resume,
            CloseTransport: self._close,
            Opened: self._opened,
        }

    def attach(self, pump: Pump[Input, Effect]) -> None:
        """Names the pump that inputs go to; before anything else."""
        self._pump = pump

    def put(self, *inputs: Input) -> None:
        """Hands inputs to the pump."""
        assert self._pump is not None
        self._pump.put(*inputs)

    # ---- the consumer ---------------------------------------------------------------------------

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Carries out the transport asks of one step; what is written waits for the tick."""
        for effect in effects:
            kind = type(effect)
            if kind is SendBytes:
                link = self.links.get(effect.conn)  # type: ignore[union-attr] # narrowed by the line above
                if link is not None:
                    link.pieces.append(effect.data)  # type: ignore[union-attr] # as above
                    if not link.dirty:
                        link.dirty = True
                        self._dirty.append(link)
            else:
                ask = self._table.get(kind)
                if ask is not None:
                    ask(effect)
        if not self._scheduled:
            self._scheduled = True
            self._schedule()

    def _broadcast(self, effect: Broadcast) -> None:
        links, dirty, data = self.links, self._dirty, effect.data
        for conn in effect.conns:
            link = links.get(conn)
            if link is not None:
                link.pieces.append(data)
                if not link.dirty:
                    link.dirty = True
                    dirty.append(link)

    def _pause(self, effect: PauseReading) -> None:
        link = self.links.get(effect.conn)
        if link is not None:
            link.pause()

    def _resume(self, effect: ResumeReading) -> None:
        link = self.links.get(effect.conn)
        if link is not None:
            link.resume()

    def _close(self, effect: CloseTransport) -> None:
        link = self.links.get(effect.conn)
        if link is None:
            return
        if effect.abort:
            link.abort("aborted")
            return
        link.finish()
        if not link.dirty:
            link.dirty = True
            self._dirty.append(link)

    def _opened(self, effect: Opened) -> None:
        self._gate.opened(effect.conn)

    # ---- ticks and time -------------------------------------------------------------------------

    def wake(self) -> None:
        """Asks for a tick."""
        if not self._scheduled:
            self._scheduled = True
            self._schedule()

    def flush(self, link: Transport) -> None:
        """Its peer takes bytes again: what waits for it is written at once."""
        link.dirty = link.flush()
        self.wake()

    def tick(self) -> None:
        """Flushes dirty outboxes, tells what was written and who is gone, and sets the timer."""
        pump = self._pump
        assert pump is not None
        if self.turns.used:
            self.turns.begin()
        if self._due:
            self._due = False
            self._tell(TimePassed())
        dirty = self._dirty
        if dirty:
            if len(dirty) > FLUSHES_MAX:
                dirty, self._dirty = dirty[:FLUSHES_MAX], dirty[FLUSHES_MAX:]
            else:
                self._dirty = []
            for link in dirty:
                link.dirty = link.flush()
        if self.flushed:
            flushed, self.flushed = self.flushed, []
            self._tell(BytesFlushed(tuple(flushed)))
        if self._gone:
            gone, self._gone = self._gone, []
            self._tell(*gone)
        self._scheduled = False
        self._set_timer(pump)
        if (self._dirty or self._gone or self.flushed) and not self._scheduled:
            self._scheduled = True
            self._schedule()

    def _set_timer(self, pump: Pump[Input, Effect]) -> None:
        deadline = pump.door.next_deadline()
        if deadline is not None and deadline <= pump.clock():
            self._due = True
            self._scheduled = True
            self._schedule()
            deadline = None
        if self._timers and (deadline is None or self._timers[0][0] < deadline):
            deadline = self._timers[0][0]
        if deadline is not None and deadline < self._armed:
            self._armed = deadline
            self._arm(deadline)

    def timer_fired(self) -> None:
        """The time that was armed has come."""
        self._armed = float("inf")
        assert self._pump is not None
        now = self._pump.clock()
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()
        deadline = self._pump.door.next_deadline()
        if deadline is not None and deadline <= now:
            self._tell(TimePassed())
        self.wake()

    def _tell(self, *inputs: Input) -> None:
        """Hands in what the loop tells. A defect on that way is reported; it must not end the ticks."""
        try:
            self.put(*inputs)
        except Exception as exc:
            log.error("internal error while %s was told", type(inputs[0]).__name__, exc_info=exc)

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Calls back in that many seconds; what has become of its object meanwhile is for the callback to see."""
        assert self._pump is not None
        heappush(self._timers, (self._pump.clock() + seconds, next(self._timer_numbers), callback))
        self.wake()

    # ---- transports -----------------------------------------------------------------------------

    def admit(self, host: str, end: Callable[[], object] | None = None) -> int | None:
        """Takes a new connection in, by the number it will have; None where a limit speaks against it.

        `end` ends it where it has to give way before `add`, and `forgo` follows.
        """
        conn = next(self._conns)
        if not self._gate.admit(conn, host):
            return None
        late = self._gate.gave_way()
        if late is not None:
            self._drop(late)
        if end is not None:
            self._unlinked[conn] = end
        return conn

    def _drop(self, conn: int) -> None:
        link, end = self.links.get(conn), self._unlinked.get(conn)
        if link is not None:
            link.abort("it gave way to another address")
        elif end is not None:
            end()

    def forgo(self, conn: int) -> None:
        """An admitted connection comes to nothing: it will have no transport."""
        self._unlinked.pop(conn, None)
        self._gate.release(conn)

    def add(self, link: Transport, secure: bool, waited_s: float = 0.0) -> None:
        """Registers the transport of an admitted connection, and tells the hub; `waited_s` as in `Connected`."""
        self._unlinked.pop(link.conn, None)
        self.links[link.conn] = link
        self.put(Connected(link.conn, link.peer, secure, self._gate.limited_as(host_of(link.peer)) or False, waited_s))

    def lost(self, link: Transport, reason: str) -> None:
        """The transport is over: it is closed and forgotten, and the hub is told, once."""
        if self.links.get(link.conn) is not link:
            return
        del self.links[link.conn]
        link.close()
        self._gate.release(link.conn)
        self._gone.append(Disconnected(link.conn, reason))
        self.wake()

    def failed(self, link: Transport, exc: Exception) -> None:
        """A defect of ours while its bytes were handled: reported, and it ends only that connection."""
        log.error("internal error on connection %d (%s)", link.conn, clean(link.peer), exc_info=exc)
        self.lost(link, "internal error")

    def peer(self, conn: int) -> str:
        """The address of a connection, for logs; "" where it is gone."""
        link = self.links.get(conn)
        return "" if link is None else link.peer

    def accept(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> float:
        """Accepts what waits, at most 64; returns the seconds to leave the listener alone, 0 for none."""
        for _ in range(ACCEPTS_MAX):
            try:
                with children.GUARD:
                    sock, address = listener.accept()
                    children.keep(sock)
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                if exc.errno not in EXHAUSTED:
                    log.warning("accept failed: %s", exc)
                pause_s = self._backoff_s
                self._backoff_s = min(BACKOFF_MAX_S, pause_s * 2)
                log.warning("accepting pauses for %.2f s: %s", pause_s, exc)
                return pause_s
            self._backoff_s = BACKOFF_FIRST_S
            try:
                sock.setblocking(False)
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.unsent_bytes_kernel:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.unsent_bytes_kernel)
            except OSError:  # The peer is gone already.
                sock.close()
                continue
            taken(sock, address_text(address))
        return 0.0

    @staticmethod
    def refuse(sock: socket.socket) -> None:
        """Answers 503 in one write, and closes."""
        try:
            sock.send(OVERLOADED)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It has gone without an answer.
        finally:
            sock.close()

    def serve_socket(self, sock: socket.socket, peer: str) -> None:
        """Takes over an accepted plain socket."""
        conn = self.admit(host_of(peer))
        if conn is None:
            self.refuse(sock)
            return
        link = SocketTransport(self, sock, conn, peer)
        self.add(link, False)
        link.resume()

    # ---- what a loop does in its own way --------------------------------------------------------

    @abstractmethod
    def _schedule(self) -> None:
        """Has `tick` called soon, once."""

    @abstractmethod
    def _arm(self, deadline: float) -> None:
        """Has `timer_fired` called at `deadline`, in place of what was armed before."""

    @abstractmethod
    def watch_readable(self, link: Watched) -> None:
        """Has `link.receive` called while the socket is readable."""

    @abstractmethod
    def unwatch_readable(self, link: Watched) -> None:
        """Ends that."""

    @abstractmethod
    def watch_writable(self, link: Watched) -> None:
        """Has `link.writable` called when the socket takes bytes."""

    @abstractmethod
    def unwatch_writable(self, link: Watched) -> None:
        """Ends that."""

    @abstractmethod
    def forget(self, link: Watched) -> None:
        """Ends all watching; the socket is closed next."""

    @abstractmethod
    def listen(self, listener: socket.socket, taken: Callable[[socket.socket, str], object]) -> None:
        """Accepts on a listening socket until `close`."""

    @abstractmethod
    def stop_listening(self) -> None:
        """Closes the listening sockets."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the loop; nothing is called back afterwards."""

    @abstractmethod
    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Calls back on the loop's thread; may be called from any thread."""


def address_text(address: Any) -> str:
    """`host:port` of a socket address, for logs; "unix" for a Unix socket.

    An IPv4 address that came over an IPv6 listener (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) stands as itself.
    """
    if isinstance(address, tuple) and len(address) >= 2:  # pyright: ignore[reportUnknownArgumentType] — addresses are untyped
        host, port = str(address[0]), address[1]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] — as above
        if host.startswith("::ffff:") and "." in host:
            host = host.removeprefix("::ffff:")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"  # pyright: ignore[reportUnknownArgumentType] — as above
    return "unix"


def host_of(peer: str) -> str:
    """The host in `host:port`; "" where there is none."""
    return peer.rpartition(":")[0].strip("[]")
