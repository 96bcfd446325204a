"""The client's half of RFC 6455 where a server's frames are unusual: many fragments, and faults behind messages."""

from __future__ import annotations

import pytest

from tests.core.client_rig import Rig
from vixws_core.client import ClientClosed, ClientConfig, ClientMessage
from vixws_core.wire.frames import TEXT


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
    rig.bytes(fragments(101))

    assert [message.data for message in rig.of(ClientMessage)] == ["x" * 100]
    assert [1008] == [closed.code for closed in rig.of(ClientClosed)]
