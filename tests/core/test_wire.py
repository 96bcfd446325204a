"""The JSON of the wire: what is an envelope and what is refused, and that what we write can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vixws_core import wire
from vixws_core.effects import AppMessage, PeerMisbehaved
from vixws_core.errors import BadMessage
from vixws_core.message import StoredMessage
from vixws_core.wire import Envelope, HelloPayload, HistoryPayload, JoinPayload

from .harness import Harness


def verdict(text: str, depth_max: int = 64) -> str:
    """The code of the refusal, or "" for a good envelope."""
    try:
        wire.decode(text, depth_max)
    except BadMessage as exc:
        return exc.code
    return ""


def nested(depth: int, kind: str = "object") -> str:
    """An envelope whose deepest bracket is the `depth`th."""
    left, right = ('{"a":', "}") if kind == "object" else ("[", "]")
    if kind == "object":
        return '{"type":"a","payload":' + left * (depth - 2) + "{}" + right * (depth - 2) + "}"
    return '{"type":"a","payload":{"a":' + left * (depth - 2) + right * (depth - 2) + "}}"


HUGE = "9" * 5_000

TABLE: dict[str, tuple[str, str]] = {
    # what it is: (text, code; "" where it is good)
    "smallest": ('{"type":"a"}', ""),
    "all keys": ('{"type":"a","payload":{},"room":"r","ref":"1","mid":"m","kind":"k"}', ""),
    "server's keys": ('{"type":"a","ep":5,"off":"x","id":[],"ts":null,"from":{}}', ""),
    "unknown keys": ('{"type":"a","x":1,"X":1,"Type":2}', ""),
    "spaces": (' \t\r\n{ "type" : "a" , "payload" : { "b" : [ ] } } \n', ""),
    "null room ref mid": ('{"type":"a","room":null,"ref":null,"mid":null}', ""),
    "not JSON": ("hello", "bad_json"),
    "empty": ("", "bad_json"),
    "space only": (" ", "bad_json"),
    "cut": ('{"type":"a"', "bad_json"),
    "trailing comma": ('{"type":"a",}', "bad_json"),
    "trailing text": ('{"type":"a"}x', "bad_json"),
    "two objects": ('{"type":"a"}{"type":"b"}', "bad_json"),
    "byte order mark": ('\ufeff{"type":"a"}', "bad_json"),
    "single quotes": ("{'type':'a'}", "bad_json"),
    "no quotes": ("{type:1}", "bad_json"),
    "comment": ('{"type":"a"/**/}', "bad_json"),
    "control character": ('{"type":"a\n"}', "bad_json"),
    "control character in the payload": ('{"type":"a","payload":{"x":"\x01"}}', "bad_json"),
    "bad escape": ('{"type":"a","payload":{"x":"\\q"}}', "bad_json"),
    "bad escape in an unknown key": ('{"type":"a","x":"\\q"}', "bad_json"),
    "short escape": ('{"type":"a","payload":{"x":"\\u12"}}', "bad_json"),
    "NaN": ('{"type":"a","payload":{"x":NaN}}', "bad_json"),
    "Infinity": ('{"type":"a","payload":{"x":Infinity}}', "bad_json"),
    "-Infinity": ('{"type":"a","payload":{"x":-Infinity}}', "bad_json"),
    "NaN in an unknown key": ('{"type":"a","x":NaN}', "bad_json"),
    "leading zero": ('{"type":"a","payload":{"x":01}}', "bad_json"),
    "plus sign": ('{"type":"a","payload":{"x":+1}}', "bad_json"),
    "no digit": ('{"type":"a","payload":{"x":1.}}', "bad_json"),
    "huge integer": ('{"type":"a","payload":{"x":' + HUGE + "}}", ""),
    "huge integer looked at closely": ('{"type":"\\u0061","payload":{"x":' + HUGE + "}}", ""),
    "huge float": ('{"type":"a","payload":{"x":1e999}}', ""),
    "an array": ("[]", "bad_message"),
    "a string": ('"type"', "bad_message"),
    "a number": ("5", "bad_message"),
    "null": ("null", "bad_message"),
    "no type": ("{}", "bad_message"),
    "empty type": ('{"type":""}', "bad_message"),
    "type is a number": ('{"type":5}', "bad_message"),
    "type is null": ('{"type":null}', "bad_message"),
    "long type": ('{"type":"' + "a" * 128 + '"}', ""),
    "too long type": ('{"type":"' + "a" * 129 + '"}', "bad_message"),
    "payload is an array": ('{"type":"a","payload":[]}', "bad_message"),
    "payload is a string": ('{"type":"a","payload":"{}"}', "bad_message"),
    "payload is null": ('{"type":"a","payload":null}', "bad_message"),
    "payload is a number": ('{"type":"a","payload":5}', "bad_message"),
    "room is a number": ('{"type":"a","room":5}', "bad_message"),
    "room is an object": ('{"type":"a","room":{}}', "bad_message"),
    "ref is a number": ('{"type":"a","ref":5}', "bad_message"),
    "ref is empty": ('{"type":"a","ref":""}', "bad_message"),
    "ref of 64": ('{"type":"a","ref":"' + "r" * 64 + '"}', ""),
    "ref of 65": ('{"type":"a","ref":"' + "r" * 65 + '"}', "bad_message"),
    "mid is a number": ('{"type":"a","mid":5}', "bad_message"),
    "mid is empty": ('{"type":"a","mid":""}', "bad_message"),
    "mid of 128": ('{"type":"a","mid":"' + "m" * 128 + '"}', ""),
    "mid of 129": ('{"type":"a","mid":"' + "m" * 129 + '"}', "bad_message"),
    "kind is null": ('{"type":"a","kind":null}', "bad_message"),
    "kind is empty": ('{"type":"a","kind":""}', "bad_message"),
    "kind of 65": ('{"type":"a","kind":"' + "k" * 65 + '"}', "bad_message"),
    "type twice": ('{"type":"a","type":"b"}', "bad_message"),
    "type twice, one escaped": ('{"type":"a","\\u0074ype":"b"}', "bad_message"),
    "type twice, both escaped": ('{"t\\u0079pe":"a","\\u0074ype":"b"}', "bad_message"),
    "payload twice": ('{"type":"a","payload":{},"payload":{}}', "bad_message"),
    "room twice": ('{"type":"a","room":"r","room":"r"}', "bad_message"),
    "room twice, then null": ('{"type":"a","room":"r","room":null}', "bad_message"),
    "room twice, one escaped, then null": ('{"type":"a","room":"r","ro\\u006fm":null}', "bad_message"),
    "ref twice": ('{"type":"a","ref":"1","ref":"2"}', "bad_message"),
    "ref twice, then null": ('{"type":"a","ref":"1","ref":null}', "bad_message"),
    "mid twice": ('{"type":"a","mid":"1","mid":"2"}', "bad_message"),
    "mid twice, then null": ('{"type":"a","mid":"1","mid":null}', "bad_message"),
    "kind twice": ('{"type":"a","kind":"x","kind":"y"}', "bad_message"),
    "kind twice, then event": ('{"type":"a","kind":"x","kind":"event"}', "bad_message"),
    "duplicates in the payload": ('{"type":"a","payload":{"x":1,"x":2}}', ""),
    "envelope keys in the payload": ('{"type":"a","payload":{"type":"b","payload":{},"room":null,"kind":"k"}}', ""),
    "envelope keys in a string": ('{"type":"a","payload":{"x":"\\"type\\":\\"type\\""}}', ""),
    "unknown key twice": ('{"type":"a","x":1,"x":2}', ""),
    "lone surrogate": ('{"type":"a","payload":{"x":"\\ud800"}}', "bad_json"),
    "lone low surrogate": ('{"type":"a","payload":{"x":"\\udc00"}}', "bad_json"),
    "reversed surrogates": ('{"type":"a","payload":{"x":"\\udc00\\ud800"}}', "bad_json"),
    "surrogate in a key": ('{"type":"a","payload":{"\\udc00":1}}', "bad_json"),
    "surrogate in the type": ('{"type":"\\udc00"}', "bad_json"),
    "surrogate in the room": ('{"type":"a","room":"\\udc00"}', "bad_json"),
    "surrogate in an unknown key": ('{"type":"a","x":"\\udc00"}', "bad_json"),
    "surrogate pair": ('{"type":"a","payload":{"x":"\\ud83d\\ude00"}}', ""),
    "escaped NUL": ('{"type":"a","payload":{"x":"\\u0000"}}', ""),
    "escaped backslash u": ('{"type":"a","payload":{"x":"\\\\udc00"}}', ""),
    "depth 64": (nested(64), ""),
    "depth 65": (nested(65), "too_deep"),
    "depth 64 of arrays": (nested(64, "array"), ""),
    "depth 65 of arrays": (nested(65, "array"), "too_deep"),
    "depth 100,000": (nested(100_000), "too_deep"),
    "depth 100,000 of arrays": (nested(100_000, "array"), "too_deep"),
    "depth 100,000 in an unknown key": ('{"type":"a","x":' + "[" * 100_000 + "]" * 100_000 + "}", "too_deep"),
    "depth 100,000 never closed": ('{"type":"a","payload":' + '{"a":' * 100_000, "too_deep"),
    "many brackets side by side": ('{"type":"a","payload":{"x":[' + "[]," * 500 + "[]]}}", ""),
    "brackets in strings": ('{"type":"a","payload":{"x":"' + "[{" * 500 + '\\"[{"}}', ""),
}


@pytest.mark.parametrize(("text", "code"), TABLE.values(), ids=TABLE.keys())
@pytest.mark.threat(16)
def test_row_16_envelope_has_the_verdict_of_the_table(text: str, code: str) -> None:
    assert verdict(text) == code


SENDABLE = {name: case for name, case in TABLE.items() if len(case[0]) < 60_000}


@pytest.mark.parametrize(("text", "code"), SENDABLE.values(), ids=SENDABLE.keys())
@pytest.mark.threat(16)
def test_row_16_bad_envelope_is_answered_to_its_sender_only(text: str, code: str) -> None:
    harness = Harness()
    peer, other = harness.client(), harness.client("other")
    peer.send(text)
    expected = [code] if code else []

    assert [wrong.kind for wrong in harness.effects(PeerMisbehaved)] == expected
    assert [m["payload"]["code"] for m in peer.messages() if m["type"] == "$err"] == expected
    assert harness.hub.is_open(peer.conn)
    assert other.messages() == []


def test_limit_of_depth_can_be_set() -> None:
    assert [verdict(nested(depth), 5) for depth in (4, 5, 6)] == ["", "", "too_deep"]


@pytest.mark.threat(16)
def test_row_16_a_mebibyte_of_nested_objects_stays_raw() -> None:
    text = '{"type":"a","payload":{"x":[' + ",".join(["{}"] * 349_000) + "]}}"
    assert len(text) > 1_000_000
    envelope = wire.decode(text)

    assert type(bytes(envelope.payload)) is bytes
    assert len(bytes(envelope.payload)) > 1_000_000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_payload_is_relayed_byte_for_byte(value: Any, ascii_only: bool) -> None:
    try:
        payload = json.dumps({"value": value}, ensure_ascii=ascii_only)
        payload.encode()
    except UnicodeEncodeError:
        payload = "{}"
    found = verdict('{"type":"a","payload":' + payload + "}")
    if found:
        assert found == "bad_json"
        with pytest.raises(UnicodeEncodeError):
            json.dumps(json.loads(payload), ensure_ascii=False).encode()
        return

    assert bytes(wire.decode('{"type":"a","payload":' + payload + "}").payload).decode() == payload


@given(st.text(max_size=60) | st.text(alphabet='{}[]":,\\u0typeraomidkn lfs1-.e', max_size=60))
def test_any_text_is_an_envelope_or_refused_and_never_raises_anything_else(text: str) -> None:
    for whole in (text, '{"type":"a","payload":' + text + "}", '{"type":' + text + "}"):
        if verdict(whole) == "":
            assert isinstance(json.loads(whole), dict)
        wire.find_ref(whole)


@given(st.binary(max_size=40))
@pytest.mark.threat(16)
def test_row_16_no_bytes_of_a_peer_make_the_hub_raise(data: bytes) -> None:
    harness = Harness()
    peer = harness.client("africa")
    peer.send('{"type":"a","x":"' + data.decode("latin-1") + '"}')
    peer.send_binary(data)
    peer.raw(data)

    assert harness.hub.sessions in (0, 1)


@pytest.mark.threat(16)
def test_huge_integers_are_relayed_exactly() -> None:
    harness = Harness()
    reader, peer = harness.client("africa"), harness.client()
    for text in ("1" + "0" * 4_000 + "7", "-" + HUGE, "0.1" + "0" * 400 + "1", "1E+5"):
        peer.send('{"type":"a","room":"africa","payload":{"n":' + text + "}}")
        harness.settle()

        assert b'{"n":' + text.encode() + b"}" in reader.out


# ---- the ref of what is no envelope -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ('{"ref":"9"}', "9"),
        ('{"type":5,"ref":"9"}', "9"),
        ('{"type":"a","payload":[],"ref":"9"}', "9"),
        ('{"type":"a","ref":5}', None),
        ('{"type":"a","ref":""}', None),
        ('{"type":"a","ref":"' + "r" * 65 + '"}', None),
        ('{"ref":"9"', None),
        ('{"ref":"\\ud800"}', None),
        ('{"type":"","ref":"\\udc00"}', None),
        ("[]", None),
        ("", None),
        ("[" * 100_000, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_ref_is_found_where_it_can_be_made_out(text: str, ref: str | None) -> None:
    assert wire.find_ref(text) == ref


def test_ref_that_is_found_can_always_be_answered() -> None:
    harness = Harness()
    peer = harness.client()
    peer.send('{"type":"","ref":"\\u0000\\n\\"é"}')
    (answer,) = peer.messages()

    assert answer["ref"] == '\0\n"é'


# ---- what we write ----------------------------------------------------------------------------------------


NASTY = ['"', "\\", "\n", "\0", "é", "😀", "\u2028", "</script>", "\x7f", "{}", '","off":9,"x":"']


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_whatever_stands_in_a_message_is_read_back(text: str) -> None:
    row = StoredMessage("00000000000000000007", text, text, text, "2026", b'{"a":1}', "e", 3, text, text)
    stored = json.loads(wire.stored_message(row))
    room = json.loads(wire.room_message(text, text, b'{"a":1}', text, text))
    error = json.loads(wire.error("denied", text, text, text))

    assert stored == {
        "type": text, "room": text, "ep": "e", "off": 3, "id": "00000000000000000007", "ts": "2026", "kind": text,
        "mid": text, "from": text, "payload": {"a": 1},
    }  # fmt: skip
    assert room == {"type": text, "room": text, "kind": text, "mid": text, "payload": {"a": 1}}
    assert error == {
        "type": "$err",
        "ref": text,
        "room": text,
        "payload": {"code": "denied", "retry": False, "msg": text},
    }


def test_defaults_are_left_out() -> None:
    row = StoredMessage("1", "event", "r", "t", "", b"{}", "e", 1)

    assert wire.stored_message(row) == b'{"type":"t","room":"r","ep":"e","off":1,"id":"1","ts":"","payload":{}}'
    assert wire.room_message("t", "r", b"{}") == b'{"type":"t","room":"r","payload":{}}'
    assert wire.answer("$left") == b'{"type":"$left"}'
    assert wire.answer("$x", payload={}) == b'{"type":"$x","payload":{}}'


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_the_hub_quotes_is_good_json(one: str, two: str) -> None:
    assert json.loads(wire.quote(one)) == one
    assert json.loads(wire.answer("$a", one, two, {"x": one}))["payload"]["x"] == one


def test_explicit_retry_goes_before_the_codes_own() -> None:
    assert json.loads(wire.error("store_full", "m", retry=False))["payload"]["retry"] is False
    assert json.loads(wire.error("denied", "m", retry=True))["payload"]["retry"] is True


# ---- payloads of the protocol ------------------------------------------------------------------------------


def test_payloads_have_their_defaults() -> None:
    hello = wire.decode_payload(HelloPayload, b"{}")
    join = wire.decode_payload(JoinPayload, b'{"unknown":1}')
    history = wire.decode_payload(HistoryPayload, b"{}")

    assert (hello.v, hello.session, hello.pub, hello.caps) == ((1,), None, None, ())
    assert (join.since, join.last, join.on_fail) == (None, 0, "head")
    assert (history.before, history.after, history.limit) == (None, None, 50)


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b'{"last":1.5}', b'{"since":[]}', b"{"])
def test_bad_payload_is_a_bad_message(payload: bytes) -> None:
    with pytest.raises(BadMessage, match="expected another payload") as caught:
        wire.decode_payload(JoinPayload, payload)

    assert caught.value.code == "bad_message"


def test_application_message_keeps_its_text() -> None:
    harness = Harness()
    text = '{ "type" : "a", "payload" : { "n" : 1.0 } }'
    harness.client().send(text)

    assert harness.received == [AppMessage(text, "a", b'{ "n" : 1.0 }')]


def test_envelope_without_payload_has_an_empty_one() -> None:
    envelope = wire.decode('{"type":"a"}')

    assert isinstance(envelope, Envelope)
    assert bytes(envelope.payload) == b"{}"
    assert envelope.kind == "event"


@pytest.mark.threat(16)
def test_row_16_lone_surrogate_is_named() -> None:
    with pytest.raises(BadMessage, match="lone surrogate"):
        wire.decode('{"type":"a","payload":{"a":"\\ud800"}}')
