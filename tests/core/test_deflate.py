"""permessage-deflate: what is agreed on, what is sent, and who shares it (RFC 7692, PROTOCOL §13)."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vixws_core import HubConfig
from vixws_core.effects import Broadcast, Requested
from vixws_core.inputs import Accept, Join, Publish, Respond, Send, SendToAll
from vixws_core.wire import deflate
from vixws_core.wire.codec import PLAIN
from vixws_core.wire.deflate import DEFLATED_MIN, TAIL, Deflate, agree
from vixws_core.wire.frames import BINARY, PING, TEXT, FrameReader, PongReceived, Received, encode_frame
from vixws_core.wire.http import extension_offers
from vixws_core.wire.inflate import InflatingReader

from .harness import MASK, Harness, Peer, upgrade_request

ON = HubConfig(deflate=True)
PMD = "permessage-deflate"
BASE = f"{PMD}; server_no_context_takeover; client_no_context_takeover"


def answer(*values: str) -> str | None:
    """What a server answers to these header fields."""
    agreed = agree(extension_offers(tuple(("sec-websocket-extensions", value) for value in values)))
    return None if agreed is None else agreed[0]


# ---- what is agreed on ----------------------------------------------------------------------------------

OFFERS: list[tuple[str, str | None]] = [
    # Good ones.
    (PMD, BASE),
    (f"{PMD}; client_max_window_bits", BASE),
    (f"{PMD}; client_max_window_bits=10", BASE),
    (f"{PMD}; client_max_window_bits=8", BASE),
    (f"{PMD}; client_no_context_takeover", BASE),
    (f"{PMD}; server_no_context_takeover", BASE),
    (f"{PMD}; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=15", BASE),
    (f"{PMD}; server_max_window_bits=15", f"{BASE}; server_max_window_bits=15"),
    (f"{PMD}; server_max_window_bits=14", f"{BASE}; server_max_window_bits=12"),
    (f"{PMD}; server_max_window_bits=12", f"{BASE}; server_max_window_bits=12"),
    (f"{PMD}; server_max_window_bits=11", f"{BASE}; server_max_window_bits=9"),
    (f"{PMD}; server_max_window_bits=9; client_max_window_bits=9", f"{BASE}; server_max_window_bits=9"),
    (f'{PMD}; server_max_window_bits="10"', f"{BASE}; server_max_window_bits=9"),
    (f'{PMD}; server_max_window_bits="1\\0"', f"{BASE}; server_max_window_bits=9"),
    (f" \t{PMD}\t;client_max_window_bits ; server_no_context_takeover ", BASE),
    (f",, {PMD},,", BASE),
    (f"x-webkit-deflate-frame, {PMD}", BASE),
    (f'x-other; a="b, {PMD}; c"; d, {PMD}', BASE),
    (f"{PMD}; client_max_window_bits, {PMD}; server_max_window_bits=10", BASE),
    # The next one will do.
    (f"{PMD}; server_max_window_bits=8, {PMD}", BASE),
    (f"{PMD}; x=1, {PMD}; server_max_window_bits=10", f"{BASE}; server_max_window_bits=9"),
    (f"{PMD}; client_max_window_bits=, {PMD}", BASE),
    (f"\xe9, {PMD}", BASE),
    # Declined.
    (f"{PMD}; server_max_window_bits=8", None),
    (f"{PMD}; server_max_window_bits=7", None),
    (f"{PMD}; server_max_window_bits=16", None),
    (f"{PMD}; server_max_window_bits=0", None),
    (f"{PMD}; server_max_window_bits=-9", None),
    (f"{PMD}; server_max_window_bits=09", None),
    (f"{PMD}; server_max_window_bits=1e1", None),
    (f"{PMD}; server_max_window_bits", None),
    (f'{PMD}; server_max_window_bits=""', None),
    (f"{PMD}; client_max_window_bits=abc", None),
    (f"{PMD}; client_max_window_bits=+12", None),
    (f"{PMD}; client_max_window_bits=1_2", None),
    (f'{PMD}; client_max_window_bits=" 12"', None),
    (f"{PMD}; client_max_window_bits=7", None),
    (f"{PMD}; client_max_window_bits=16", None),
    (f"{PMD}; client_max_window_bits=99999999999999999999", None),
    (f"{PMD}; client_max_window_bits; client_max_window_bits=12", None),
    (f"{PMD}; server_no_context_takeover; server_no_context_takeover", None),
    (f"{PMD}; server_no_context_takeover=1", None),
    (f"{PMD}; client_no_context_takeover=true", None),
    (f"{PMD}; server_max_window_bits=12; server_max_window_bits=12", None),
    (f"{PMD}; no_such_parameter", None),
    (f"{PMD};", None),
    (f"{PMD}; ;", None),
    (f"{PMD} client_max_window_bits", None),
    (f"{PMD}; client_max_window_bits=12 13", None),
    (f"{PMD}; client_max_window_bits=\xb9\xb2", None),
    (f'{PMD}; client_max_window_bits="12', None),
    (f'x="{PMD}, {PMD}', None),
    (f'"{PMD}"', None),
    ("permessage-bzip2", None),
    ("", None),
    ('"', None),
    ("=", None),
]


@pytest.mark.parametrize(("offer", "expected"), OFFERS, ids=[offer for offer, _ in OFFERS])
def test_an_offer_is_answered_or_declined_and_never_refused(offer: str, expected: str | None) -> None:
    peer = Harness(ON).connect(request=upgrade_request(f"Sec-WebSocket-Extensions: {offer}"))
    peer.frames()
    lines = peer.head.decode("latin-1").split("\r\n")

    assert answer(offer) == expected
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    told = [line for line in lines if line.lower().startswith("sec-websocket-extensions")]
    assert told == ([] if expected is None else [f"Sec-WebSocket-Extensions: {expected}"])


def test_offers_may_stand_in_several_fields() -> None:
    assert answer("x-other", f"{PMD}; server_max_window_bits=8", f"{PMD}; client_max_window_bits") == BASE
    assert answer("x-other; a", PMD) == BASE


@given(st.text(st.sampled_from(f'{PMD[:3]};=," \\\t9'), max_size=30))
def test_no_offer_raises(value: str) -> None:
    for name, parameters in extension_offers((("sec-websocket-extensions", value),)):
        assert name
        assert all(key for key, _ in parameters)
    assert answer(value) is None
    assert answer(PMD, value) == BASE


def test_it_is_off_by_default() -> None:
    peer = Harness().connect(request=upgrade_request(f"Sec-WebSocket-Extensions: {PMD}"))
    peer.frames()

    assert b"extensions" not in peer.head.lower()
    assert peer.head.startswith(b"HTTP/1.1 101 ")


def test_the_application_does_not_answer_in_its_place() -> None:
    harness = Harness()
    harness.accepting = False
    peer = harness.connect()
    harness.put(Accept(peer.conn, headers=(("Sec-WebSocket-Extensions", PMD),)))
    peer.frames()

    assert b"extensions" not in peer.head.lower()


def test_a_plain_request_may_offer_what_it_likes() -> None:
    harness = Harness(ON)
    harness.accepting = False
    peer = harness.connect(request=f"GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Extensions: {PMD}\r\n\r\n".encode())
    harness.put(Respond(peer.conn, 200))

    assert harness.effects(Requested)[0].upgrade is False
    assert b"extensions" not in bytes(peer.out).lower()


# ---- the codec ------------------------------------------------------------------------------------------


class ClientReader(InflatingReader):
    """Reads all that came at once, however much it makes."""

    def __init__(self) -> None:
        super().__init__(client=True, message_bytes_max=1 << 30)

    def feed(self, data: bytes, most: int = 1 << 30, apart: bool = False) -> list[Received]:
        out = found = super().feed(data, most, apart)
        while found:
            found = super().feed(b"", most, apart)
            out += found
        return out


def read(data: bytes) -> list[Received]:
    return ClientReader().feed(data)


texts = st.one_of(
    st.text(max_size=400),
    st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 300)).map(lambda pair: pair[0] * pair[1]),
    st.integers(120, 70_000).map(lambda size: "x" * size),
)


@given(st.lists(texts, max_size=6), st.sampled_from([9, 12, 15]))
def test_what_is_shared_is_read_back_message_by_message(messages: list[str], window_bits: int) -> None:
    plain = [encode_frame(TEXT, message.encode("utf-8", "replace")) for message in messages]
    shared = Deflate(window_bits).share(b"".join(plain))

    assert read(shared) == FrameReader(client=True, message_bytes_max=1 << 30).feed(b"".join(plain))
    assert len(shared) <= sum(map(len, plain))
    # A frame is the same whether it goes alone or among others.
    assert shared == b"".join(map(Deflate(window_bits).share, plain))


@given(st.binary(max_size=2_000), st.sampled_from([9, 12, 15]))
def test_one_message_is_read_back(data: bytes, window_bits: int) -> None:
    codec = Deflate(window_bits)

    assert read(codec.binary(data * 3)) == [data * 3]
    assert read(codec.text(data.hex().encode())) == [data.hex()]


@pytest.mark.parametrize("window_bits", [9, 12, 15])
def test_the_window_that_was_agreed_on_is_kept(window_bits: int) -> None:
    data = b" ".join(Random(7).choices([Random(number).randbytes(6).hex().encode() for number in range(300)], k=4_000))
    frame = Deflate(window_bits).binary(data)
    rest, made = frame[4:] + TAIL, b""
    inflater = zlib.decompressobj(-window_bits)
    while rest:  # In pieces: what is behind them is known by the window alone.
        made += inflater.decompress(rest, 64)
        rest = inflater.unconsumed_tail

    assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0xC2, len(frame) - 4)
    assert made == data


def test_short_messages_and_those_that_do_not_shrink_go_plain() -> None:
    codec = Deflate(15)
    noise = Random(7).randbytes(2_000)

    assert codec.text(b"x" * (DEFLATED_MIN - 1)) == PLAIN.text(b"x" * (DEFLATED_MIN - 1))
    assert codec.text(b"x" * DEFLATED_MIN)[0] == 0xC1
    assert codec.binary(noise) == PLAIN.binary(noise)
    assert codec.text(b"") == b"\x81\x00"


def test_where_nothing_shrinks_the_shared_bytes_stay_the_same_object() -> None:
    plain = encode_frame(TEXT, b"short") * 5

    assert Deflate(15).share(plain) is plain
    assert Deflate(15).share(b"") == b""


# ---- through the hub ------------------------------------------------------------------------------------


def deflating(harness: Harness, *rooms: str, offer: str = PMD) -> Peer:
    """A client that agreed on compression, said hello and joined."""
    peer = harness.connect(request=upgrade_request(f"Sec-WebSocket-Extensions: {offer}"))
    peer._reader = ClientReader()
    peer.hello()
    for room in rooms:
        peer.join(room)
    assert b"Sec-WebSocket-Extensions" in peer.head
    return peer


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How zlib is asked to compress from now on."""
    made: list[Any] = []
    compress = zlib.compressobj

    def compressobj(*args: Any) -> Any:
        made.append(args)
        return compress(*args)

    monkeypatch.setattr(zlib, "compressobj", compressobj)
    return made


def test_a_mixed_room_shares_one_object_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(ON)
    plain = [harness.client("africa") for _ in range(2)]
    wide = [deflating(harness, "africa") for _ in range(3)]
    small = [deflating(harness, "africa", offer=f"{PMD}; server_max_window_bits={bits}") for bits in (9, 10, 11)]
    deflate._remembered.cache_clear()
    made = counted(monkeypatch)
    harness.put(Publish("africa", "chat", b'{"text":"' + b"ha" * 500 + b'"}'))
    groups = harness.effects(Broadcast)[-3:]

    assert [group.conns for group in groups] == [tuple(peer.conn for peer in kind) for kind in (plain, wide, small)]
    assert [args[2] for args in made] == [-15, -9]
    assert [group.data[0] for group in groups] == [0x81, 0xC1, 0xC1]
    for peer in (*plain, *wide, *small):
        assert [message["payload"]["text"] for message in peer.messages() if message["type"] == "chat"] == ["ha" * 500]


def test_all_windows_together_are_three_kinds() -> None:
    offers = [PMD, *(f"{PMD}; server_max_window_bits={bits}" for bits in range(9, 16))]
    agreed = [agree(extension_offers((("sec-websocket-extensions", offer),))) for offer in offers]

    assert len({id(found[1]) for found in agreed if found is not None}) == 3


def test_unsent_counts_what_is_really_sent() -> None:
    harness = Harness(ON)
    peer, plain = deflating(harness, "africa"), harness.client("africa")
    peer.takes = plain.takes = False
    payload = b'{"text":"' + b"ha" * 1_000 + b'"}'
    harness.put(Publish("africa", "chat", payload), Send(peer.conn, payload), SendToAll(payload))
    harness.put(Send(peer.conn, payload * 2, binary=True))

    assert peer.unflushed == harness.hub.unsent_bytes_of(peer.conn) < 500
    assert plain.unflushed == harness.hub.unsent_bytes_of(plain.conn) > 4_000
    peer.flush()
    plain.flush()
    assert harness.hub.unsent_bytes == 0
    assert len(peer.frames()) == 4


@pytest.mark.parametrize("tail", [1, 1 << 20], ids=["from the store", "from the tail"])
def test_a_page_of_several_frames_is_compressed_frame_by_frame(tail: int) -> None:
    harness = Harness(HubConfig(deflate=True, tail_bytes_room=tail, message_bytes_max=100_000))
    keeper = harness.client("africa")
    sizes = [0, 5, 2_000, 3, 300, 70_000, 1]
    for size in sizes:
        harness.put(Publish("africa", "chat", b'{"text":"%s"}' % (b"y" * size)))
    peer = deflating(harness)
    mark = len(peer.out)
    harness.put(Join(peer.conn, "africa", last=50))

    assert [len(message["payload"]["text"]) for message in peer.messages() if message["type"] == "chat"] == sizes
    assert len(peer.out) - mark < 4_000
    assert len(keeper.messages()) == len(sizes)


def test_a_slow_reader_is_parked_by_what_is_really_unsent_and_reads_on() -> None:
    harness = Harness(HubConfig(deflate=True, unsent_bytes_low=2_000, unsent_bytes_high=6_000, tail_bytes_room=500))
    peer = deflating(harness, "africa")
    peer.takes = False
    texts = [Random(number).randbytes(300).hex() for number in range(60)]
    for text in texts:
        harness.put(Publish("africa", "chat", b'{"text":"%s"}' % text.encode()))
    assert harness.hub.unsent_bytes_of(peer.conn) == peer.unflushed < 9_000
    while peer.unflushed:
        peer.flush(500)

    assert [message["payload"]["text"] for message in peer.messages() if message["type"] == "chat"] == texts
    assert harness.hub.unsent_bytes == 0


def test_who_reads_on_gets_what_was_compressed_already(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(ON)
    live = deflating(harness, "africa")
    for number in range(20):
        harness.put(Publish("africa", "chat", b'{"text":"%d %s"}' % (number, b"ha" * 200)))
    late = deflating(harness)
    made = counted(monkeypatch)
    harness.put(Join(late.conn, "africa", last=20))

    assert len(made) == 1  # Its `$joined`.
    found = [[message for message in peer.messages() if message["type"] == "chat"] for peer in (live, late)]
    assert found[0] == found[1]
    assert len(found[0]) == 20


def test_what_is_remembered_is_bounded() -> None:
    codec = Deflate(15)
    for number in range(deflate._KEPT + 100):
        codec.share(encode_frame(TEXT, b"%d" % number * 50))
    before = deflate._remembered.cache_info().currsize
    codec.share(encode_frame(TEXT, b"x" * (deflate._KEPT_BYTES + 1)) + encode_frame(TEXT, b"x" * (DEFLATED_MIN - 1)))

    assert deflate._remembered.cache_info().currsize == before == deflate._KEPT


def test_control_frames_are_never_compressed() -> None:
    harness = Harness(ON)
    peer = deflating(harness)
    peer.raw(encode_frame(PING, b"p" * 125, MASK))

    assert peer.frames() == [PongReceived(b"p" * 125)]


def test_binary_to_all_is_shared_by_kind() -> None:
    harness = Harness(ON, typed=False)
    peers = [deflating(harness), deflating(harness), harness.client()]
    harness.put(SendToAll(b"\xff" * 1_000, binary=True))

    assert [len(told.data) for told in harness.effects(Broadcast)] == [len(Deflate(15).binary(b"\xff" * 1_000)), 1_004]
    assert [peer.frames() for peer in peers] == [[b"\xff" * 1_000]] * 3
    assert encode_frame(BINARY, b"\xff" * 1_000) == harness.effects(Broadcast)[1].data
