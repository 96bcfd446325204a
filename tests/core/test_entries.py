"""What may be an entry of a room: one rule at every entrance, and what a client does with an entry that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig, LocalError
from vixws_core.client import ClientConfig, RoomGap
from vixws_core.effects import MessageSkipped, StoreAppend
from vixws_core.entries import check_head, check_payload
from vixws_core.inputs import Publish
from vixws_core.message import payload_json
from vixws_core.wire.frames import TEXT, encode_frame

from .client_rig import Rig, entry
from .harness import Harness

BAD: dict[str, dict[str, Any]] = {
    "no type": {"type": ""},
    "long type": {"type": "t" * 129},
    "protocol's type": {"type": "$joined"},
    "surrogate type": {"type": "\ud800"},
    "no kind": {"kind": ""},
    "long kind": {"kind": "k" * 65},
    "no mid": {"mid": ""},
    "long mid": {"mid": "m" * 129},
    "long ref": {"ref": "r" * 65},
    "no JSON": {"payload": b"{not json}"},
    "two values": {"payload": b"{} {}"},
    "no object": {"payload": b"[1]"},
    "no UTF-8": {"payload": b'{"x":"\xff"}'},
    "too large": {"payload": b'{"x":"%s"}' % (b"y" * 70_000)},
    "too deep": {"payload": b'{"x":%s%s}' % (b"[" * 70, b"]" * 70)},
}


@pytest.mark.parametrize("name", BAD)
def test_the_hub_refuses_a_publish_of_its_application_that_no_client_could_send(name: str) -> None:
    harness = Harness()
    given: dict[str, Any] = {"type": "chat", "payload": b"{}", **BAD[name]}

    with pytest.raises(LocalError):
        harness.put(Publish("africa", **given))

    assert harness.effects(StoreAppend) == []


def test_what_is_at_its_limits_is_taken() -> None:
    check_head("t" * 128, "k" * 64, "m" * 128, "r" * 64)
    check_payload(b'{"x":"%s"}' % (b"y" * 65_528), 65_536)
    check_payload(b'{"x":%s%s}' % (b"[" * 63, b"]" * 63), None)
    with pytest.raises(LocalError, match="at most 65536 bytes"):
        check_payload(b'{"x":"%s"}' % (b"y" * 65_529), 65_536)


def test_limits_are_those_of_the_configuration() -> None:
    harness = Harness(HubConfig(message_bytes_max=100, json_depth_max=2))

    with pytest.raises(LocalError, match="maxMessageSize"):
        harness.put(Publish("africa", "chat", b'{"x":"%s"}' % (b"y" * 100)))
    with pytest.raises(LocalError, match="maxJsonDepth"):
        harness.put(Publish("africa", "chat", b'{"x":[[1]]}'))


@pytest.mark.parametrize("data", [b"{not json}", b"{} {}", b"\xff"])
def test_encoded_payloads_are_looked_at(data: bytes) -> None:
    with pytest.raises(LocalError):
        payload_json(data)


# ---- the client ----------------------------------------------------------------------------------


def raw(rig: Rig, text: str) -> list[Any]:
    return rig.bytes(encode_frame(TEXT, text.encode()))


HEAD = '{"type":"chat","room":"r","ep":"e1","off":%d,"id":"%020d"'


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("chat", "t" * 129) % (1, 1) + ',"payload":{}}',
        HEAD.replace("chat", "$joined") % (1, 1) + ',"payload":{}}',
        HEAD % (1, 1) + ',"payload":[1]}',
        HEAD % (1, 1) + ',"payload":{not json}}',
        HEAD % (1, 1) + ',"payload":}',
    ],
    ids=["long type", "protocol's type", "no object", "no JSON", "no payload"],
)
def test_a_client_passes_over_an_entry_it_cannot_read_says_so_and_goes_on(text: str) -> None:
    rig = Rig()
    rig.open()
    rig.join("r")
    raw(rig, text)
    rig.say(entry("r", 2))
    rig.handle_all()

    assert rig.of(RoomGap) == [RoomGap("r", 1, 1, id=f"{1:020d}", unreadable=True)]
    assert [told.reason for told in rig.of(MessageSkipped)] == ["unreadable"]
    assert rig.machine.positions["r"] == ("e1", 2, f"{2:020d}")
    assert len(rig.sent("$join", "r")) == 1


def test_an_unreadable_entry_told_twice_is_a_duplicate_and_one_too_far_is_a_jump() -> None:
    rig = Rig()
    rig.open()
    rig.join("r")
    bad = HEAD % (1, 1) + ',"payload":[]}'
    raw(rig, bad)
    raw(rig, bad)
    raw(rig, HEAD % (5, 5) + ',"payload":[]}')

    assert len(rig.of(RoomGap)) == 1
    assert len(rig.sent("$join", "r")) == 2


def test_a_jump_is_asked_for_at_once_and_without_progress_only_with_growing_pauses() -> None:
    rig = Rig(config=ClientConfig(backoff_min_s=1.0, backoff_max_s=8.0))
    rig.open()
    rig.join("r")
    for _ in range(300):
        rig.say(entry("r", 9))  # A server that has lost the offsets between, and says nothing of it.
        if rig.sent("$join", "r")[-1]["ref"] != rig.sent("$join", "r")[-2]["ref"]:
            rig.joined("r", 0)
        rig.pass_time(0.1)

    assert 5 <= len(rig.sent("$join", "r")) <= 40  # In 30 s; without pauses, 301.


def test_a_message_that_is_handled_ends_the_pauses() -> None:
    rig = Rig(config=ClientConfig(backoff_min_s=5.0, backoff_max_s=5.0))
    rig.open()
    rig.join("r")
    for off in range(1, 6):
        rig.say(entry("r", off + 1))
        rig.joined("r", off - 1)
        rig.say(entry("r", off))
        rig.handle_all()

    assert len(rig.sent("$join", "r")) == 6
