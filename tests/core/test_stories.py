"""Stories made up by Hypothesis: what a failure shrinks to is short, and names who did what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vixws_core.app import Session
from vixws_core.testing import Faults, OracleFailed, SimServer, World
from vixws_core.testing.story import Action, CrashServer, CutConnection, JoinRoom, LetRun, Publish, Send, play
from vixws_core.testing.strategies import faults, stories


def shop(server: SimServer) -> None:
    """An application that trusts what it is sent."""

    @server.on("price")
    def price(session: Session, payload: dict[str, Any]) -> None:
        server.broadcast_room_json("prices", "price", {"each": 100 // payload["count"]}, session=session)


SENDS = {"price": st.fixed_dictionaries({"count": st.integers(0, 9)})}


def test_a_failure_shrinks_to_a_short_story_that_names_handler_and_client() -> None:
    shortest: list[list[Action]] = []

    @settings(max_examples=200, deadline=None, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
    @given(st.integers(0, 999), faults(), stories(rooms=["prices"], sends=SENDS))
    def property(seed: int, rates: Faults, story: list[Action]) -> None:
        world = World(seed, build=shop, clients=3, faults=rates)
        try:
            play(world, story)
        except OracleFailed:
            shortest.append(story)
            raise

    with pytest.raises(
        OracleFailed, match=r"handler 'shop.<locals>.price' raised ZeroDivisionError.* for client \d"
    ) as told:
        property()
    lines = told.value.__notes__[0].splitlines()

    assert Send(0, "price", {"count": 0}) in shortest[-1] and len(shortest[-1]) <= 3
    assert len(lines) <= 8 and any("handler shop.<locals>.price runs for client 0" in line for line in lines)


def test_a_story_is_played_in_order_and_what_cannot_be_done_is_passed_over() -> None:
    world = World(1, clients=2)
    play(
        world,
        [
            JoinRoom(0, "hall"),
            JoinRoom(0, "hall"),
            LetRun(20),
            Publish(1, "hall", "note", {"n": 1}),
            CutConnection(0),
            CrashServer(),
            Publish(3, "hall", "note", {"n": 2}),
        ],
    )

    assert [one.payload for one in world.client(0).told if one.off] == [{"n": 1}, {"n": 2}]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 1 << 16), faults(), stories(rooms=["africa", "tmp.sea"]))
def test_every_story_settles(seed: int, rates: Faults, story: list[Action]) -> None:
    play(World(seed, clients=3, faults=rates), story)
