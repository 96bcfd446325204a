"""An oracle at a hub's door: what a hub may put out, to whom and when (PROTOCOL §13: 1, 2, 3, 4, 5, 8, 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from ..effects import (
    Authorize,
    Broadcast,
    Closed,
    CloseTransport,
    Effect,
    Joined,
    Left,
    MessageReceived,
    Opened,
    PauseReading,
    ResumeReading,
    SendBytes,
    StoreAppend,
)
from ..hub import Hub
from ..inputs import BytesFlushed, BytesReceived, Connected, Disconnected, Input, Join, Publish, SendToAll
from .answers import OF_PUBLISHES, check_answer, check_error, is_stored, outcome_of
from .bounds import group_bytes_max, held_bytes_max
from .cursor_oracle import Place, check_joined
from .decoding import Asked, Heard, frames_of
from .door import Conn
from .oracle import check
from .order_oracle import OrderOracle
from .standing import check_to_all, what_lacks, what_stands
from .store import Truth
from .time_oracle import TimeOracle
from .unstored_oracle import UnstoredOracle

__all__ = ["DoorOracle"]

_ANSWERS = frozenset(("$ack", "$err", "$joined", "$left", "$page", "$position", "$pong", "$welcome"))


class DoorOracle:
    """A consumer that judges every step of one hub. `truth` is what its log holds.

    It reads the bytes that go in and out, so it needs to know nothing of how the hub works inside. For any
    hub whose store's log is at hand: `SimStore` keeps a `Truth`. `name_of` tells who a connection is.
    """

    def __init__(
        self,
        hub: Hub,
        truth: Truth,
        turn: Callable[[], int],
        *,
        policed: bool = False,
        name_of: Callable[[int], str] = str,
    ) -> None:
        self._policed = policed
        self._hub = hub
        self._config = hub.config
        self._truth = truth
        self._turn = turn
        self._now = 0.0
        self._input: Input | None = None
        self._conns: dict[int, Conn] = {}
        self._held_total = 0
        self._name_of = name_of
        self._order = OrderOracle(hub.config, name_of)
        self._times = TimeOracle(hub.config)
        self._unstored = UnstoredOracle(hub.config)
        self._group_max = group_bytes_max(hub.config)
        self._held_max = held_bytes_max(hub.config)
        self.delivered: int = 0
        """Stored messages judged."""
        self.counts: dict[str, int] = {}
        """Messages of the protocol judged, by type, `$joined` by its outcome."""

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Judges one step. Raises: `OracleFailed`."""
        self._now, self._input = now, input
        self._times.note(now, input)
        self._order.note(input)
        self._note_input(input)
        touched: set[int] = set()
        for effect in effects:
            if isinstance(effect, SendBytes):
                touched.add(effect.conn)
                self._put((effect.conn,), effect.data, effect.frames)
            elif isinstance(effect, Broadcast):
                check(len(set(effect.conns)) == len(effect.conns), f"one frame went twice to one of {effect.conns}")
                touched.update(effect.conns)
                self._put(effect.conns, effect.data, effect.frames)
            else:
                self._note(effect)
        if isinstance(input, SendToAll):
            check_to_all(input, touched, self._conns, now)
        for id in touched:
            self._weigh(id)
        check(
            self._hub.unsent_bytes == self._held_total,
            f"{self._hub.unsent_bytes} unsent bytes are said to be held in all, expected {self._held_total}",
        )
        self._times.check_due(self._conns)

    def _note_input(self, input: Input) -> None:
        if isinstance(input, Connected):
            self._conns[input.conn] = Conn(self._config, self._now)
            self._order.connected(input.conn)
        elif isinstance(input, BytesReceived):
            self._take(input)
        elif isinstance(input, BytesFlushed):
            for id, count in input.flushed:
                self._flushed(id, count)
        elif isinstance(input, Join):
            self._join(input)
        elif isinstance(input, Publish):
            self._published(input)
        elif isinstance(input, Disconnected):
            gone = self._conns.pop(input.conn, None)
            self._held_total -= 0 if gone is None else gone.held
            for asked in () if gone is None else gone.asked.values():
                self._unstored.unanswered(asked)
            if gone is not None and not gone.opened:
                self._order.over(input.conn)

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, Authorize | MessageReceived | StoreAppend):
            self._order.put(effect)
        elif isinstance(effect, Closed):
            self._order.over(effect.conn)
        elif (
            isinstance(effect, Joined | Left | Opened | CloseTransport | PauseReading | ResumeReading)
            and effect.conn in self._conns
        ):
            self._note_of(self._conns[effect.conn], effect)

    def _note_of(
        self, conn: Conn, effect: Joined | Left | Opened | CloseTransport | PauseReading | ResumeReading
    ) -> None:
        if isinstance(effect, Joined):
            conn.places[effect.room] = Place(effect.room, not isinstance(self._input, Join))
            most = self._config.rooms_max
            check(len(conn.places) <= most, f"connection {effect.conn} is in {len(conn.places)} rooms, of {most}")
        elif isinstance(effect, Left):
            conn.places.pop(effect.room, None)
        elif isinstance(effect, Opened):
            conn.opened = True
            self._order.opened(effect.conn)
        elif isinstance(effect, CloseTransport):
            conn.ending = conn.transport_ended = True
        else:
            pauses = isinstance(effect, PauseReading)
            check(conn.paused is not pauses, f"connection {effect.conn}: {effect!r}, and paused is {conn.paused}")
            conn.paused = pauses
            if not pauses:
                conn.read_at = self._now

    # ---- bytes in -------------------------------------------------------------------------------

    def _take(self, input: BytesReceived) -> None:
        conn = self._conns.get(input.conn)
        if conn is None:
            return
        conn.heard_at = self._now
        whole = False
        for asked in conn.tap.feed(input.data):
            if asked.ends:
                conn.ending, conn.peer_code = True, asked.code
            elif asked.ping is not None:
                conn.pings.append(asked.ping)
            else:
                whole = True
                self._ask(input.conn, conn, asked)
        if not conn.tap.in_message:
            conn.partial_since = None
        elif whole or conn.partial_since is None:
            conn.partial_since = self._now

    def _ask(self, id: int, conn: Conn, asked: Asked) -> None:
        conn.frame_at = self._now
        asked.turn, asked.times_back = self._turn(), self._truth.times_back
        if asked.type == "$hello" and not conn.said:  # Another one is refused.
            conn.hello = True
            conn.scope = asked.pub
        asked.by_turn = conn.said
        conn.said += asked.type not in ("", "$ping")
        if asked.mid is not None and asked.ref is None and asked.room:
            conn.mids[asked.mid] += 1
        if asked.mid is not None:
            key = (self._name_of(id), asked.room or asked.inner_room, asked.mid)
            self._truth.sent.setdefault(key, set()).add((asked.kind, asked.type, asked.payload))
        asked.scope = conn.scope
        self._order.came(id, asked)
        self._offered(asked)
        if asked.room:
            asked.told = self._truth.told.get(asked.room, 0)
            asked.head = self._truth.head(asked.room)
            asked.floor = self._truth.floor(asked.room)
            if asked.ref is None:
                self._unstored.unanswered(asked)
        if asked.ref is not None:
            conn.asked[asked.ref] = asked
            conn.answered.discard(asked.ref)  # What was refused may be asked again under its ref.
        if asked.type == "$join" and asked.room in conn.places:
            conn.places[asked.room].rejoining = True

    def _offered(self, asked: Asked) -> None:
        if asked.mid is not None:
            key = (asked.scope, asked.room or asked.inner_room, asked.mid)
            self._truth.offered.setdefault(key, set()).add((asked.kind, asked.type, asked.payload))

    def _published(self, input: Publish) -> None:
        """A handler or a guard publishes in a client's name: what it gives is what is stored and acked."""
        if not input.store or not is_stored(self._config, input.room):
            self._unstored.published(input.room)
        conn = None if input.conn is None else self._conns.get(input.conn)
        asked = None if conn is None or input.ref is None else conn.asked.get(input.ref)
        if asked is not None and conn is not None and input.ref is not None:
            asked = replace(asked, type=input.type, payload=input.payload, kind=input.kind, mid=input.mid, by_app=True)
            conn.asked[input.ref] = asked
            self._offered(asked)

    def _join(self, input: Join) -> None:
        """A handler's join: it moves the cursor of one who is in the room only where it says to where."""
        conn = self._conns.get(input.conn)
        place = conn.places.get(input.room) if conn is not None else None
        if place is not None and (input.last or input.since is not None):
            place.rejoining = True
            place.by_wire = place.by_wire_asked = False

    def _flushed(self, id: int, count: int) -> None:
        conn = self._conns.get(id)
        if conn is not None:
            conn.held -= count
            self._held_total -= count
            conn.flushed_at = self._now
            check(conn.held >= 0, f"connection {id} flushed {count} bytes, more than it held")
            if conn.held < self._config.unsent_bytes_low:
                conn.heavy = False

    # ---- bytes out ------------------------------------------------------------------------------

    def _put(self, ids: Sequence[int], data: bytes, frames: int) -> None:
        """The same bytes are sent to each of `ids`."""
        unstored: dict[int, list[Heard]] = {}
        for id in ids:
            conn = self._conns.get(id)
            check(conn is not None, f"bytes were sent to connection {id}, which is over")
            if conn is None:
                continue
            if not conn.opened and data.startswith(b"HTTP/1.1 "):
                conn.held += len(data)
                if data.startswith(b"HTTP/1.1 101"):
                    conn.accepted = True
                    conn.since = conn.read_at = conn.frame_at = self._now
            else:
                unstored[id] = self._hear(id, conn, data)
            self._held_total += len(data)
        for heard in next(iter(unstored.values()), ()):
            if not self._policed:
                self._unstored.sent(heard, ids, self._conns)
        if frames:
            for id in ids:
                self._mark(id)

    def _mark(self, id: int) -> None:
        """Data frames were put: whoever holds too much is parked."""
        conn, config = self._conns[id], self._config
        conn.frame_at = self._now
        if conn.heavy or conn.held <= config.unsent_bytes_low:
            return
        if conn.held > config.unsent_bytes_high or self._held_total > config.unsent_bytes_total:
            conn.heavy = True
            conn.flushed_at = self._now
            self._unstored.parks(conn)

    def _hear(self, id: int, conn: Conn, data: bytes) -> list[Heard]:
        """Judges what one connection is sent; returns the messages that no log keeps."""
        check(not conn.closed, f"connection {id} was sent {data!r:.80} behind its close frame")
        group = False
        unstored: list[Heard] = []
        for heard in frames_of(data):
            if heard.close:
                self._times.closes(id, conn, heard)
                conn.closed = conn.ending = True
                conn.since = self._now
            elif heard.ping:
                self._times.pings(id, conn)
            elif heard.pong is not None:
                check(
                    bool(conn.pings) and conn.pings.popleft() == heard.pong, f"connection {id}: {heard.pong!r} unasked"
                )
            elif heard.type[:1] == "$":
                self._protocol(id, conn, heard)
            elif heard.room is not None:
                group = True
                self._message(id, conn, heard)
                if not heard.off:
                    unstored.append(heard)
            else:
                self._answer(id, conn, heard)
        if group:
            # PROTOCOL §5: "Above high the server stops advancing that connection's cursors".
            # Whom the budget of all parks gets the rest of its page: it was asked for with this much room.
            parked = conn.heavy and (conn.held > self._config.unsent_bytes_high or conn.flushed_at < self._now)
            check(not parked, f"connection {id} holds {conn.held} unsent bytes, expected it to be parked: {data!r:.80}")
            check(
                len(data) <= self._group_max,
                f"connection {id} was sent a group of {len(data)} bytes, expected at most {self._group_max}",
            )
        conn.held += len(data)
        return unstored

    def _weigh(self, id: int) -> None:
        conn = self._conns.get(id)
        if conn is None:
            return
        held = self._hub.unsent_bytes_of(id)
        check(held == conn.held, f"connection {id} is said to hold {held} unsent bytes, expected {conn.held}")
        check(held <= self._held_max, f"connection {id} holds {held} unsent bytes, expected at most {self._held_max}")
        # PROTOCOL §5: "Above high the socket is not read at all".
        reads = conn.heavy and not (conn.paused or conn.ending)
        check(not reads, f"connection {id} holds {held} unsent bytes and is read, expected it to be paused")

    def _message(self, id: int, conn: Conn, heard: Heard) -> None:
        room = heard.room or ""
        place = conn.places.get(room)
        check(place is not None, f"connection {id} is sent {heard!r:.200}, expected it to be in {room!r}")
        if place is not None and heard.off:
            self.delivered += 1
            place.message(id, heard, self._truth, told=place.is_told(conn.hello))

    def _answer(self, id: int, conn: Conn, heard: Heard) -> Asked | None:
        """Takes one answer: every ref gets exactly one (PROTOCOL §11)."""
        if heard.ref is None:
            return None
        check(heard.ref not in conn.answered, f"connection {id}: a second answer to {heard.ref!r}: {heard!r:.200}")
        asked = conn.asked.pop(heard.ref, None)
        check(asked is not None, f"connection {id}: an answer to {heard.ref!r}, which was not asked: {heard!r:.200}")
        conn.answered.add(heard.ref)
        return asked

    def _protocol(self, id: int, conn: Conn, heard: Heard) -> None:
        name = outcome_of(heard)
        self.counts[name] = self.counts.get(name, 0) + 1
        asked = self._answer(id, conn, heard) if heard.type in _ANSWERS else None
        if asked is None:
            conn.loose_errors += heard.payload.get("code") in OF_PUBLISHES
            if heard.type == "$ack":
                conn.mids[str(heard.payload.get("mid"))] -= 1
        room = heard.room or ""
        if heard.type == "$kicked":
            conn.kicked.add(room)
        elif heard.type == "$drain":
            self._times.drains(id, conn, heard)
        elif heard.type == "$err":
            check_error(id, heard, asked, self._config, conn, self._truth)
            if asked is not None and heard.payload.get("retry"):
                self._order.refused(id, asked.ref or "")
        elif heard.type in ("$joined", "$live", "$gap", "$reset"):
            place = conn.places.get(room)
            check(place is not None, f"connection {id} is told {heard!r:.200}, expected it to be in {room!r}")
            if place is not None:
                self._of_place(id, place, heard, asked)
        elif asked is not None:
            check_answer(id, heard, asked, self._truth, self._config, conn)
            if heard.type == "$ack" and asked.room and "off" not in heard.payload and not asked.by_app:
                self._unstored.published(asked.room)
            if heard.type == "$left":
                self._order.turn(id, asked)

    def _of_place(self, id: int, place: Place, heard: Heard, asked: Asked | None) -> None:
        if heard.type == "$joined":
            place.by_wire = asked is not None
            told = heard.payload
            fresh = told.get("reason") == "fresh" and told.get("from") == told.get("head")
            if asked is not None and self._policed and fresh:
                asked.since, asked.last = None, 0  # It may not read what was published before.
            check_joined(id, place, heard, asked, self._truth, self._turn())
        elif heard.type == "$live":
            place.live(id, heard)
        elif heard.type == "$reset":
            place.reset(id, heard, self._truth)
        elif "from" in heard.payload:
            place.gap(id, heard, self._truth)
        elif not self._policed:
            self._unstored.gap(id, place, heard)

    # ---- at the end -----------------------------------------------------------------------------

    def stands(self) -> str:
        """Who lacks messages though nothing is under way to him and he takes bytes; "" for nobody."""
        return what_stands(self._conns, self._truth)

    def lacks(self) -> str:
        """What some connection still lacks; "" for nothing: every member has its room's log up to the head."""
        return what_lacks(self._conns, self._truth, self._policed)
