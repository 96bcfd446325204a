"""Between the records of a hub and the calls of a store: what is asked, and what is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from vixws_core.effects import FindPosition, ListStore, ReadStore
from vixws_core.errors import StoreError
from vixws_core.inputs import PositionKnown, StoreFailed, StoreListed
from vixws_core.log import Page, Position, StoreAnswer, id_number, known_answer, read_answer
from vixws_core.message import StoredMessage

from .answer import Answer
from .damage import RoomDamaged
from .positions import Asked

__all__ = ["Call", "Read", "all_failed", "call_of", "failed", "known", "place_of", "places_of", "told"]

Read: TypeAlias = ReadStore | ListStore
Call: TypeAlias = tuple[str, tuple[Any, ...]]
"""A method of the reader, and its arguments."""


def failed(request: int, error: StoreError) -> StoreFailed:
    """That a request came to nothing."""
    return StoreFailed(request, error.code, str(error), error.retry, error.expected)


def call_of(ask: Read) -> Call:
    """The reader's method and arguments for an ask; equal for asks that may share an answer."""
    if isinstance(ask, ReadStore):
        return "read", (ask.room, ask.after, ask.until, ask.rows_max, ask.bytes_max, ask.newest_first)
    return "list_by_room", (ask.room, ask.limit, None if ask.before_id is None else id_number(ask.before_id))


def told(request: int, result: Page | list[StoredMessage]) -> StoreAnswer:
    """What a read found."""
    if isinstance(result, Page):
        return read_answer(request, result)
    return StoreListed(request, tuple(result))


def known(request: int, found: Position | RoomDamaged) -> PositionKnown | StoreFailed:
    """Where a room stands, or that it is damaged."""
    if isinstance(found, RoomDamaged):
        return failed(request, found)
    return known_answer(request, found)


def place_of(ask: FindPosition) -> Asked:
    """What is asked of where a room stands."""
    return ask.room, ask.off, ask.last


def places_of(asks: Iterable[FindPosition]) -> list[Asked]:
    """The same of several, each once."""
    return list(dict.fromkeys(map(place_of, asks)))


def all_failed(error: StoreError, asked: Iterable[Read | FindPosition | Answer]) -> list[StoreAnswer]:
    """Tells direct callers of a failure and returns what a hub must be told."""
    answers: list[StoreAnswer] = []
    for who in asked:
        if isinstance(who, Answer):
            who.fail(error)
        else:
            answers.append(failed(who.request, error))
    return answers
