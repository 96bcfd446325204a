"""An oracle for an application's own handlers: nothing raised, nothing stored twice, no key used for two contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from ..app.access import AuthRequest
from ..app.session import Session, state_of
from ..codes import MID_CONFLICT
from ..effects import Effect, MessageReceived, StoreAppend
from ..errors import LocalError
from ..inputs import Input, StoreFailed
from .oracle import OracleFailed, check
from .store import Truth

__all__ = ["Allowance", "HandlerOracle"]

Allowance: TypeAlias = Literal["handler_raises", "stored_twice", "mid_reused"]
"""What a test may allow its application: a handler that raises; one that stores a payload twice for one message; a
guard or handler that uses one `mid` for two contents."""

_ALLOWANCES: Final = get_args(Allowance)


class _Cause(msgspec.Struct, frozen=True):
    """What a handler was busy with when it published: whose message, and how many such messages there were."""

    peer: str
    what: str
    times: int


class HandlerOracle:
    """Judges an application over all runs of a world's server. `allow` names what is not judged.

    `name_of` tells who is at the other end of a connection. Raises: `LocalError` for a word that allows nothing.
    """

    def __init__(self, truth: Callable[[], Truth], name_of: Callable[[int], str], allow: Collection[str]) -> None:
        for word in allow:
            if word not in _ALLOWANCES:
                raise LocalError(f"allow must be among {' '.join(_ALLOWANCES)}, got {word!r:.60}")
        self._truth = truth
        self._name_of = name_of
        self._allow = frozenset(allow)
        self._records = 0
        self._groups: dict[int, tuple[str, int]] = {}
        """Of each connection: the record that its handlers are busy with, and how many messages it has."""
        self._asked: dict[int, tuple[_Cause | None, StoreAppend, str]] = {}
        """What handlers asked the present server to store."""
        self._stored: list[tuple[_Cause, str, int, str, str]] = []
        """By whom it was caused, room, offset, id, handler."""
        self.by_handlers: Counter[tuple[str, bytes]] = Counter()
        """How often handlers stored each payload in each room."""
        self.failures: list[tuple[str, Exception]] = []
        """What is not allowed and happened, in words, with the exception where there was one."""

    # ---- what is told ---------------------------------------------------------------------------

    def begins(self) -> None:
        """Another run of the server begins: its numbers are new."""
        self._groups.clear()
        self._asked.clear()

    def see(self, now: float, input: Input, effects: Iterable[Effect]) -> None:
        """Takes note of one step of the hub."""
        if isinstance(input, StoreFailed) and input.code == MID_CONFLICT:
            self._conflict(input)
        for effect in effects:
            if isinstance(effect, MessageReceived):
                self._received(effect)

    def _received(self, told: MessageReceived) -> None:
        self._records += 1
        self._groups[told.conn] = f"record {self._records}", len(told.messages)

    def published(self, effects: Iterable[Effect], session: Session | None, handler: str) -> None:
        """A handler published; `session` is the one whose message it handles, if any."""
        for effect in effects:
            if isinstance(effect, StoreAppend):
                self._asked[effect.request] = (self._cause(session), effect, handler)

    def _cause(self, session: Session | None) -> _Cause | None:
        group = None if session is None else self._groups.get(session.id)
        if session is None or group is None:
            return None
        name, ref = self._name_of(session.id), state_of(session).owes
        return _Cause(name, f"ref {ref}", 1) if ref is not None else _Cause(name, *group)

    def kept(self, request: int, room: str, off: int, id: str) -> None:
        """The log took what was asked under this number, and had not had it before."""
        cause, ask, handler = self._asked.get(request, (None, None, ""))
        if ask is not None:
            self.by_handlers[room, ask.payload] += 1
        if cause is not None:
            self._stored.append((cause, room, off, id, handler))

    def raised(self, session: Session | AuthRequest | None, exception: Exception, handler: str) -> None:
        """A handler raised."""
        who = self._name_of(session.id) if isinstance(session, Session) else "somebody"
        if "handler_raises" not in self._allow:
            self.failures.append((f"handler {handler!r} raised {exception!r:.200} for {who}", exception))

    def _conflict(self, told: StoreFailed) -> None:
        cause, asked, handler = self._asked.get(told.request, (None, None, ""))
        if asked is None or "mid_reused" in self._allow:
            return
        name = "" if cause is None else cause.peer
        if len(self._truth().sent.get((name, asked.room, asked.mid or ""), ())) > 1:
            return  # The client itself used the key for two contents.
        text = f"handler {handler!r} published into {asked.room!r} under the mid {asked.mid!r} of {name or 'nobody'}, "
        failed = OracleFailed(text + "which it used before for another content")
        self.failures.append((str(failed), failed))

    # ---- at the end -----------------------------------------------------------------------------

    def judge(self) -> None:
        """Raises: `OracleFailed` for the first thing that happened and is not allowed."""
        for text, exception in self.failures:
            raise OracleFailed(text) from exception
        if "stored_twice" in self._allow:
            return
        truth = self._truth()
        counts: Counter[tuple[_Cause, str, str, bytes]] = Counter()
        for cause, room, off, id, handler in self._stored:
            row = truth.row(room, off)
            if row is None or row.id != id or off <= truth.floor(room):
                continue  # It went with the end of the log, or was trimmed, and its key with it.
            key = (cause, room, row.type, row.payload_json)
            counts[key] += 1
            check(
                counts[key] <= cause.times,
                f"handler {handler!r} stored {row.type!r} {row.payload_json!r:.120} in {room!r} twice for one message "
                f"of {cause.peer}: give what a guard or handler publishes a `mid` made from its message",
            )
