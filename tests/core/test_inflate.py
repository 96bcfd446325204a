"""Compressed messages that come: any bytes in any chunking, bombs, broken ones, and what they cost (RFC 7692)."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import PerMessageDeflate

from vixws_core import HubConfig
from vixws_core.effects import MessageReceived, PauseReading, PeerMisbehaved, ResumeReading
from vixws_core.inputs import TimePassed
from vixws_core.wire.deflate import NAME, TAIL
from vixws_core.wire.frames import (
    CLOSE,
    PING,
    CloseReceived,
    FrameFailed,
    FrameReader,
    PingReceived,
    Received,
    encode_close,
    encode_frame,
)
from vixws_core.wire.inflate import InflatingReader, inflate

from .harness import MASK, Harness, Peer, text_frame, upgrade_request
from .test_deflate import PMD, deflating
from .test_frames import cut, events_of, raw_frame

LIMIT = 65_536


def pack(data: bytes, level: int = 9, *, window_bits: int = 15, memory: int = 8, strategy: int = 0) -> bytes:
    """The payload of a compressed message (RFC 7692 §7.2.1)."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -window_bits, memory, strategy)
    packed = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert packed.endswith(TAIL)
    return packed[:-4]


def message(
    payload: bytes, *, text: bool = False, cuts: tuple[int, ...] = (), rsv1: bool = True, mask: bytes | None = MASK
) -> bytes:
    """A message whose payload is what it is, in fragments that end at `cuts`."""
    marks = [0, *sorted(mark % (len(payload) + 1) for mark in cuts), len(payload)]
    out = b""
    for at, (begin, end) in enumerate(itertools.pairwise(marks)):
        first = (0 if at else (1 if text else 2) | 0x40 * rsv1) | (0x80 if at == len(marks) - 2 else 0)
        out += raw_frame(first, payload[begin:end], mask, 0)
    return out


def read(
    data: bytes, *, most: int = LIMIT, step: int | None = None, client: bool = False, fragments: int = 65_536
) -> list[Received]:
    """What a reader makes of the bytes, whole or in steps."""
    reader = InflatingReader(client=client, message_bytes_max=most, fragments_max=fragments)
    chunks = [data] if step is None else [data[at : at + step] for at in range(0, len(data), step)]
    return read_chunks(reader, chunks)


def read_chunks(reader: FrameReader, chunks: list[bytes]) -> list[Received]:
    out: list[Received] = []
    for chunk in chunks:
        out += reader.feed(chunk)
        while reader.inflated:  # It takes so much at once; the rest waits for the next call.
            out += reader.feed(b"")
    return out


def oracle(chunks: list[bytes], client: bool) -> list[Received]:
    """What wsproto with its own extension makes of the bytes."""
    extension = PerMessageDeflate()
    offer = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
    if client:
        extension.finalize(offer)
    else:
        extension.accept(offer)
    return events_of(Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER, [extension]), chunks)


def verdicts(events: list[Received]) -> list[Received]:
    """The events without the words of a fault: wsproto says of all that its extension finds "error in extension"."""
    return [FrameFailed(event.code, "") if isinstance(event, FrameFailed) else event for event in events]


# ---- any chunking ---------------------------------------------------------------------------------------

contents = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=40),
    st.sampled_from([b"", b"a", b"\xff", "é€😀".encode() * 40, b"x" * 3_000, b"\xe2\x82", Random(1).randbytes(5_000)]),
)
compressors = st.tuples(st.integers(0, 9), st.integers(9, 15), st.integers(1, 9), st.integers(0, 4))
items = st.one_of(
    st.tuples(contents, st.booleans(), st.one_of(st.none(), compressors), st.lists(st.integers(0, 6_000), max_size=4)),
    st.sampled_from([PING, 0xA]),
)
Item = tuple[bytes, bool, tuple[int, int, int, int] | None, list[int]] | int


def build(parts: list[Item], mask: bytes | None) -> bytes:
    out = b""
    for part in parts:
        if isinstance(part, int):
            out += encode_frame(part, b"p", mask)
            continue
        data, text, packing, cuts = part
        if packing is not None:
            level, window_bits, memory, strategy = packing
            data = pack(data, level, window_bits=window_bits, memory=memory, strategy=strategy)
        out += message(data, text=text, cuts=tuple(cuts), rsv1=packing is not None, mask=mask)
    return out


@given(
    st.lists(items, max_size=6),
    st.lists(st.integers(0, 30_000), max_size=8),
    st.booleans(),
    st.sampled_from([b"", b"\xc1\x80", b"\xc9\x80", b"\xc0\x80", b"\xe1\x80", b"\x91\x80", b"\xc8\x80", b"\xc3\x80"]),
)
@example([(b"ha" * 99, True, (9, 15, 8, 0), [3, 3, 9]), PING, (b"b", False, None, [])], list(range(99)), False, b"")
@example([(b"ha" * 99, True, (9, 15, 8, 0), [3, 3, 9])], [50], True, b"\xc0\x80")
@example([(b"", True, (9, 15, 8, 0), []), (b"", False, (0, 9, 1, 2), [0])], [], True, b"")
def test_the_reader_and_wsproto_agree_on_any_chunking(
    parts: list[Item], cuts: list[int], client: bool, tail: bytes
) -> None:
    chunks = cut(build(parts, None if client else MASK) + tail, cuts)
    reader = InflatingReader(client=client, message_bytes_max=1 << 30)

    assert verdicts(read_chunks(reader, chunks)) == verdicts(oracle(chunks, client))


STREAM = b"".join(
    (
        message(pack(b"one " * 40), text=True),
        text_frame("plain"),
        message(pack(b"two " * 90), text=True, cuts=(1, 2, 9)),
        encode_frame(PING, b"between", MASK),
        message(b"plain in pieces", cuts=(3, 7), rsv1=False),
        message(b"\x00", text=True),
        message(pack("é€😀".encode() * 30), text=True, cuts=(5, 40)),
        message(pack(Random(5).randbytes(300))),
        encode_close(1000, "done", MASK),
    )
)


def test_the_stream_is_the_same_however_it_is_cut() -> None:
    whole = read(STREAM)

    assert len(whole) == 9
    assert whole == oracle([STREAM], False)
    assert read(STREAM, step=1) == whole
    for at in range(1, len(STREAM)):
        reader = InflatingReader(message_bytes_max=LIMIT)
        assert read_chunks(reader, [STREAM[:at], STREAM[at:]]) == whole, at


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_what_is_inflated_is_what_zlib_inflates(data: bytes, cuts: list[int]) -> None:
    """Any bytes: where the message is taken at all, it is the one that wsproto takes."""
    frames = message(data, cuts=tuple(cuts))
    (found,) = read(frames)
    expected = oracle([frames], False)

    if isinstance(found, bytes):
        assert expected == [found]
    else:
        assert isinstance(found, FrameFailed)
        assert found.code == 1007


def test_control_frames_pass_between_the_fragments_of_a_compressed_message() -> None:
    packed = pack(b"hello " * 50)
    frames = (
        raw_frame(0x41, packed[:5], MASK, 0),
        encode_frame(PING, b"", MASK),
        raw_frame(0x00, packed[5:9], MASK, 0),
        encode_frame(PING, b"p" * 125, MASK),
        raw_frame(0x80, packed[9:], MASK, 0),
    )
    expected = [PingReceived(b""), PingReceived(b"p" * 125), "hello " * 50]

    assert read(b"".join(frames)) == expected
    assert read(b"".join(frames), step=1) == expected


def test_a_close_between_the_fragments_ends_it() -> None:
    data = raw_frame(0x41, pack(b"hello " * 50), MASK, 0)[:-1] + b"\0"
    data = b"\x41" + data[1:] + encode_close(1_001, "away", MASK) + b"what follows"

    for step in (None, 1, 3):
        assert read(data, step=step) == [CloseReceived(1_001, "away")]


# ---- broken ones ----------------------------------------------------------------------------------------

HELLO = pack(b"Hello " * 30)
BEGUN = raw_frame(0x41, HELLO[:4], MASK, 0)
BROKEN: dict[str, bytes] = {
    "RSV1 on a continuation": BEGUN + raw_frame(0xC0, HELLO[4:], MASK, 0),
    "RSV1 on a continuation of a plain message": raw_frame(0x01, b"a", MASK, 0) + raw_frame(0xC0, HELLO, MASK, 0),
    "RSV1 on a continuation of nothing": raw_frame(0xC0, HELLO, MASK, 0),
    "RSV1 on a ping": encode_frame(0x40 | PING, b"", MASK),
    "RSV1 on a ping between fragments": BEGUN + encode_frame(0x40 | PING, b"", MASK),
    "RSV1 on a close": encode_frame(0x40 | CLOSE, b"", MASK),
    "RSV2": raw_frame(0xA1, HELLO, MASK, 0),
    "RSV3": raw_frame(0x91, HELLO, MASK, 0),
    "RSV1 and RSV2": raw_frame(0xE1, HELLO, MASK, 0),
    "RSV2 in the midst": BEGUN + raw_frame(0xA0, HELLO[4:], MASK, 0),
    "RSV1 on an opcode that is none": raw_frame(0xC3, HELLO, MASK, 0),
    "a plain message in the midst": BEGUN + text_frame("a"),
    "a compressed message in the midst": BEGUN + message(HELLO),
    "a compressed message in the midst of a plain one": raw_frame(0x01, b"a", MASK, 0) + message(HELLO),
    "no mask": raw_frame(0xC1, HELLO, None, 0),
    "no mask in the midst": BEGUN + raw_frame(0x80, HELLO[4:], None, 0),
    "a length in a longer form": raw_frame(0xC1, HELLO, MASK, 1),
    "a length in a longer form in the midst": BEGUN + raw_frame(0x80, HELLO[4:], MASK, 2),
    "a ping in fragments in the midst": BEGUN + raw_frame(0x09, b"", MASK, 0),
    "a long ping in the midst": BEGUN + raw_frame(0x89, b"p" * 126, MASK, 0),
}


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_framing_is_closed_1002(data: bytes, step: int | None) -> None:
    (found,) = read(data, step=step)

    assert isinstance(found, FrameFailed)
    assert (found.code, found.word) == (1002, "")


def test_where_nothing_was_agreed_on_rsv1_is_a_fault() -> None:
    (found,) = FrameReader(message_bytes_max=LIMIT).feed(message(HELLO, text=True))

    assert isinstance(found, FrameFailed)
    assert found.code == 1002
    peer = Harness(HubConfig(deflate=True)).client()
    peer.raw(message(HELLO, text=True))
    assert peer.close_seen() == (1002, found.reason)


WRONG: dict[str, bytes] = {
    "no block": b"\x06",
    "a bad table": b"\x04",
    "cut off": HELLO[:-3],
    "cut off behind one byte": HELLO[:1],
    "cut off in the midst": pack(Random(3).randbytes(400).hex().encode())[:200],
    "more behind the end": HELLO + b"\x07",
    "text that is not compressed": b"Hello Hello",
    "points before the beginning": b"\x4b\x04\x12\x00",
    "zlib's own head": zlib.compress(b"Hello " * 30),
    "gzip": zlib.compressobj(wbits=31).compress(b"") + b"\x4b\x4c\x04\x00",
    "last blocks without end": b"\x03\x00" * 30_000,
    "garbage behind a last block": b"\x03\x00garbage",
}


@pytest.mark.parametrize("payload", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_deflate_is_closed_1007(payload: bytes) -> None:
    for frames in (message(payload), message(payload, cuts=(1, 5))):
        (found,) = read(frames)

        assert isinstance(found, FrameFailed)
        assert (found.code, found.word) == (1007, "bad_deflate")


@pytest.mark.parametrize(
    ("payload", "made"),
    [
        (b"", b""),
        (b"\x00", b""),  # RFC 7692 §7.2.3.6.
        (b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"Hello"),  # §7.2.3.1.
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),  # §7.2.3.3.
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),  # §7.2.3.4, with its last byte.
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"Hello"),  # The same without it, as some send it.
        (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),  # §7.2.3.5: two blocks.
        (b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x00", b"Hello"),  # The tail is sent, as Jetty did.
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00" * 3 + b"\x00", b"HelloHelloHello"),
    ],
)
def test_messages_of_the_standard_and_of_others_are_taken(payload: bytes, made: bytes) -> None:
    assert read(message(payload)) == [made]
    assert read(message(payload, text=True, cuts=tuple(range(len(payload))))) == [made.decode()]


def test_what_follows_a_last_block_may_point_back_before_it() -> None:
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = first.compress(b"to be or not to be") + first.flush()
    second = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=b"to be or not to be")
    packed = head + (second.compress(b"to be or not to be!") + second.flush(zlib.Z_SYNC_FLUSH))[:-4]

    assert inflate(packed, 100) == b"to be or not to beto be or not to be!"
    assert inflate(packed, 36) == FrameFailed(1009, "message over 36 bytes")


def test_text_is_checked_after_it_was_inflated() -> None:
    for data in (b"\xff", b"\xed\xa0\x80", "é".encode()[:1], b"x" * 300 + b"\xc3"):
        (found,) = read(message(pack(data), text=True))

        assert isinstance(found, FrameFailed)
        assert (found.code, found.word) == (1007, "")
        assert read(message(pack(data))) == [data]


# ---- bombs and limits -------------------------------------------------------------------------------------


def peak_of(data: bytes, step: int | None = None) -> tuple[list[Received], int]:
    """What is read, and the most memory that it took."""
    read(message(pack(b"warm")))
    tracemalloc.start()
    try:
        return read(data, step=step), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = pack(b"\0" * (1 << 26))
"""64 MiB in 65 KB."""


@pytest.mark.threat(4)
@pytest.mark.parametrize("cuts", [(), tuple(range(200, len(BOMB), 200))], ids=["one frame", "fragments of 200 bytes"])
def test_a_bomb_is_stopped_while_it_is_inflated(cuts: tuple[int, ...]) -> None:
    frames = message(BOMB, cuts=cuts)
    found, peak = peak_of(frames)

    assert len(BOMB) < LIMIT
    assert found == [FrameFailed(1009, "message over 65536 bytes")]
    assert peak < 1_000_000


@pytest.mark.parametrize(("size", "good"), [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)])
@pytest.mark.parametrize("data", [b"\0", b"0123456789 abcdef"])
def test_the_limit_is_that_of_what_was_made(size: int, good: bool, data: bytes) -> None:
    made = (data * size)[:size]

    assert read(message(pack(made))) == [made if good else FrameFailed(1009, "message over 65536 bytes")]


@pytest.mark.parametrize("memory", [1, 8, 9])
def test_a_message_of_the_limit_that_does_not_shrink_is_taken(memory: int) -> None:
    noise = Random(1).randbytes(LIMIT)
    packed = pack(noise, memory=memory)

    assert len(packed) > LIMIT
    assert read(message(packed)) == [noise]
    assert read(message(packed, cuts=tuple(range(0, len(packed), 999))), step=4_096) == [noise]


def test_what_comes_is_limited_too_from_the_header() -> None:
    most = LIMIT + LIMIT // 4 + 64
    reader = InflatingReader(message_bytes_max=LIMIT)

    assert reader.feed(b"\xc2\xff" + (most + 1).to_bytes(8, "big")) == [FrameFailed(1009, "message over 65536 bytes")]
    assert reader.feed(b"more") == []
    reader = InflatingReader(message_bytes_max=LIMIT)
    half = raw_frame(0x42, b"\0" * (most // 2), MASK, 0)
    assert reader.feed(half) == []
    assert reader.feed(b"\x00" + half[1:] + b"\x80\x85") == []
    assert reader.feed(MASK) == [FrameFailed(1009, "message over 65536 bytes")]


def test_fragments_have_a_maximum() -> None:
    data = message(pack(b"x" * 300), cuts=(1, 2, 3))

    assert read(data, fragments=4) == [b"x" * 300]
    assert read(data, fragments=3) == [FrameFailed(1008, "more than 3 fragments in a message")]


def test_an_unfinished_message_holds_what_came_and_no_more() -> None:
    reader = InflatingReader(message_bytes_max=LIMIT)
    frames = message(BOMB[:60_000], cuts=tuple(range(100, 60_000, 100)))
    read_chunks(reader, [frames[:-10]])

    assert reader.in_message
    assert reader._message is not None
    assert len(reader._message.value()) < 60_000
    assert reader.held < 200


def test_a_frame_in_tiny_pieces_is_gathered_once() -> None:
    """What came is not copied again with each read: no read finds more than a header in the buffer."""
    reader = InflatingReader(message_bytes_max=1 << 20)
    frame = message(Random(1).randbytes(20_000))
    for at in range(0, len(frame) - 1, 10):
        reader.feed(frame[at : at + 10])
        assert reader.held < 16


def test_the_peers_close_is_found_behind_compressed_frames() -> None:
    begun = message(HELLO, cuts=(4,))
    for mark in range(1, len(begun)):
        reader = InflatingReader(message_bytes_max=LIMIT)
        reader.feed(begun[:mark])
        rest = begun[mark:] + message(BOMB) + encode_close(4_000, "done", MASK)

        assert reader.skim(rest[:9]) is None
        assert reader.skim(rest[9:]) == CloseReceived(4_000, "done")


# ---- what it costs ------------------------------------------------------------------------------------------


def bombs(size: int, count: int) -> bytes:
    return message(pack(b'"' + b"a" * (size - 2) + b'"'), text=True) * count


def test_one_step_inflates_only_so_much_and_the_rest_comes_in_turn() -> None:
    harness = Harness(HubConfig(deflate=True), typed=False)
    peer = deflating(harness)
    harness.received.clear()
    peer.raw(bombs(LIMIT, 40))

    assert len(harness.received) == 4
    harness.put(TimePassed())
    assert len(harness.received) == 8
    harness.settle()
    assert [len(found) for found in harness.received if isinstance(found, str)] == [LIMIT] * 40
    assert harness.effects(PauseReading) == []


@pytest.mark.threat(4)
def test_over_the_budget_a_connection_is_not_read_and_nothing_is_lost() -> None:
    harness = Harness(HubConfig(deflate=True, inflated_bytes_per_s=LIMIT), typed=False)
    peer, other = deflating(harness), deflating(harness)
    harness.received.clear()
    began = harness.now
    peer.raw(bombs(LIMIT, 20))

    assert [told.conn for told in harness.effects(PauseReading)] == [peer.conn]
    assert len(harness.received) == 4
    other.raw(bombs(1_000, 1))
    assert len(harness.received) == 5
    for second in range(1, 30):
        harness.run_until(began + second)
        # Its burst, what is due by now, and one step more.
        assert len(harness.received) <= 1 + 1 + second + 4
    assert len(harness.received) == 21
    assert {told.conn for told in harness.effects(ResumeReading)} == {peer.conn}
    assert harness.effects(PeerMisbehaved) == []
    assert harness.closes(peer) == []


def test_compressed_bytes_that_make_nothing_count_too() -> None:
    harness = Harness(HubConfig(deflate=True, inflated_bytes_per_s=LIMIT), typed=False)
    peer = deflating(harness)
    peer.raw(message(b"\0\0\0\xff\xff" * 2_000 + b"\0"))

    assert [told.conn for told in harness.effects(PauseReading)] == [peer.conn]
    assert harness.received[-1] == b""


def test_of_two_rates_the_later_time_holds() -> None:
    config = HubConfig(deflate=True, inflated_bytes_per_s=20_000, messages_per_s=1.0, messages_burst=1)
    harness = Harness(config, typed=False)
    peer = deflating(harness)  # Its $hello is the one of its burst.
    began = harness.now
    peer.raw(bombs(LIMIT, 5))
    peer.raw(bombs(10, 1))
    mark = len(harness.received)
    harness.run_until(began + 2.2)
    assert len(harness.received) == mark
    harness.run_until(began + 3)
    assert len(harness.received) > mark


def test_what_a_connection_sent_before_it_went_is_handled() -> None:
    harness = Harness(HubConfig(deflate=True, inflated_bytes_per_s=LIMIT), typed=False)
    peer = deflating(harness)
    harness.received.clear()
    peer.raw(bombs(LIMIT, 10))
    peer.vanish()
    harness.settle()

    assert len(harness.received) == 10
    assert len(harness.closes(peer)) == 1


# ---- through the hub ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "code", "word"),
    [
        (message(b"\x06"), 1007, "bad_deflate"),
        (message(pack(b"\xff"), text=True), 1007, "bad_utf8"),
        (message(BOMB), 1009, "too_large"),
        (BEGUN + text_frame("a"), 1002, "protocol_error"),
        (message(HELLO, cuts=(1, 2, 3)), 1008, "too_many_fragments"),
    ],
    ids=["no deflate", "no UTF-8", "a bomb", "in the midst", "fragments"],
)
def test_faults_are_told_and_closed(frames: bytes, code: int, word: str) -> None:
    harness = Harness(HubConfig(deflate=True, fragments_max=3))
    peer = deflating(harness)
    peer.raw(frames)
    end = peer.close_seen()

    assert end is not None
    assert end[0] == code
    assert [wrong.kind for wrong in harness.effects(PeerMisbehaved)] == [word]


def test_compressed_and_plain_messages_keep_their_order() -> None:
    harness = Harness(HubConfig(deflate=True))
    peer, other = deflating(harness, "africa"), harness.client("africa")
    for number in range(20):
        frame = text_frame({"type": "chat", "room": "africa", "payload": {"n": number, "pad": "x" * 50 * number}})
        plain = FrameReader(message_bytes_max=LIMIT).feed(frame)[0]
        assert isinstance(plain, str)
        peer.raw(message(pack(plain.encode()), text=True, cuts=(number,)) if number % 2 else frame)

    assert [told["payload"]["n"] for told in other.messages()] == list(range(20))
    assert [told["payload"]["n"] for told in peer.messages()] == list(range(20))


def test_frames_in_the_same_read_as_the_request_may_be_compressed() -> None:
    harness = Harness(HubConfig(deflate=True), typed=False)
    harness.connect(request=upgrade_request(f"Sec-WebSocket-Extensions: {PMD}") + message(HELLO, text=True))

    assert harness.received == ["Hello " * 30]


@pytest.mark.threat(5)
def test_many_connections_hold_nothing_of_zlib_between_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    made = 0

    def watched(kind: Any) -> Any:
        class Watched:
            def __init__(self, *args: Any) -> None:
                nonlocal made
                made += 1
                self.inner = kind(*args)
                alive.add(self)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        return Watched

    for name in ("compressobj", "decompressobj"):
        monkeypatch.setattr(zlib, name, watched(getattr(zlib, name)))
    harness = Harness(HubConfig(deflate=True))
    gc.disable()
    try:
        peers: list[Peer] = [deflating(harness, f"room{number % 20}") for number in range(200)]
        hello = b'{"type":"chat","room":"room%d","payload":{"text":"' + b"ha" * 200 + b'"}}'
        for number, peer in enumerate(peers):
            packed = pack(hello % (number % 20))
            peer.raw(message(packed, text=True))
            peer.raw(message(packed, text=True, cuts=(9,))[:-5])  # And the beginning of another.
        assert len(harness.effects(MessageReceived)) == 0
        assert made > 400
        assert len(alive) == 0
    finally:
        gc.enable()


def test_what_an_unfinished_message_holds_counts_as_received() -> None:
    harness = Harness(HubConfig(deflate=True), typed=False)
    peer = deflating(harness)
    packed = pack(Random(1).randbytes(5_000))
    frames = message(packed, cuts=(2_000,))
    peer.raw(frames[:3_000])

    assert 2_900 < harness.hub.received_bytes < 3_000
    peer.raw(frames[3_000:])
    assert harness.hub.received_bytes == 0


def test_compressed_messages_that_wait_count_as_what_they_are() -> None:
    harness = Harness(HubConfig(deflate=True, received_bytes_total=300_000), typed=False)
    peer = deflating(harness)
    harness.finishing = False
    for _ in range(5):
        peer.raw(bombs(LIMIT, 1))

    assert harness.hub.received_bytes == 4 * LIMIT
    peer.raw(bombs(LIMIT, 1))
    assert harness.hub.received_bytes == 5 * LIMIT
    assert harness.effects(PauseReading) == [PauseReading(peer.conn)]


@pytest.mark.threat(10)
def test_row_10_what_is_held_too_much_of_is_not_inflated_before_its_turn() -> None:
    """Who comes, sends much that is small while it is compressed, and goes while a handler runs."""
    harness = Harness(HubConfig(deflate=True, received_bytes_total=4 * LIMIT), typed=False)
    peers = []
    for number in range(30):
        harness.finishing = True
        peer = deflating(harness)
        peers.append(peer)
        harness.finishing = False
        for _ in range(6):
            peer.raw(bombs(LIMIT, 2))
        if number % 2:
            peer.vanish()
    assert harness.hub.received_bytes < 6 * LIMIT + 30 * 4_096, "a queue of 12 each would be 360"

    harness.finishing = True
    for peer in peers:
        harness.finish(peer)
        harness.settle()

    assert harness.hub.received_bytes == 0, "all was handled in the end"
    for peer in peers:
        taken = [record for record in harness.effects(MessageReceived) if record.conn == peer.conn]
        assert sum(len(record.messages) for record in taken) == 12
