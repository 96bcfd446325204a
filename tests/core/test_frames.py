"""Frames: the fast lane and wsproto must agree on any bytes in any chunking."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from vixws_core.wire.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseReceived,
    FrameFailed,
    FrameReader,
    PingReceived,
    PongReceived,
    Received,
    encode_close,
    encode_frame,
    mask_bytes,
)

MASK = b"\x01\xfe\x80\x7f"
LARGE = 1 << 40


def oracle(chunks: list[bytes], client: bool) -> list[Received]:
    """What wsproto alone makes of the bytes."""
    return events_of(Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER), chunks)


def events_of(connection: Connection, chunks: list[bytes]) -> list[Received]:
    """What a connection of wsproto makes of the bytes."""
    out: list[Received] = []
    text: list[str] = []
    binary: list[bytes] = []
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in connection.events():
            match event:
                case TextMessage(data=data, message_finished=done):
                    text.append(data)
                    if done:
                        out.append("".join(text))
                        text = []
                case BytesMessage(data=part, message_finished=done):
                    binary.append(bytes(part))
                    if done:
                        out.append(b"".join(binary))
                        binary = []
                case Ping(payload=payload):
                    out.append(PingReceived(bytes(payload)))
                case Pong(payload=payload):
                    out.append(PongReceived(bytes(payload)))
                case CloseConnection(code=code, reason=reason):
                    kind = CloseReceived if connection.state.name == "REMOTE_CLOSING" else FrameFailed
                    out.append(kind(int(code), reason or ""))
                    return out
                case _:
                    raise AssertionError(event)
    return out


def read(chunks: list[bytes], client: bool) -> list[Received]:
    reader = FrameReader(client=client, message_bytes_max=LARGE)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def told(events: list[Received]) -> list[Received]:
    """The events, in one wording where both have one of their own: wsproto counts the bytes of what is no UTF-8."""
    return [
        FrameFailed(event.code, WORDS[event.reason.partition(",")[0]])
        if isinstance(event, FrameFailed) and event.reason.partition(",")[0] in WORDS
        else FrameFailed(1007, "not UTF-8")
        if isinstance(event, FrameFailed) and event.code == 1007
        else event
        for event in events
    ]


WORDS = {
    "unexpected CONTINUATION": "a fragment of no message",
    "expected CONTINUATION": "a message began in the midst of another",
}
"""What wsproto says, and what we do."""


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(mark % (len(data) + 1) for mark in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(marks) if b > a]


def raw_frame(first: int, payload: bytes, mask: bytes | None, form: int) -> bytes:
    """One frame with any first byte, and a length written in 0: its shortest form, 1: two bytes, 2: eight."""
    size = len(payload)
    bit = 0x80 if mask is not None else 0
    if form == 0 and size < 126:
        head = bytes((first, bit | size))
    elif form < 2 and size < 65_536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    return head + (payload if mask is None else mask + mask_bytes(payload, mask))


payloads = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=40).map(str.encode),
    st.sampled_from(
        [b"", b"\xff", "é€😀".encode(), b"\xed\xa0\x80", b"\xf4\x90", b"\xe2\x82", b"\x03\xe8bye", b"\x03"]
    ),
    st.integers(120, 132).map(lambda size: b"x" * size),
    st.sampled_from([65_535, 65_536, 1024, 1025, 5000]).map(lambda size: b"y" * size),
    st.sampled_from([4000, 4200, 9000]).map(lambda size: "é".encode() * size),
)
firsts = st.one_of(
    st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88]), st.integers(0, 255)
)
frames = st.tuples(firsts, payloads, st.integers(0, 9), st.integers(0, 30))


def build(parts: list[tuple[int, bytes, int, int]], client: bool) -> bytes:
    out = b""
    for first, payload, masked, form in parts:
        mask = MASK if (masked > 0) is not client else None
        out += raw_frame(first, payload, mask, form if form < 3 else 0)
    return out


@given(
    st.lists(frames, max_size=6),
    st.lists(st.integers(0, 200_000), max_size=8),
    st.booleans(),
    st.binary(max_size=3),
)
@example([(0x81, "é€".encode(), 1, 0)], list(range(40)), False, b"")
@example([(0x01, b"a", 1, 0), (0x89, b"p", 1, 0), (0x80, b"b", 1, 0)], list(range(40)), False, b"")
@example([(0x81, b"\xff" * 200, 1, 0)], list(range(40)), False, b"")
@example([(0x81, b"a\xff" + b"x" * 4000, 1, 0)], list(range(40)), False, b"")
def test_fast_lane_and_wsproto_agree_on_any_chunking(
    parts: list[tuple[int, bytes, int, int]], cuts: list[int], client: bool, tail: bytes
) -> None:
    chunks = cut(build(parts, client) + tail, cuts)

    assert told(oracle(chunks, client)) == told(read(chunks, client))


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_fast_lane_and_wsproto_agree_on_garbage(data: bytes, cuts: list[int], client: bool) -> None:
    chunks = cut(data, cuts)

    assert told(oracle(chunks, client)) == told(read(chunks, client))


@given(st.lists(frames, max_size=4), st.booleans())
def test_byte_by_byte_is_the_same_as_whole(parts: list[tuple[int, bytes, int, int]], client: bool) -> None:
    data = build([part for part in parts if len(part[1]) < 6000], client)

    assert told(read([data], client)) == told(read([data[at : at + 1] for at in range(len(data))], client))


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_masking_is_the_xor_of_each_byte(data: bytes, key: bytes) -> None:
    expected = bytes(byte ^ key[at & 3] for at, byte in enumerate(data))

    assert mask_bytes(data, key) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("mask", [None, MASK])
def test_written_frames_are_read_back_with_bytes_left_over(size: int, opcode: int, mask: bytes | None) -> None:
    reader = FrameReader(client=mask is None, message_bytes_max=LARGE)
    events = reader.feed(encode_frame(opcode, b"z" * size, mask) + b"\x81")

    assert events == ["z" * size if opcode == TEXT else b"z" * size]
    assert reader.held == 1


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_pass_between_fragments(opcode: int) -> None:
    data = raw_frame(0x01, b"a", MASK, 0) + encode_frame(opcode, b"p", MASK) + raw_frame(0x80, b"b", MASK, 0)
    expected = PingReceived(b"p") if opcode == PING else PongReceived(b"p")

    assert read([data], False) == [expected, "ab"]


@pytest.mark.parametrize("declared", [101, 1 << 30, (1 << 63) - 1])
@pytest.mark.threat(3)
def test_row_3_oversize_is_refused_from_the_header(declared: int) -> None:
    reader = FrameReader(message_bytes_max=100)
    head = bytes((0x82, 0x80 | declared)) if declared < 126 else bytes((0x82, 0xFF)) + declared.to_bytes(8, "big")

    assert reader.feed(head) == [FrameFailed(1009, "message over 100 bytes")]
    assert reader.feed(b"more") == []
    assert reader.held == 0


@pytest.mark.threat(3)
def test_row_3_the_limit_counts_over_fragments_and_starts_anew() -> None:
    reader = FrameReader(message_bytes_max=100)
    whole = raw_frame(0x02, b"a" * 60, MASK, 0) + raw_frame(0x80, b"b" * 40, MASK, 0)

    assert reader.feed(whole + whole) == [b"a" * 60 + b"b" * 40] * 2
    assert reader.feed(raw_frame(0x02, b"a" * 60, MASK, 0) + raw_frame(0x80, b"b" * 41, MASK, 0)) == [
        FrameFailed(1009, "message over 100 bytes")
    ]


@pytest.mark.threat(6)
def test_row_6_fragments_have_a_maximum() -> None:
    reader = FrameReader(message_bytes_max=100, fragments_max=3)
    data = raw_frame(0x01, b"", MASK, 0) + raw_frame(0x00, b"", MASK, 0) * 2

    assert reader.feed(data) == []
    assert reader.feed(raw_frame(0x00, b"", MASK, 0)) == [FrameFailed(1008, "more than 3 fragments in a message")]


def test_at_most_so_many_things_are_taken_in_one_call() -> None:
    reader = FrameReader(message_bytes_max=100)
    data = encode_frame(TEXT, b"a", MASK) * 100

    assert [len(reader.feed(data if not at else b"", 64)) for at in range(3)] == [64, 36, 0]


def test_nothing_is_left_of_a_message_that_is_complete() -> None:
    reader = FrameReader(message_bytes_max=LARGE)
    reader.feed(raw_frame(0x01, b"a", MASK, 0))

    assert reader.in_message

    reader.feed(raw_frame(0x80, b"b", MASK, 0))

    assert not reader.in_message
    assert (reader._message, reader._authority, reader.weight) == (None, None, 0)


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (1005, "ignored", b""),
        (1006, "", b""),
        (4000, "é" * 100, (4000).to_bytes(2, "big") + "é".encode() * 61),
    ],
)
def test_close_frames_carry_code_and_a_whole_reason(code: int, reason: str, payload: bytes) -> None:
    frame = encode_close(code, reason)

    assert frame == bytes((0x80 | CLOSE, len(payload))) + payload


def fragments(count: int, mask: bytes | None = MASK) -> bytes:
    """The first frame of a text message, and so many continuations of one byte."""
    first = encode_frame(TEXT, b"a", mask)
    return b"\x01" + first[1:] + (b"\x00" + first[1:]) * count


@pytest.mark.threat(7)
def test_row_7_fragments_count_as_what_is_taken_in_one_call() -> None:
    reader = FrameReader(message_bytes_max=1_000)
    taken = []
    data = fragments(200)
    for _ in range(5):
        assert reader.feed(data, 64) == []
        taken.append(reader.quiet)
        data = b""

    assert taken == [64, 64, 64, 9, 0]
    assert reader.held == 0


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A])), max_size=8),
    st.lists(st.integers(0, 400), max_size=6),
    st.booleans(),
)
def test_the_peers_close_is_found_behind_any_frames_however_they_are_cut(
    frames: list[tuple[int, int]], cuts: list[int], client: bool
) -> None:
    mask = None if client else MASK
    data = b"".join(
        bytes((first,)) + encode_frame(TEXT, b"x" * min(size, 125 if first & 8 else size), mask)[1:]
        for size, first in frames
    )
    reader = FrameReader(client=client, message_bytes_max=1_000)
    found = [reader.skim(chunk) for chunk in cut(data + encode_close(4_000, "done", mask) + b"what follows", cuts)]

    assert [event for event in found if event is not None] == [CloseReceived(4_000, "done")]


def test_skimming_takes_over_in_the_midst_of_a_frame() -> None:
    whole = encode_frame(TEXT, b"x" * 900, MASK)
    reader = FrameReader(message_bytes_max=1_000)
    assert reader.feed(fragments(2) + b"\x80" + whole[1:700]) == []

    assert reader.skim(whole[700:]) is None
    assert reader.skim(encode_close(1_000, "", MASK)) == CloseReceived(1_000, "")


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (b"\x03\xe7", 1002), (b"\x03\xed", 1002), (b"\x13\x88", 1002), (b"\x03\xe8\xff", 1007)],
    ids=["one byte", "999", "1005", "5000", "bad utf-8"],
)
def test_a_bad_close_behind_ours_is_a_fault(payload: bytes, code: int) -> None:
    found = FrameReader(message_bytes_max=1_000).skim(encode_frame(CLOSE, payload, MASK))

    assert isinstance(found, FrameFailed)
    assert found.code == code


def test_a_broken_header_behind_our_close_is_a_fault() -> None:
    found = FrameReader(message_bytes_max=1_000).skim(b"\xf1\x80")

    assert isinstance(found, FrameFailed)
