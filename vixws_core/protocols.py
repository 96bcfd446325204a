"""What the packages share: the shapes of a consumer and of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, overload, runtime_checkable

import msgspec

from .effects import Effect, StoreAppend
from .inputs import Input, Since
from .log import BatchResult, Page, Position, Redacted
from .message import Json, JsonMessage, StoredMessage
from .retention import Retention

__all__ = [
    "Consumer",
    "Damageable",
    "Hurried",
    "Limited",
    "MessageStore",
    "Outbox",
    "OutboxEntry",
    "Post",
    "Retained",
]


class Consumer(Protocol):
    """Sees every step that passes the door, in order. Must not raise or wait; inputs that it puts wait in line.

    One that has an attribute `sees_only`, a collection of types of effects, sees only the steps with one of those.
    """

    def see(self, now: float, input: Input, effects: list[Effect], /) -> None:
        """Takes note of one step. `effects` is not to be changed."""
        ...


Post = Callable[..., None]
"""`post(*inputs)`: hands inputs to the hub's pump, all in one go. Belongs to the event loop's thread."""


class MessageStore(Protocol):
    """Durable logs of rooms: the contract that every store keeps; `vixws_store.checks` tests it.

    What a hub asks is carried out in the order of `Consumer.see` as far as order can be noticed: one commit
    posts its `RoomAdvanced` before its answers, in one post; a room's `RoomAdvanced` come in order of offsets;
    and a `FindPosition` is answered as of a moment before any append that was asked after it, with its
    `PositionKnown` posted before the `RoomAdvanced` of any such append and after the `RoomAdvanced` of every
    commit that it includes. So whoever joins a room and then publishes into it gets the own message.

    Methods raise `StoreError` where the storage cannot do what was asked.
    """

    @property
    def durable(self) -> str:
        """What an acknowledgement promises: `fsync`, `process`, `memory` or `engine`."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the last contact with the storage succeeded; recovers by itself while it runs."""
        ...

    @property
    def queue_depth(self) -> int:
        """Appends accepted and not yet committed."""
        ...

    @property
    def consumer(self) -> Consumer:
        """Carries out the store's asks among a hub's effects while `run` is entered."""
        ...

    def run(self, post: Post | None = None) -> AbstractAsyncContextManager[None]:
        """Opens the store in the running event loop, asyncio or trio; closes it at the end, flushed.

        With `post`, commits and answers are posted to a hub.
        """
        ...

    @overload
    async def append(self, kind: str, room: str, type: str, payload: Json, /) -> str: ...
    @overload
    async def append(self, message: JsonMessage, /) -> str: ...

    async def append_batch(self, appends: Sequence[StoreAppend], /) -> BatchResult:
        """Appends all in one commit, in order."""
        ...

    async def read(
        self,
        room: str,
        after: int,
        until: int,
        rows_max: int = 500,
        bytes_max: int = 1 << 20,
        newest_first: bool = False,
    ) -> Page:
        """Rows with `after` < off ≤ `until` from one snapshot; see `ReadStore`."""
        ...

    async def position(self, room: str, off: int | None = None) -> Position:
        """Where the room's log stands, and the id at `off`; writes nothing."""
        ...

    async def list_by_room(self, room: str, limit: int, before_id: str | None = None) -> list[StoredMessage]:
        """The newest `limit` messages below `before_id`, oldest first."""
        ...

    async def replay_from(self, id: str, limit: int | None = None) -> list[StoredMessage]:
        """Messages of all rooms with an id above `id`, in id order."""
        ...

    async def trim(self, room: str, upto: int) -> int:
        """Forgets entries up to the offset `upto`; returns how many."""
        ...

    async def redact(self, room: str, off: int) -> Redacted | None:
        """Replaces the payload of the entry at `off` by `{"$redacted":true}`, for ever; None where there is none.

        Offset, id, type, sender and time stay, and so does its key: whatever is sent under it again is a dup. Returns
        when it is durable and the old bytes are out of the storage, as far as that lies in the store's hands. What
        `run` posts to is told `EntryRedacted`, whether anybody still waits for this call or not.
        """
        ...


@runtime_checkable
class Retained(Protocol):
    """What a store may offer besides: to keep no more of its rooms than a configuration says, while it runs."""

    def retain(self, rules: Sequence[Retention]) -> None:
        """Of each room what the first fitting rule says is kept, from the next `run` on; instead of other rules."""
        ...


@runtime_checkable
class Limited(Protocol):
    """What a store may offer besides, so that nothing is appended that its server's clients cannot take."""

    message_bytes_max: int | None
    """Bytes of a payload that is appended; None: any."""


@runtime_checkable
class Hurried(Protocol):
    """What a store may offer besides, so that a server that stops does not wait for it beyond its drain."""

    def hurry(self, wait_s: float, flush_s: float | None = None) -> None:
        """The end of `run` comes: waits for others, such as their locks, end in `wait_s`, and what waited fails.

        With `flush_s` the flush at the end is over by then. May be called again, which only hurries it more.
        """
        ...


@runtime_checkable
class Damageable(Protocol):
    """What a store may offer besides, so that a server can name the rooms that it cannot serve."""

    @property
    def damaged_rooms(self) -> tuple[str, ...]:
        """Rooms whose log was found damaged: what is asked of them fails `store_unavailable`, and only that."""
        ...


class OutboxEntry(msgspec.Struct, frozen=True, gc=False):
    """One publish of a client without a final answer. `mid` is its key; `payload` is the JSON of an object."""

    mid: str
    room: str
    type: str
    payload: bytes = b"{}"
    kind: str = "event"


class Outbox(Protocol):
    """What a client keeps, so that it goes on after it was killed (PROTOCOL §4): publishes and positions.

    A publish is `put` before it is sent and `settle`d at its final answer, whatever that is. Started again, the
    client shows the same `pub`, publishes everything that `load` gives, in that order and under the same
    `mid`s, before anything new, and joins its rooms with `positions`. What is settled, or moved, just before a
    kill may come once more: the server answers a repeat as a dup.

    Belongs to one client in one event loop. Methods raise `LocalError` outside of `run`.
    """

    @property
    def pub(self) -> str:
        """The client's secret for `$hello`, kept with the entries, for it scopes their `mid`s."""
        ...

    def run(self) -> AbstractAsyncContextManager[None]:
        """Opens the outbox in the running event loop, asyncio or trio; closes it at the end, flushed."""
        ...

    async def load(self) -> list[OutboxEntry]:
        """All entries, oldest first."""
        ...

    async def put(self, entry: OutboxEntry) -> None:
        """Keeps an entry; returns when it is durable. The same entry again is no second one.

        Raises: `LocalError` where another entry has this `mid`, `StoreError` where it cannot be kept.
        """
        ...

    def settle(self, mid: str) -> None:
        """Forgets an entry, durably soon. Nothing happens where there is none."""
        ...

    async def positions(self) -> dict[str, Since]:
        """The position of each room that has one."""
        ...

    def keep_position(self, room: str, since: Since | None) -> None:
        """Sets a room's position, or forgets it with None, durably soon."""
        ...
