"""A redacted copy shows no contents, replays bit for bit as what it is, and decides as the trace does."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from tests.core.harness import EPOCH, Harness, close_frame, upgrade_request
from tests.core.tracing import head_of, replay, written
from vixws_core import Hub, HubConfig
from vixws_core.effects import Closed
from vixws_core.inputs import Accept, Connected, Publish, Respond, Send
from vixws_core.testing import run_varied, varied_world
from vixws_core.trace.lines import Head
from vixws_core.trace.redacting import Redactor, decisions_of
from vixws_core.wire.frames import PING, encode_frame

from .harness import MASK

SECRETS = ["hunter2", "sesame", "payl0ad", "203.0.113.9", "b1scuit"]


def redacted(head: Head, steps: list[tuple[float, Any, Any]]) -> tuple[Head, list[tuple[float, Any, Any]], int]:
    """The copy, and how many steps decide otherwise in it."""
    redactor = Redactor(head, b"k")
    hub = Hub(head.hub, seed=redactor.head.seed, policy=head.policy)
    found, others = list[tuple[float, Any, Any]](), 0
    for now, input, effects in steps:
        copy = redactor.redact(input)
        again = hub.handle(copy, now)
        redactor.learn(effects, again)
        others += decisions_of(effects) != decisions_of(again)
        found.append((now, copy, again))
    return redactor.head, found, others


def shown(data: bytes) -> bytes:
    """A trace with its base64 decoded as well, and what is masked unmasked."""
    parts = [base64.b64decode(part) for part in re.findall(rb'"([A-Za-z0-9+/]{8,}={0,2})"', data) if len(part) % 4 == 0]
    unmasked = [
        bytes(byte ^ MASK[at % 4] for at, byte in enumerate(part[start:])) for part in parts for start in range(4)
    ]
    return b"".join([data, *parts, *unmasked])


def test_nothing_secret_stands_in_the_copy_and_it_replays_bit_for_bit() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000))
    harness.put(Connected(50, "203.0.113.9:4711", limited="203.0.113.9"))
    request = upgrade_request("Cookie: sid=b1scuit", "Authorization: Bearer hunter2", target="/ws?token=sesame")
    harness.accepting = False
    peer = harness.connect(request=request)
    harness.put(Accept(peer.conn, headers=(("set-cookie", "sid=b1scuit"),)))
    harness.accepting = True
    peer.send({"type": "$hello", "payload": {"v": [1], "token": "hunter2", "pub": "sesame-sesame"}})
    peer.join("africa")
    for number in range(30):
        peer.publish("africa", "payl0ad" * 20, mid=f"m{number % 20}")
    peer.send(
        "payl0ad, and no json", '{"type":"x","payload":{"payl0ad":[[1]]}}', {"type": "app", "payload": {"a": "payl0ad"}}
    )
    peer.send_binary(b"payl0ad")
    peer.raw(encode_frame(PING, b"payl0ad", MASK))
    harness.put(Send(peer.conn, b'{"payl0ad":1}'), Send(peer.conn, b"payl0ad"), Publish("africa", "t", b"{}"))
    slow = harness.client("africa")
    slow.takes = False
    for _ in range(20):
        peer.publish("africa", "payl0ad" * 100)
    while slow.unflushed:
        slow.flush(700)
    other = harness.connect(request=request)
    harness.put(Respond(other.conn, 403, (("x", "b1scuit"),), b"payl0ad"))
    torn = harness.connect(request=b"")
    whole = upgrade_request("Sec-WebSocket-Protocol: chat, vixws.bearer.hunter2", target="/x")
    torn.raw(whole[:40])
    torn.raw(whole[40:])
    harness.put(Respond(torn.conn, 403))
    odd = harness.connect(request=b"what\r\n\r\n")
    odd.raw(b"payl0ad")
    broken = harness.client()
    broken.raw(b"\xff\xff")
    peer.raw(close_frame(1000, "payl0ad"))
    assert harness.effects(Closed)

    original = written(head_of(harness.hub.config), harness.steps)
    head, steps, others = redacted(head_of(harness.hub.config), harness.steps)
    data = written(head, steps)

    assert [word for word in SECRETS if word.encode() in shown(original)] == SECRETS
    assert [word for word in SECRETS if word.encode() in shown(data)] == []
    assert replay(data).difference is None
    assert others == 0


def test_sessions_are_taken_over_in_the_copy_as_well() -> None:
    harness = Harness()
    name = harness.connect().answer({"type": "$hello", "payload": {"v": [1]}})["payload"]["session"]
    harness.connect().send({"type": "$hello", "payload": {"v": [1], "session": name}})
    head, steps, others = redacted(head_of(), harness.steps)

    assert [closed.code for _, _, effects in steps for closed in effects if isinstance(closed, Closed)] == [
        closed.code for closed in harness.effects(Closed)
    ]
    assert name.encode() not in shown(written(head, steps))
    assert others == 0


@pytest.mark.parametrize("number", range(6))
def test_worlds_have_copies_that_replay_bit_for_bit(number: int) -> None:
    world = varied_world(f"redacted/{number}")
    run_varied(world, 100)
    for trace in world.traces:
        head, steps, _ = redacted(head_of(trace.config, trace.seed, trace.policy), trace.steps)

        assert replay(written(head, steps)).difference is None


def test_words_for_the_same_are_the_same_and_another_key_makes_others() -> None:
    one, two, other = (Redactor(head_of(), key) for key in (b"k", b"k", b"l"))
    asked = Connected(1, "203.0.113.9:1")

    assert one.redact(asked) == two.redact(asked) != other.redact(asked)
    assert len(one.redact(asked).peer) == len(asked.peer)
    assert EPOCH == "ep1"
