"""An entry that is taken back: its old payload leaves the hub, and members hear of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vixws_core import HubConfig
from vixws_core.effects import HistoryListed
from vixws_core.inputs import EntryRedacted, ListHistory, Publish, StoreFailed
from vixws_core.log import PureLog, message_id, run_asks
from vixws_core.message import StoredMessage

from .harness import EPOCH, Harness, Peer

ROOM = "africa"


class Log(PureLog):
    """A log that can take a payload back."""

    def take_back(self, off: int) -> None:
        rows = self._rooms[ROOM].rows
        row = rows[off - 1]
        rows[off - 1] = StoredMessage(row.id, row.kind, row.room, row.type, row.ts, b'{"$redacted":true}', row.ep, off)


def filled(config: HubConfig | None = None) -> Harness:
    harness = Harness(config, log=Log(EPOCH))
    member = harness.client()
    member.join(ROOM)
    for number in range(1, 4):
        harness.put(Publish(ROOM, "card", b'{"number":%d}' % (4111 * number)))
    assert len(member.messages()) == 3
    return harness


def take_back(harness: Harness, off: int) -> None:
    assert isinstance(harness.log, Log)
    harness.log.take_back(off)
    harness.put(EntryRedacted(ROOM, off, message_id(off)))


def told(peer: Peer) -> list[Any]:
    return [message["payload"] for message in peer.messages() if message["type"] == "$redacted"]


def test_members_who_were_sent_it_are_told_and_newcomers_get_the_redacted_form() -> None:
    harness = filled()
    (member,) = harness.peers.values()
    plain = harness.connect()
    take_back(harness, 2)
    late = harness.client()
    messages = late.join(ROOM, last=3)

    assert told(member) == [{"off": 2, "id": message_id(2)}]
    assert plain.messages() == []
    assert [m["payload"] for m in messages if m["type"] == "card"] == [
        {"number": 4111},
        {"$redacted": True},
        {"number": 12333},
    ]


def test_who_was_not_sent_it_yet_gets_the_redacted_form_only() -> None:
    harness = filled(HubConfig(tail_bytes_room=1))
    harness.store_held = True
    late = harness.client()
    late.send({"type": "$join", "room": ROOM, "payload": {"since": {"ep": EPOCH, "off": 1}}})
    harness.deliver()
    asks, harness.asks = harness.asks, []
    answers = run_asks(harness.log, asks, "")  # It was read just before.
    take_back(harness, 2)
    harness.put(*answers)
    harness.store_held = False
    harness.deliver_all()
    messages = late.messages()

    assert told(late) == []
    assert [m["payload"] for m in messages if m["type"] == "card"] == [{"$redacted": True}, {"number": 12333}]


@pytest.mark.parametrize("how", ["history", "application"])
def test_what_was_read_just_before_comes_in_the_redacted_form(how: str) -> None:
    harness = filled()
    asker = harness.client()
    harness.store_held = True
    if how == "history":
        asker.send({"type": "$history", "room": ROOM, "ref": "h", "payload": {"limit": 9}})
    else:
        harness.put(ListHistory(7, ROOM, 9, None, asker.conn))
    asks, harness.asks = harness.asks, []
    answers = run_asks(harness.log, asks, "")  # Read, and not yet told.
    take_back(harness, 2)
    asker.messages()
    harness.put(*answers)

    if how == "history":
        (page,) = [message["payload"]["messages"] for message in asker.messages() if message["type"] == "$page"]
        payloads = [message["payload"] for message in reversed(page)]
    else:
        (listed,) = harness.effects(HistoryListed)
        payloads = [json.loads(row.payload_json) for row in listed.rows]
    assert payloads == [{"number": 4111}, {"$redacted": True}, {"number": 12333}]
    assert harness.hub._asks.redactions == [], "nothing is kept once it is answered"


def test_a_read_that_fails_leaves_nothing_behind() -> None:
    harness = filled()
    asker = harness.client()
    harness.store_held = True
    asker.send({"type": "$history", "room": ROOM, "ref": "h", "payload": {"limit": 9}})
    (ask,) = harness.asks
    take_back(harness, 2)
    harness.put(StoreFailed(ask.request, "store_unavailable", "no", True))

    assert harness.hub._asks.redactions == []


def test_a_room_without_members_ignores_it() -> None:
    assert Harness().put(EntryRedacted(ROOM, 1, message_id(1))) == []
