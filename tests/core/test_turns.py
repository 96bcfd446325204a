"""What one step takes of those who have much to say, so that those who have little are heard in between."""

from __future__ import annotations

from collections import Counter

import pytest

from vixws_core import HubConfig
from vixws_core.hub.deadlines import READY_PER_STEP_MAX
from vixws_core.inputs import TimePassed

from .harness import Harness, Peer, text_frame

STEP = HubConfig().events_per_step_max
MESSAGE = text_frame({"type": "x"})


def flooding(count: int, messages: int) -> tuple[Harness, list[Peer]]:
    """So many connections that have sent so many messages each, of which a step's worth is handled."""
    harness = Harness()
    peers = [harness.client() for _ in range(count)]
    for peer in peers:
        peer.raw(MESSAGE * messages)
    return harness, peers


def handled(harness: Harness) -> Counter[int]:
    """How many messages of each connection the application has got."""
    found: Counter[int] = Counter()
    for record in harness.records:
        found[record.conn] += len(record.messages)
    return found


@pytest.mark.threat(7)
def test_row_7_a_step_takes_a_bounded_number_of_frames_however_many_flood() -> None:
    harness, _ = flooding(50, 10 * STEP)
    honest = harness.client()
    steps = 0
    while (due := harness.hub.next_deadline()) is not None and due <= harness.now:
        before = len(harness.received)
        harness.put(TimePassed())
        assert len(harness.received) - before <= READY_PER_STEP_MAX * STEP
        steps += 1
        assert honest.answer({"type": "$ping", "ref": str(steps)})["type"] == "$pong"

    assert len(harness.received) == 50 * 10 * STEP, "nothing is lost"
    assert steps >= 50 * 9 / READY_PER_STEP_MAX
    assert set(handled(harness).values()) == {10 * STEP}


@pytest.mark.threat(7)
def test_row_7_all_who_flood_have_their_turn_before_one_has_another() -> None:
    harness, peers = flooding(10, 10 * STEP)
    for _ in range(25):
        harness.put(TimePassed())
        found = handled(harness)
        assert max(found.values()) - min(found.values()) <= STEP

    # Who comes in between waits for those who came before, and not for all that they have sent.
    late = harness.client()
    late.raw(MESSAGE * 2 * STEP)
    for _ in range(1 + 10 // READY_PER_STEP_MAX):
        harness.put(TimePassed())
    assert handled(harness)[late.conn] == 2 * STEP
    assert len(peers) == 10
