"""An oracle at a hub's door: what a hub may put out, to whom and when (PROTOCOL §13: 1, 2, 3, 5, 8, 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..codes import MID_CONFLICT
from ..config import HubConfig
from ..effects import Broadcast, CloseTransport, Effect, Joined, Left, Opened, SendBytes
from ..hub import Hub
from ..inputs import BytesFlushed, BytesReceived, Connected, Disconnected, Input, Join, Publish
from ..names import matches
from .cursor_oracle import Place, check_joined
from .decoding import Asked, Heard, InTap, frames_of
from .oracle import check
from .store import Truth

__all__ = ["DoorOracle", "group_bytes_max", "held_bytes_max"]

_HEAD_BYTES = 1_024
"""What a message's head adds to its payload at most: names of 128 bytes, keys of 128 characters, JSON around them."""

_FRAME_BYTES = 14
"""The longest header of a frame (RFC 6455 §5.2)."""

_ANSWERS = frozenset(("$ack", "$err", "$joined", "$left", "$page", "$position", "$pong", "$welcome"))


def group_bytes_max(config: HubConfig) -> int:
    """The most bytes of room messages that go to one connection at once.

    A group of one commit ends with the frame that passes 65,536 bytes; a page holds `page_bytes_max` payload
    bytes (or one message), and a head for each of its rows.
    """
    frame = config.message_bytes_max + _HEAD_BYTES
    return max(65_536 + frame, max(config.page_bytes_max, frame) + config.page_rows_max * _HEAD_BYTES)


def held_bytes_max(config: HubConfig) -> int:
    """The most unsent bytes that a hub holds for one connection (PROTOCOL §5 and §13.8).

    The high mark, and one group of room messages that may pass it. Above the mark only answers follow: to what
    waits for the store (`publishes_max` in all, of which a page counts as a sixteenth), for the application,
    or in the step at hand. A page is at most one message of PROTOCOL §1, any other answer 2 KiB.
    """
    page = config.message_bytes_max + 4_096 + _FRAME_BYTES
    pages = config.publishes_max // max(1, config.publishes_max // 16)
    pages += config.pending_messages_max + 2 * config.events_per_step_max
    return config.unsent_bytes_high + group_bytes_max(config) + pages * page + config.publishes_max * 2_048


class _Conn:
    """What the oracle knows of one connection."""

    __slots__ = (
        "answered",
        "asked",
        "closed",
        "ending",
        "heavy",
        "held",
        "hello",
        "kicked",
        "opened",
        "places",
        "scope",
        "tap",
    )

    def __init__(self, config: HubConfig) -> None:
        self.tap: InTap = InTap(config.message_bytes_max)
        self.opened: bool = False
        self.hello: bool = False
        self.kicked: set[str] = set()
        """Rooms it was put out of: an answer may have to be silent about them."""
        self.scope: str = ""
        self.closed: bool = False
        """A close frame was sent: nothing follows it."""
        self.ending: bool = False
        """The peer's end or ours has begun; what is unanswered may stay so."""
        self.held: int = 0
        self.heavy: bool = False
        """It was above its high mark and has not come below the low one since."""
        self.places: dict[str, Place] = {}
        self.asked: dict[str, Asked] = {}
        """What was asked with a `ref` and is not answered."""
        self.answered: set[str] = set()


class DoorOracle:
    """A consumer that judges every step of one hub. `truth` is what its log holds.

    It reads the bytes that go in and out, so it needs to know nothing of how the hub works inside. For any
    hub whose store's log is at hand: `SimStore` keeps a `Truth`.
    """

    def __init__(self, hub: Hub, truth: Truth, turn: Callable[[], int], *, policed: bool = False) -> None:
        self._policed = policed
        self._hub = hub
        self._config = hub.config
        self._truth = truth
        self._turn = turn
        self._conns: dict[int, _Conn] = {}
        self._group_max = group_bytes_max(hub.config)
        self._held_max = held_bytes_max(hub.config)
        self.delivered: int = 0
        """Stored messages judged."""
        self.counts: dict[str, int] = {}
        """Messages of the protocol judged, by type, `$joined` by its outcome."""

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Judges one step. Raises: `OracleFailed`."""
        if isinstance(input, Connected):
            self._conns[input.conn] = _Conn(self._config)
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
            self._conns.pop(input.conn, None)
        touched: set[int] = set()
        for effect in effects:
            if isinstance(effect, SendBytes):
                touched.add(effect.conn)
                self._put(effect.conn, effect.data)
            elif isinstance(effect, Broadcast):
                check(len(set(effect.conns)) == len(effect.conns), f"one frame went twice to one of {effect.conns}")
                touched.update(effect.conns)
                for conn in effect.conns:
                    self._put(conn, effect.data)
            else:
                self._note(effect)
        for id in touched:
            self._weigh(id)

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, Joined):
            conn = self._conns.get(effect.conn)
            if conn is not None:
                conn.places[effect.room] = Place(effect.room)
        elif isinstance(effect, Left):
            conn = self._conns.get(effect.conn)
            if conn is not None:
                conn.places.pop(effect.room, None)
        elif isinstance(effect, Opened):
            self._conns[effect.conn].opened = True
        elif isinstance(effect, CloseTransport):
            conn = self._conns.get(effect.conn)
            if conn is not None:
                conn.ending = True

    # ---- bytes in -------------------------------------------------------------------------------

    def _take(self, input: BytesReceived) -> None:
        conn = self._conns.get(input.conn)
        if conn is None:
            return
        for asked in conn.tap.feed(input.data):
            if asked.ends:
                conn.ending = True
                continue
            asked.turn = self._turn()
            if asked.type == "$hello":
                conn.hello = True
                conn.scope = asked.pub
            asked.scope = conn.scope
            self._offered(asked)
            if asked.room:
                asked.told = self._truth.told.get(asked.room, 0)
                asked.head = self._truth.head(asked.room)
                asked.floor = self._truth.floor(asked.room)
            if asked.ref is not None:
                conn.asked[asked.ref] = asked
                conn.answered.discard(asked.ref)  # What was refused may be asked again under its ref.
            if asked.type == "$join" and asked.room in conn.places:
                conn.places[asked.room].rejoining = True

    def _offered(self, asked: Asked) -> None:
        if asked.mid is not None:
            key = (asked.scope, asked.room or asked.inner_room, asked.mid)
            self._truth.offered.setdefault(key, set()).add(asked.payload)

    def _published(self, input: Publish) -> None:
        """A handler or a guard publishes in a client's name: what it gives is what is stored and acked."""
        conn = None if input.conn is None else self._conns.get(input.conn)
        asked = None if conn is None or input.ref is None else conn.asked.get(input.ref)
        if asked is not None:
            asked.type, asked.payload = input.type, input.payload
            self._offered(asked)

    def _join(self, input: Join) -> None:
        """A handler's join: it moves the cursor of one who is in the room only where it says to where."""
        conn = self._conns.get(input.conn)
        place = conn.places.get(input.room) if conn is not None else None
        if place is not None and (input.last or input.since is not None):
            place.rejoining = True
            place.by_wire = False

    def _flushed(self, id: int, count: int) -> None:
        conn = self._conns.get(id)
        if conn is not None:
            conn.held -= count
            check(conn.held >= 0, f"connection {id} flushed {count} bytes, more than it held")
            if conn.held < self._config.unsent_bytes_low:
                conn.heavy = False

    # ---- bytes out ------------------------------------------------------------------------------

    def _put(self, id: int, data: bytes) -> None:
        conn = self._conns.get(id)
        check(conn is not None, f"bytes were sent to connection {id}, which is over")
        if conn is None:
            return
        if not conn.opened and data.startswith(b"HTTP/1.1 "):
            conn.held += len(data)
            return
        check(not conn.closed, f"connection {id} was sent {data!r:.80} behind its close frame")
        group = False
        for heard in frames_of(data):
            if heard.close:
                conn.closed = conn.ending = True
            elif heard.type[:1] == "$":
                self._protocol(id, conn, heard)
            elif heard.room is not None:
                group = True
                self._message(id, conn, heard)
            else:
                self._answer(id, conn, heard)
        if group:
            # PROTOCOL §5: "Above high the server stops advancing that connection's cursors".
            check(
                not conn.heavy and conn.held <= self._config.unsent_bytes_high,
                f"connection {id} holds {conn.held} unsent bytes and is sent room messages, expected it to be parked",
            )
            check(
                len(data) <= self._group_max,
                f"connection {id} was sent a group of {len(data)} bytes, expected at most {self._group_max}",
            )
        conn.held += len(data)
        if conn.held > self._config.unsent_bytes_high:
            conn.heavy = True

    def _weigh(self, id: int) -> None:
        conn = self._conns.get(id)
        if conn is None:
            return
        held = self._hub.unsent_bytes_of(id)
        check(held == conn.held, f"connection {id} is said to hold {held} unsent bytes, expected {conn.held}")
        check(held <= self._held_max, f"connection {id} holds {held} unsent bytes, expected at most {self._held_max}")

    def _message(self, id: int, conn: _Conn, heard: Heard) -> None:
        room = heard.room or ""
        place = conn.places.get(room)
        check(place is not None, f"connection {id} is sent {heard!r:.200}, expected it to be in {room!r}")
        if place is not None and heard.off:
            self.delivered += 1
            place.message(id, heard, self._truth, told=conn.hello or place.by_wire)

    def _answer(self, id: int, conn: _Conn, heard: Heard) -> Asked | None:
        """Takes one answer: every ref gets exactly one (PROTOCOL §11)."""
        if heard.ref is None:
            return None
        check(heard.ref not in conn.answered, f"connection {id}: a second answer to {heard.ref!r}: {heard!r:.200}")
        asked = conn.asked.pop(heard.ref, None)
        check(asked is not None, f"connection {id}: an answer to {heard.ref!r}, which was not asked: {heard!r:.200}")
        conn.answered.add(heard.ref)
        return asked

    def _count(self, heard: Heard) -> None:
        name = heard.type
        if name == "$joined" and heard.payload.get("stored"):
            name += f" {heard.payload.get('reason', 'recovered')}"
        elif name == "$err":
            name += f" {heard.payload.get('code')}"
        elif name == "$ack" and heard.payload.get("dup"):
            name += " dup"
        self.counts[name] = self.counts.get(name, 0) + 1

    def _protocol(self, id: int, conn: _Conn, heard: Heard) -> None:
        self._count(heard)
        asked = self._answer(id, conn, heard) if heard.type in _ANSWERS else None
        room = heard.room or ""
        if heard.type == "$kicked":
            conn.kicked.add(room)
        if heard.type == "$ack" and asked is not None:
            self._ack(id, heard, asked)
        elif heard.type == "$err" and asked is not None:
            self._err(id, heard, asked)
        elif heard.type in ("$joined", "$live", "$gap", "$reset"):
            place = conn.places.get(room)
            check(place is not None, f"connection {id} is told {heard!r:.200}, expected it to be in {room!r}")
            if place is None:
                return
            if heard.type == "$joined":
                place.by_wire = asked is not None
                told = heard.payload
                fresh = told.get("reason") == "fresh" and told.get("from") == told.get("head")
                if asked is not None and self._policed and fresh:
                    asked.since, asked.last = None, 0  # It may not read what was published before.
                check_joined(id, place, heard, asked, self._truth, self._turn())
            elif heard.type == "$live":
                place.live(id, heard)
            elif heard.type == "$gap" and "from" in heard.payload:
                place.gap(id, heard, self._truth)
            elif heard.type == "$reset":
                place.reset(id, heard, self._truth)

    # ---- publishes ------------------------------------------------------------------------------

    def _ack(self, id: int, heard: Heard, asked: Asked) -> None:
        """Acked ⇒ stored, under the offset told, with the content sent (PROTOCOL §4)."""
        off, room = heard.payload.get("off"), heard.room or ""
        if off is None:
            kept = asked.room is not None and not any(matches(name, room) for name in self._config.unstored_rooms)
            kept = kept and not (asked.room in self._conns[id].kicked and heard.room is None)
            check(not kept, f"connection {id}: ack without an offset to {asked!r:.200}, expected it to be stored")
            return
        row = self._truth.row(room, int(off))
        check(row is not None, f"connection {id}: ack of {room!r} {off}, expected it to be committed")
        if row is None:
            return
        same = (row.id, row.ep) == (heard.payload.get("id"), heard.payload.get("ep"))
        check(same, f"connection {id}: {heard!r:.200} for the entry {row!r:.200}")
        check(
            (row.type, row.payload_json) == (asked.type, asked.payload),
            f"connection {id}: ack of {asked!r:.200} names {row!r:.200}, which has another content",
        )

    def _err(self, id: int, heard: Heard, asked: Asked) -> None:
        if heard.payload.get("code") == MID_CONFLICT:
            contents = self._truth.offered.get((asked.scope, asked.room or asked.inner_room, asked.mid or ""), set())
            check(len(contents) > 1, f"connection {id}: mid_conflict for {asked!r:.200}, the one content of this key")

    # ---- at the end -----------------------------------------------------------------------------

    def stands(self) -> str:
        """Who lacks messages though nothing is under way to him and he takes bytes; "" for nobody."""
        for id, conn in self._conns.items():
            if conn.opened and not conn.ending and not conn.held:
                for place in conn.places.values():
                    lacking = place.lacks(self._truth)
                    if lacking:
                        return f"connection {id}: {lacking}"
        return ""

    def lacks(self) -> str:
        """What some connection still lacks; "" for nothing: every member has its room's log up to the head."""
        for id, conn in self._conns.items():
            if conn.ending or not conn.opened:
                continue
            if conn.asked:
                return f"connection {id}: no answer to {next(iter(conn.asked.values()))!r:.200}"
            for place in conn.places.values():
                lacking = place.lacks(self._truth)
                if lacking:
                    return f"connection {id}: {lacking}"
        return ""
