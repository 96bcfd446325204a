"""A hub at one moment, in words: its connections and rooms."""

from __future__ import annotations

from collections.abc import Iterator

from ..hub.hub import Hub
from ..hub.place import Place

__all__ = ["scene_of"]


def scene_of(hub: Hub, conns: range) -> Iterator[str]:
    """Lines about the connections whose numbers are in `conns`, and about the rooms."""
    yield f"{hub.connections} connections, {hub.sessions} of them open{'; draining' if hub.draining else ''}"
    yield f"{hub.unsent_bytes} bytes unsent, {hub.received_bytes} received and not handled"
    for conn in conns:
        state = hub.state_of(conn)
        if state is None:
            continue
        words = f"connection {conn}: {state.value}"
        if unsent := hub.unsent_bytes_of(conn):
            words += f", {unsent} bytes unsent"
        if waiting := hub.queued_messages_of(conn):
            words += f", {waiting} messages wait for their handler"
        yield words
    for room in hub.rooms():
        members = hub.members(room)
        first = hub.place_of(members[0], room)
        assert first is not None  # It is a member.
        if first.stored:
            yield f"room {room!r}: epoch {first.ep or 'not known'}, at offset {first.head}; {len(members)} members"
        else:
            yield f"room {room!r}: not stored; {len(members)} members"
        for conn in members:
            place = hub.place_of(conn, room)
            assert place is not None  # It is a member.
            yield f"  connection {conn}: {_words(place)}"


def _words(place: Place) -> str:
    states = (
        (place.held, "held, as whether it may stay is being asked"),
        (place.asking, "its position is being asked of the log"),
        (place.live, "live"),
        (True, "reads on"),
    )
    words = next(text for holds, text in states if holds)
    if place.stored and not place.asking:
        words += f" at offset {place.position}"
    for holds, text in (
        (place.parked, "parked, as it does not take what it is sent"),
        (place.reading, "a page of the log is under way"),
        (place.resting, "the log could not be read and is left alone"),
    ):
        if holds:
            words += f"; {text}"
    return words
