"""What is said of a trace that has lost its beginning: what its inputs tell, and that the rest is not known."""

from __future__ import annotations

from typing import Any

from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    Join,
    LeaveAll,
    RoomAdvanced,
    TimePassed,
)
from vixws_core.message import StoredMessage
from vixws_core.trace.lines import Record
from vixws_core.trace.searching import Search

ENTRY = StoredMessage("7", "event", "africa", "chat", "", b"{}", "e", 7)


def search(*inputs: Any, conn: int = 3, off: int = 7) -> list[str]:
    """What a search over these inputs says."""
    found = Search(conn, "africa", off, 100)
    for number, input in enumerate(inputs):
        found.see(Record(number + 2, 10.0 + number, type(input).__name__, input))
    return found.answer()


def test_what_happened_is_told_with_its_steps() -> None:
    lines = search(
        Connected(3, "192.0.2.1:5"),
        Accept(3),
        Join(3, "africa"),
        Join(3, "asia"),
        BytesReceived(3, b"x"),
        BytesReceived(4, b"x"),
        BytesFlushed(((3, 50),)),
        RoomAdvanced("asia", "e", 1, ()),
        RoomAdvanced("africa", "e", 7, (ENTRY,)),
        BytesFlushed(((3, 20), (4, 9))),
        BytesFlushed(((4, 9),)),
        LeaveAll(3),
        Close(3, 4000),
        Disconnected(3, "reset"),
        TimePassed(),
    )

    assert lines[0].startswith("Not known: the steps before 100 are not in the trace any more")
    assert lines[1:] == [
        "offset 7 of room 'africa' was stored at step 108, 8.000 s behind the first that is left",
        "20 bytes went to connection 3 since, the last of them at step 109, 9.000 s behind the first that is left",
        "connection 3 sent something 1 times",
        "it connected, from 192.0.2.1:5 at step 100, 0.000 s behind the first that is left",
        "it was accepted at step 101, 1.000 s behind the first that is left",
        "the application's Join of the room at step 102, 2.000 s behind the first that is left",
        "the application took it out of all rooms at step 111, 11.000 s behind the first that is left",
        "the application closed it with 4000 at step 112, 12.000 s behind the first that is left",
        "its transport ended (reset) at step 113, 13.000 s behind the first that is left",
    ]


def test_a_message_that_did_not_come_by_is_told_so() -> None:
    head = RoomAdvanced("africa", "e", 9, ())

    assert search(RoomAdvanced("africa", "e", 8, ()), head, off=12)[1:] == [
        "offset 12 of room 'africa' was not stored meanwhile; the room's log went on up to 9",
        "connection 3 neither came, nor sent anything, nor ended",
    ]
    assert search(TimePassed())[1] == "nothing was stored in room 'africa' meanwhile"
    assert search(RoomAdvanced("africa", "e", 7, (ENTRY,)))[2] == "0 bytes went to connection 3 since"
