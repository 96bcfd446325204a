"""The client's half of RFC 6455 where a server's frames are unusual: many fragments, and faults behind messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.client_rig import Rig
from vixws_core.client import (
    ClientClosed,
    ClientConfig,
    ClientJoin,
    ClientMessage,
    ClientPublish,
    ClientSend,
    ClientState,
    ClientStop,
    MessageHandled,
)
from vixws_core.effects import CloseTransport
from vixws_core.inputs import Disconnected
from vixws_core.wire.frames import PING, TEXT, encode_frame


def fragments(count: int, opcode: int = TEXT) -> bytes:
    """One message of so many one-byte fragments."""
    first, between, last = bytes((opcode, 1)) + b"x", b"\x00\x01x", b"\x80\x01x"
    return first + between * (count - 2) + last


@pytest.mark.parametrize("hello", [True, False])
@pytest.mark.parametrize("count", [63, 64, 65, 128, 129, 1_000])
def test_all_fragments_of_one_read_are_taken(count: int, hello: bool) -> None:
    rig = Rig(hello=hello)
    rig.open()
    rig.bytes(fragments(count) + fragments(2))

    assert [message.data for message in rig.of(ClientMessage)] == ["x" * count, "xx"]


def test_a_message_of_too_many_fragments_ends_the_connection() -> None:
    rig = Rig(hello=False, config=ClientConfig(fragments_max=100))
    rig.open()
    rig.bytes(fragments(100))
    rig.handle_all()
    rig.bytes(fragments(101))

    assert [message.data for message in rig.of(ClientMessage)] == ["x" * 100]
    assert [closed.code for closed in rig.of(ClientClosed)] == [1008]


# ---- a fault behind messages ------------------------------------------------------------------------

FAULT = b"\xf1\x00"
"""A frame with reserved bits: the close is 1002."""
HELLO = encode_frame(TEXT, b"hello")


def broken(data: bytes = HELLO + HELLO + FAULT, **options: Any) -> Rig:
    """A client of a server without hello that broke the framing behind two messages, in one read."""
    rig = Rig(hello=False, **options)
    rig.open()
    rig.bytes(data)
    return rig


def test_messages_before_a_fault_are_answered_before_the_close() -> None:
    rig = broken()
    assert ClientState.ENDING is rig.machine.state
    for message in rig.of(ClientMessage):
        assert rig.of(ClientClosed) == []
        rig.put(ClientSend(b"re: hello"), MessageHandled(message.number))

    assert [getattr(item, "code", item) for item in rig.received] == ["re: hello", "re: hello", 1002]
    assert [(closed.code, closed.reconnecting) for closed in rig.of(ClientClosed)] == [(1002, True)]
    assert CloseTransport(1) in rig.told
    rig.open()  # It comes back as after any loss.


def test_a_fault_behind_nothing_unhandled_closes_at_once() -> None:
    assert ClientState.WAITING is broken(FAULT).machine.state


def test_a_fault_of_a_server_of_this_protocol_waits_for_nobody() -> None:
    rig = Rig()
    rig.open()
    rig.bytes(HELLO + FAULT)

    assert ClientState.WAITING is rig.machine.state


def test_what_is_never_handled_holds_the_close_up_for_5_seconds() -> None:
    rig = broken()
    rig.pass_time(4.9)
    assert ClientState.ENDING is rig.machine.state
    rig.pass_time(0.2)

    assert [closed.code for closed in rig.of(ClientClosed)] == [1002]
    assert [item.code for item in rig.received] == [1002]
    rig.handle_all()


def test_no_ping_is_sent_and_no_frame_read_behind_a_fault() -> None:
    rig = broken(config=ClientConfig(ping_interval_s=1.0, ping_timeout_s=1.0))
    rig.bytes(HELLO + encode_frame(PING, b""))
    rig.pass_time(4)

    assert rig.received == []
    assert len(rig.of(ClientMessage)) == 2


def test_a_server_that_is_gone_after_its_fault_is_closed_for_its_fault() -> None:
    rig = broken()
    rig.put(Disconnected(rig.conn, "reset"))

    assert [closed.code for closed in rig.of(ClientClosed)] == [1002]
    assert ClientState.WAITING is rig.machine.state
    rig.handle_all()
    assert rig.received == []


def test_a_client_stopped_behind_a_fault_stops_at_once() -> None:
    rig = broken()
    rig.put(ClientStop())

    assert [(closed.code, closed.reconnecting) for closed in rig.of(ClientClosed)] == [(1002, False)]
    assert [item.code for item in rig.received] == [1002]
    assert CloseTransport(1) in rig.told


def test_joins_and_publishes_behind_a_fault_wait_for_the_next_connection() -> None:
    rig = broken()
    rig.put(ClientJoin("r"), ClientPublish(1, "r", "t"))
    assert rig.received == []
    rig.handle_all()
    rig.open()

    assert len(rig.sent("$join", "r")) == 1
    assert len(rig.sent("t", "r")) == 1
