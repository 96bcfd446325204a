"""An oracle for order: the messages of one connection are handled one after another, as they came (PROTOCOL §1, §4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..config import HubConfig
from ..effects import AppMessage, Authorize, MessageReceived, StoreAppend
from ..inputs import Authorized, BytesReceived, HandlerFinished, Input, Publish, StoreAppended, StoreFailed
from .decoding import Asked
from .oracle import check

__all__ = ["OrderOracle"]

_KEPT_MAX: Final = 4_096
"""Messages of one connection that are remembered."""


class _Line:
    """What came on one connection and may have its turn yet."""

    __slots__ = ("busy", "came", "last_item", "refused", "turn", "waiting")

    def __init__(self) -> None:
        self.came: int = 0
        self.turn: int = 0
        """The number of the last message that had its turn."""
        self.waiting: deque[Asked] = deque(maxlen=_KEPT_MAX)
        self.busy: bool = False
        """One of its handlers runs."""
        self.last_item: int = 0
        """The highest number of a publish or request of the library's client."""
        self.refused: set[int] = set()
        """Those that may be sent again."""


class OrderOracle:
    """Knows which messages have come and which had their turn. `name_of` tells who a connection is."""

    def __init__(self, config: HubConfig, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self._lines: dict[int, _Line] = {}
        self._under_way: dict[int, int] = {}
        """By whom each append that has no answer was asked for, over the wire."""
        self._rights: dict[int, int] = {}
        """Whose right each question without an answer is about."""
        self._own: int | None = None
        """Whose messages this step's input lets go on."""
        self._by_app: bool = False
        """This step is a handler's publish."""
        self._owed: dict[int, int] = {}
        self._owed_max = config.publishes_max + 4 * (config.events_per_step_max + config.pending_messages_max)

    def connected(self, id: int) -> None:
        """A connection begins."""
        self._lines[id] = _Line()

    def over(self, id: int) -> None:
        """Nothing of a connection is handled any more."""
        self._lines.pop(id, None)
        self._owed.pop(id, None)

    def came(self, id: int, asked: Asked) -> None:
        """A message came."""
        line = self._lines[id]
        line.came += 1
        asked.number = line.came
        line.waiting.append(asked)
        self._check_outbox(id, line, asked)

    def _check_outbox(self, id: int, line: _Line, asked: Asked) -> None:
        """The library's client sends what it was asked to in order, again only what was refused (PROTOCOL §13.4)."""
        ref = asked.ref or ""
        if ref[:2] not in ("~p", "~q") or not ref[2:].isdigit():
            return
        number = int(ref[2:])
        again = number in line.refused
        check(
            number > line.last_item or again,
            f"{self._name_of(id)} sent {asked!r:.200} behind its request {line.last_item}, expected its own order",
        )
        line.refused.discard(number)
        line.last_item = max(line.last_item, number)

    def refused(self, id: int, ref: str) -> None:
        """An answer said that the same may be sent again."""
        line = self._lines.get(id)
        if line is not None and ref[:2] in ("~p", "~q") and ref[2:].isdigit():
            line.refused.add(int(ref[2:]))

    # ---- turns ----------------------------------------------------------------------------------

    def note(self, input: Input) -> None:
        """What an input changes, before its effects."""
        self._by_app = isinstance(input, Publish)
        self._own = input.conn if isinstance(input, BytesReceived | HandlerFinished) else None
        if isinstance(input, Authorized):
            self._own = self._rights.pop(input.request, None)
        if isinstance(input, HandlerFinished):
            line = self._lines.get(input.conn)
            if line is not None:
                line.busy = False
        elif isinstance(input, StoreAppended | StoreFailed):
            conn = self._under_way.pop(input.request, None)
            if conn is not None and conn in self._owed:
                self._owed[conn] -= 1

    def opened(self, id: int) -> None:
        """The application was told of it, and is busy with that."""
        self._lines[id].busy = True

    def turn(self, id: int, asked: Asked) -> None:
        """A message of the protocol had its turn just now."""
        line = self._lines.get(id)
        if line is None or not asked.number:
            return
        self._take(id, line, asked)

    def _take(self, id: int, line: _Line, asked: Asked) -> None:
        who = f"{self._name_of(id)}, connection {id}"
        check(not line.busy, f"{who}: {asked!r:.200} is handled while a handler runs, expected it to wait")
        check(asked.number > line.turn, f"{who}: {asked!r:.200} is handled behind a later message")
        line.turn = asked.number
        while line.waiting and line.waiting[0].number <= asked.number:
            line.waiting.popleft()

    def _received(self, told: MessageReceived) -> None:
        """Messages went to the application."""
        line = self._lines.get(told.conn)
        if line is None:
            return
        for message in told.messages:
            text = message.text if isinstance(message, AppMessage) else message
            found = next((one for one in line.waiting if one.text == text), None)
            check(
                found is not None,
                f"{self._name_of(told.conn)}: {text!r:.200} goes to the application, expected it to have come, "
                "and none that came behind it to have had its turn",
            )
            if found is not None:
                self._take(told.conn, line, found)
        line.busy = True

    def put(self, effect: Authorize | MessageReceived | StoreAppend) -> None:
        """What a step asks of the application and of the store for its messages."""
        if isinstance(effect, Authorize):
            self._rights[effect.request] = effect.conn
        elif isinstance(effect, MessageReceived):
            self._received(effect)
        elif not self._by_app:
            self._appends(effect)

    def _appends(self, ask: StoreAppend) -> None:
        """Something is to be stored that no handler published: a client did."""
        best: tuple[tuple[bool, bool, int], int, Asked] | None = None
        for id, line in self._lines.items():
            found = self._next_publish(id, ask)
            if found is not None:
                # A client that came back sends again what its old connection may still have in line.
                rank = (id != self._own, line.busy, found[0])
                if best is None or rank < best[0]:
                    best = (rank, id, found[1])
        check(best is not None, f"{ask!r:.300} is to be stored, expected a client to have sent it, in its turn")
        if best is None:
            return
        _, id, asked = best
        self._take(id, self._lines[id], asked)
        self._under_way[ask.request] = id
        self._owed[id] = self._owed.get(id, 0) + 1
        check(
            self._owed[id] <= self._owed_max,
            f"{self._name_of(id)} has {self._owed[id]} publishes under way, expected at most {self._owed_max}",
        )

    def _next_publish(self, id: int, ask: StoreAppend) -> tuple[int, Asked] | None:
        """The first message of a connection that this append may be for, and how many publishes it passes over."""
        passed = 0
        for asked in self._lines[id].waiting:
            if asked.room is None or asked.type[:1] == "$":
                continue
            same = (asked.room, asked.type, asked.payload, asked.mid, asked.kind)
            if same == (ask.room, ask.type, ask.payload, ask.mid, ask.kind):
                return passed, asked
            passed += 1
        return None
