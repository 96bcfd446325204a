"""Hypothesis strategies for stories and faults; importing this module needs the extra `testing`.

What Hypothesis shrinks is the story: what it prints of a failure is the shortest one that fails, an action a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .faults import NO_FAULTS, Faults
from .story import (
    Action,
    CrashServer,
    CutConnection,
    DrainServer,
    JoinRoom,
    LeaveRoom,
    LetRun,
    Publish,
    Send,
    StartClient,
    StopClient,
    TrimRoom,
)

__all__ = ["Payloads", "actions", "faults", "stories"]

Payloads: TypeAlias = Mapping[str, SearchStrategy[Mapping[str, Any]]]
"""For each type of message: what its payloads may be."""

_NOTES: Payloads = {"note": st.fixed_dictionaries({"n": st.integers(0, 9)})}


def actions(
    *,
    clients: int = 3,
    rooms: Sequence[str] = ("lobby",),
    publishes: Payloads | None = None,
    sends: Payloads | None = None,
    breaks: bool = True,
) -> SearchStrategy[Action]:
    """One thing that a client does or that goes wrong; without `breaks` nothing goes wrong.

    `publishes` are published into `rooms`; `sends` go to the application's `on(type)` handlers.
    """
    who, where = st.integers(0, clients - 1), st.sampled_from(tuple(rooms))
    found: list[SearchStrategy[Action]] = [
        st.builds(LetRun, st.integers(1, 20)),
        st.builds(JoinRoom, who, where, st.integers(0, 5)),
        st.builds(LeaveRoom, who, where),
    ]
    notes = _NOTES if publishes is None and not sends else publishes or {}
    for type, payload in notes.items():
        found.append(st.builds(Publish, who, where, st.just(type), payload))
    for type, payload in (sends or {}).items():
        found.append(st.builds(Send, who, st.just(type), payload))
    if breaks:
        found += [
            st.builds(CutConnection, who),
            st.builds(StopClient, who),
            st.builds(StartClient, who),
            st.builds(CrashServer, st.booleans()),
            st.builds(DrainServer),
            st.builds(TrimRoom, where, st.integers(0, 9)),
        ]
    return st.one_of(found)


def stories(
    *,
    clients: int = 3,
    rooms: Sequence[str] = ("lobby",),
    publishes: Payloads | None = None,
    sends: Payloads | None = None,
    breaks: bool = True,
    max_size: int = 30,
) -> SearchStrategy[list[Action]]:
    """Up to `max_size` actions, one after another; see `actions`."""
    one = actions(clients=clients, rooms=rooms, publishes=publishes, sends=sends, breaks=breaks)
    return st.lists(one, max_size=max_size)


def faults() -> SearchStrategy[Faults]:
    """What goes wrong by itself: nothing first of all, so that a failure shrinks to a world without faults."""
    rate = st.sampled_from((0.0, 0.01, 0.05))
    some = st.builds(
        Faults,
        cut=rate,
        half_open=st.sampled_from((0.0, 0.005)),
        refuse=st.sampled_from((0.0, 0.2)),
        chunk=st.sampled_from((0.0, 0.5, 0.9)),
        slow=st.sampled_from((0.0, 0.5)),
        kernel_bytes=st.sampled_from((1 << 30, 2_048, 300)),
        store_pace=st.sampled_from((0.8, 0.4, 0.1)),
        store_fail=rate,
        store_lie=rate,
        trim=rate,
        crash=st.sampled_from((0.0, 0.005)),
        drain=st.sampled_from((0.0, 0.005)),
        restore=st.sampled_from((0.0, 0.5)),
    )
    return st.one_of(st.just(NO_FAULTS), some)
