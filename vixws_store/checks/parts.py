"""What the conformance checks are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio

from vixws_core.effects import Effect, StoreAppend
from vixws_core.inputs import Input, RoomAdvanced, StoreAppended, StoreFailed, TimePassed
from vixws_core.protocols import MessageStore

__all__ = ["Check", "Inbox", "MakeStore", "Reopen", "appended", "ask", "check", "equal", "fill", "rising"]

MakeStore: TypeAlias = Callable[[], MessageStore]
"""Gives a store, not running, over new and empty data."""

Reopen: TypeAlias = Callable[[MessageStore], MessageStore]
"""Gives another store object over the data of a store that has ended."""

WAIT_S = 30.0
"""How long a check waits for an answer before it fails."""


class Check:
    """One named promise. Call it with a factory; `str` gives its name."""

    def __init__(self, run: Callable[[MakeStore, Reopen | None], Awaitable[None]], durable: bool) -> None:
        self.name: str = run.__name__
        self.durable = durable
        self.__doc__ = run.__doc__
        self._run = run

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    async def __call__(self, make: MakeStore, reopen: Reopen | None = None) -> None:
        """Runs the check; one about kept data passes at once where `reopen` is not given.

        Raises: `AssertionError` where the promise is broken.
        """
        if self.durable and reopen is None:
            return
        with anyio.move_on_after(4 * WAIT_S) as scope:
            await self._run(make, reopen)
        equal(False, scope.cancelled_caught, f"{self.name} must end within {4 * WAIT_S} s")


def check(run: Callable[[MessageStore], Awaitable[None]]) -> Check:
    """Makes a check of a function that takes a running store without a hub."""

    async def with_store(make: MakeStore, reopen: Reopen | None) -> None:
        store = make()
        async with store.run():
            await run(store)

    with_store.__name__, with_store.__doc__ = run.__name__, run.__doc__
    return Check(with_store, durable=False)


class Inbox:
    """A hub's side of a store: takes posts, one list entry per post, and shows asks to the consumer."""

    def __init__(self, store: MessageStore) -> None:
        self.posts: list[tuple[Input, ...]] = []
        self._store = store
        self._arrived = anyio.Event()

    def post(self, *inputs: Input) -> None:
        """Takes what the store posts."""
        self.posts.append(inputs)
        self._arrived.set()

    def show(self, *effects: Effect) -> None:
        """Shows one step's effects to the store's consumer."""
        self._store.consumer.see(0.0, TimePassed(), list(effects))

    @property
    def inputs(self) -> list[Input]:
        """All that was posted, in order."""
        return [input for post in self.posts for input in post]

    async def wait_answers(self, requests: set[int]) -> dict[int, Input]:
        """Waits until each of the requests is answered; returns the answers."""
        with anyio.move_on_after(WAIT_S):
            while True:
                found = {
                    number: input
                    for input in self.inputs
                    if (number := getattr(input, "request", None)) is not None and number in requests
                }
                if len(found) == len(requests):
                    return found
                await self._arrived.wait()
                self._arrived = anyio.Event()
        raise AssertionError(f"no answer within {WAIT_S} s to all of {sorted(requests)}, got {self.posts!r:.500}")

    def check_order(self) -> None:
        """Raises: `AssertionError` where an answer came before the advance of its room, or offsets jumped."""
        heads: dict[str, tuple[int, str]] = {}
        known: dict[str, int] = {}
        for input in self.inputs:
            if isinstance(input, RoomAdvanced):
                offs = [row.off for row in input.entries]
                last, last_id = heads.get(input.room, (0, ""))
                wanted = list(range(last + 1, last + 1 + len(offs)))
                equal(wanted, offs, "a RoomAdvanced continues where the last ended")
                equal(last_id, input.prev_id, "a RoomAdvanced carries the id of the entry before it")
                equal(input.head, offs[-1], "a RoomAdvanced ends at its head")
                heads[input.room] = (input.head, input.entries[-1].id)
                known.update({row.id: row.off for row in input.entries})
            elif isinstance(input, StoreAppended):
                equal(input.off, known.get(input.id), "a StoreAppended comes after the RoomAdvanced with its entry")


def ask(
    request: int = 0,
    room: str = "room",
    payload: bytes = b"{}",
    *,
    mid: str | None = None,
    digest: bytes | None = None,
    scope: str = "",
    sender: str | None = None,
    type: str = "note",
    kind: str = "event",
) -> StoreAppend:
    """An append, with defaults for what a check does not care about."""
    return StoreAppend(request, room, kind, type, payload, mid, digest, scope, sender)


async def fill(store: MessageStore, count: int, room: str = "room", payload: bytes = b"{}") -> list[str]:
    """Appends `count` messages in one batch and returns their ids."""
    result = await store.append_batch([ask(number, room, payload) for number in range(count)])
    return [appended(answer).id for answer in result.answers]


def appended(answer: StoreAppended | StoreFailed) -> StoreAppended:
    """The answer of an append that must have gone well."""
    if isinstance(answer, StoreFailed):
        raise AssertionError(f"an append was expected to be stored, got {answer}")
    return answer


def equal(expected: object, actual: object, promise: str) -> None:
    """Raises: `AssertionError` naming the promise where both differ."""
    if expected != actual:
        raise AssertionError(f"{promise}: expected {expected!r:.400}, got {actual!r:.400}")


def rising(ids: Sequence[str], promise: str) -> None:
    """Raises: `AssertionError` where ids are not 20 digits each or do not rise."""
    equal([True] * len(ids), [len(id) == 20 and id.isdigit() for id in ids], "an id has 20 digits")
    equal(sorted(set(ids)), list(ids), promise)
