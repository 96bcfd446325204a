"""Threats that no test of a single part shows: memory of fragments, text that goes wrong in the midst of a frame."""

from __future__ import annotations

import tracemalloc

import pytest

from vixws_core import HubConfig
from vixws_core.app.access import AuthRequest, Grant, RootRouter, User
from vixws_core.effects import PeerMisbehaved
from vixws_core.wire.frames import TEXT, FrameFailed, FrameReader, encode_frame

from .app_rig import AppRig, typed
from .harness import MASK, Harness

FRAGMENTS = 60_000


@pytest.mark.threat(6)
@pytest.mark.parametrize("size", [0, 1])
def test_fragments_cost_about_their_bytes(size: int) -> None:
    fragment = encode_frame(TEXT, b"a" * size, MASK)[1:]
    data = (b"\x00" + fragment) * 500
    reader = FrameReader(message_bytes_max=1 << 20, fragments_max=FRAGMENTS + 2)
    reader.feed(b"\x01" + fragment)
    tracemalloc.start()
    try:
        for _ in range(FRAGMENTS // 500):
            assert reader.feed(data) == []
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reader.in_message
    assert grown < 2 * size * FRAGMENTS + (1 << 20)
    assert reader.feed(b"\x80" + fragment) == ["a" * size * (FRAGMENTS + 2)]


@pytest.mark.threat(15)
@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b"\xff", 1),
        (b"a" * 500 + b"\xc0\x80", 501),
        (b"\xed\xa0\x80", 3),  # Python's decoder looks at a surrogate as a whole.
        (b"\xf4\x90\x80\x80", 2),
        (b"\xe2\x82a", 3),
        (b"a" * 40_000 + b"\xfe", 40_001),
    ],
    ids=["FF", "overlong", "surrogate", "beyond Unicode", "cut short", "far behind"],
)
@pytest.mark.parametrize("more", [10, 20_000])
def test_text_is_refused_at_its_first_impossible_byte(text: bytes, at: int, more: int) -> None:
    whole = encode_frame(TEXT, text + b"b" * more, MASK)
    head = len(whole) - len(text) - more
    harness = Harness()
    peer = harness.client()
    peer.raw(whole[: head + at - 1])
    before = harness.hub.is_open(peer.conn)
    peer.raw(whole[head + at - 1 : head + at])

    assert before
    assert (peer.close_seen() or (0,))[0] == 1007
    assert harness.effects(PeerMisbehaved)[-1].kind == "bad_utf8"


@pytest.mark.threat(15)
def test_text_that_ends_in_the_midst_of_a_character_is_refused() -> None:
    (found,) = FrameReader(message_bytes_max=100).feed(encode_frame(TEXT, b"\xe2\x82", MASK))

    assert isinstance(found, FrameFailed)
    assert found.code == 1007


@pytest.mark.threat(20)
def test_a_request_that_is_shown_shows_no_secrets() -> None:
    headers = (("authorization", "Bearer s3cret"), ("cookie", "sid=s3cret"), ("user-agent", "a\r\nb"))
    request = AuthRequest(
        "/ws?token=s3cret", headers, ("vixws.bearer.s3cret",), "::1", "s3cret", False, {"sid": "s3cret"}
    )

    assert "s3cret" not in repr(request)
    assert "/ws" in repr(request)
    assert repr(request).isprintable()


@pytest.mark.threat(2)
def test_who_comes_back_is_asked_about_again_room_by_room() -> None:
    router = RootRouter()
    allowed = {"africa", "asia"}
    router.authenticate(lambda request: User("ada"))
    router.authorize(lambda user, action, room: Grant() if room in allowed else None)
    rig = AppRig(router)
    first = rig.connect()
    joined = first.ask(typed("$hello", {"v": [1]}), typed("$join", room="africa"), typed("$join", room="asia"))
    since = {"since": {"ep": joined[1]["payload"]["ep"], "off": 0}}
    allowed.remove("africa")
    second = rig.connect()
    again = second.ask(
        typed("$hello", {"v": [1]}), typed("$join", since, room="africa"), typed("$join", since, room="asia")
    )

    assert [message["type"] for message in joined] == ["$welcome", "$joined", "$live", "$joined", "$live"]
    assert [message["type"] for message in again] == ["$welcome", "$err", "$joined", "$live"]
    assert again[1]["payload"]["code"] == "denied"
    assert rig.hub.members("africa") == (1,)


@pytest.mark.threat(29)
def test_a_clock_that_steps_back_lengthens_no_proof_that_was_shown() -> None:
    router = RootRouter()
    router.authenticate(lambda request: User("ada", expires=1_800_000_160.0))
    rig = AppRig(router, config=HubConfig(auth_due_s=0, ping_interval_s=0))
    peer = rig.connect()
    peer.ask(typed("$hello", {"v": [1]}))
    rig.wall -= 7_200
    rig.pass_time(59.9)
    before = peer.closed()
    rig.pass_time(0.2)
    after = peer.closed()

    assert before is None
    assert after is not None and after[0] == 4101
