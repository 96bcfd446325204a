"""Frames in odd pieces and sizes: what the properties reach only by luck."""

from __future__ import annotations

import pytest

from vixws_core.wire.frames import BINARY, TEXT, FrameFailed, FrameReader, encode_frame, mask_bytes

MASK = b"\x01\x02\x03\x04"


def test_large_frame_whose_payload_comes_after_its_header_is_one_message() -> None:
    for opcode, expected in ((TEXT, "x" * 5_000), (BINARY, b"x" * 5_000)):
        reader = FrameReader(message_bytes_max=10_000)
        frame = encode_frame(opcode, b"x" * 5_000, MASK)

        assert reader.feed(frame[:8]) == []
        assert reader.in_message
        assert reader.feed(frame[8:]) == [expected]
        assert not reader.in_message


@pytest.mark.parametrize(
    "length", [b"\xff" + (5).to_bytes(8, "big"), b"\xff" + (65_535).to_bytes(8, "big"), b"\xfe\0\x7d"]
)
def test_length_in_a_longer_form_than_needed_is_refused(length: bytes) -> None:
    reader = FrameReader(message_bytes_max=1 << 20)
    (failed,) = reader.feed(b"\x82" + length + MASK + b"hello")

    assert isinstance(failed, FrameFailed)
    assert failed.code == 1002


@pytest.mark.threat(3)
def test_row_3_sum_over_fragments_is_refused_from_the_header_that_exceeds_it() -> None:
    reader = FrameReader(message_bytes_max=1_000)
    first = bytes((TEXT, 0xFE)) + (600).to_bytes(2, "big") + MASK + mask_bytes(b"x" * 600, MASK)
    second = bytes((0, 0xFE)) + (401).to_bytes(2, "big")

    assert reader.feed(first) == []
    assert reader.feed(second) == []
    assert reader.feed(MASK) == [FrameFailed(1009, "message over 1000 bytes")]
    assert reader.feed(first) == []


@pytest.mark.threat(3)
def test_row_3_sum_over_fragments_at_the_limit_is_good() -> None:
    reader = FrameReader(message_bytes_max=1_000)
    first = bytes((TEXT, 0xFE)) + (600).to_bytes(2, "big") + MASK + mask_bytes(b"x" * 600, MASK)
    last = bytes((0x80, 0xFE)) + (400).to_bytes(2, "big") + MASK + mask_bytes(b"y" * 400, MASK)

    assert reader.feed(first + last) == ["x" * 600 + "y" * 400]


def test_broken_header_in_the_midst_of_a_message_is_refused() -> None:
    reader = FrameReader(message_bytes_max=1_000)
    first = bytes((TEXT, 0x81)) + MASK + mask_bytes(b"a", MASK)
    (failed,) = reader.feed(first + b"\xb0\x80")

    assert isinstance(failed, FrameFailed)
    assert failed.code == 1002
