"""The typed message: written, read, and what JSON cannot hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vixws_core import BadMessage, JsonMessage, LocalError, StoredMessage, kvs_to_json
from vixws_core.message import encode_json, payload_json


class Point(msgspec.Struct):
    x: int
    y: float = 0.5


@dataclass
class Data:
    name: str


class Model:
    """Has what a pydantic model has."""

    def __repr__(self) -> str:
        return "Model()"

    def model_dump_json(self) -> str:
        return '{"alias":1}'


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), values, max_size=5)


# ---- encoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (10**40, str(10**40)),
        (-(10**40), str(-(10**40))),
        (1.5, "1.5"),
        ("é\n", '"é\\n"'),
        ([1, [2, {"a": None}]], '[1,[2,{"a":null}]]'),
        ({}, "{}"),
        (Point(1), '{"x":1,"y":0.5}'),
        (Data("ada"), '{"name":"ada"}'),
        (Model(), '{"alias":1}'),
        (b'{"raw":1}', '{"raw":1}'),
        ((1, 2), "[1,2]"),
        ("null", '"null"'),
    ],
    ids=repr,
)
def test_value_is_encoded_compactly(value: object, text: str) -> None:
    assert encode_json(value).decode() == text


def test_json_that_is_encoded_already_stands_beside_a_null() -> None:
    assert encode_json({"raw": msgspec.Raw(b'{"a":1}'), "none": None}) == b'{"raw":{"a":1},"none":null}'
    with pytest.raises(LocalError):
        encode_json({"raw": msgspec.Raw(b"1"), "nan": float("nan")})


@given(values)
def test_encoded_value_is_read_back(value: Any) -> None:
    assert json.loads(encode_json(value)) == value


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        {"a": [float("nan"), None]},
        "\ud800",
        {"\ud800": 1},
        object(),
        {"a": object()},
        {(1, 2): 3},
        looped(),
        Point(1, float("inf")),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_json_cannot_hold_is_the_callers_fault(value: object) -> None:
    with pytest.raises(LocalError, match="must be a value that JSON can hold"):
        encode_json(value)


# ---- flat pairs -----------------------------------------------------------------------------------------


def test_flat_pairs_become_an_object() -> None:
    assert kvs_to_json(["user", "ada", "n", 1, "nested", {"a": [1]}]) == {"user": "ada", "n": 1, "nested": {"a": [1]}}
    assert kvs_to_json([]) == {}
    assert kvs_to_json(("a", 1, "a", 2)) == {"a": 2}


@pytest.mark.parametrize("pairs", [["a"], ["a", 1, "b"], [1, "a"], [None, 1], "ab"], ids=repr)
def test_flat_pairs_that_are_none_are_the_callers_fault(pairs: Any) -> None:
    with pytest.raises(LocalError, match="flat pairs must"):
        kvs_to_json(pairs)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, "{}"),
        ({}, "{}"),
        ([], "{}"),
        (["text", "Hi"], '{"text":"Hi"}'),
        (("n", 1), '{"n":1}'),
        ({"a": {"b": [1]}}, '{"a":{"b":[1]}}'),
        (Point(1), '{"x":1,"y":0.5}'),
        (b' {"a": 1}', ' {"a": 1}'),
    ],
    ids=repr,
)
def test_payload_is_an_object_or_flat_pairs(payload: object, text: str) -> None:
    assert payload_json(payload).decode() == text


@pytest.mark.parametrize("payload", ["text", 5, True, 1.5, b"[]", b"", {1, 2}], ids=repr)
def test_payload_that_is_no_object_is_the_callers_fault(payload: object) -> None:
    with pytest.raises(LocalError, match="payload"):
        payload_json(payload)


# ---- messages -------------------------------------------------------------------------------------------


def test_serialize_writes_type_and_payload() -> None:
    assert JsonMessage.serialize("chat", {"text": "Hi"}) == '{"type":"chat","payload":{"text":"Hi"}}'
    assert JsonMessage.serialize("chat", ["text", "Hi"]) == '{"type":"chat","payload":{"text":"Hi"}}'
    assert JsonMessage.serialize('"') == '{"type":"\\"","payload":{}}'


def test_type_must_not_be_empty() -> None:
    with pytest.raises(LocalError, match="non-empty"):
        JsonMessage.serialize("")


def test_parse_reads_every_field() -> None:
    text = '{"type":"t","payload":{"a":[1,{"b":null}]},"id":"7","kind":"k","ts":"now","room":"r","other":1}'

    assert JsonMessage.parse(text) == JsonMessage(
        type="t", payload={"a": [1, {"b": None}]}, id="7", kind="k", ts="now", room="r"
    )
    assert JsonMessage.parse(b'{"type":"t"}') == JsonMessage(type="t")


def test_integers_of_any_size_survive() -> None:
    number = 10**400 + 7
    message = JsonMessage(type="t", payload={"n": number})

    assert JsonMessage.parse(message.to_json()).payload == {"n": number}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "[]",
        "{}",
        '{"type":""}',
        '{"type":5}',
        '{"type":"a","payload":[]}',
        '{"type":"a","payload":null}',
        '{"type":"a","payload":"x"}',
        '{"type":"a","payload":{"x":NaN}}',
        '{"type":"a","room":5}',
        '{"type":"a","id":7}',
        '{"type":"a","payload":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
        b"\xff",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_text_that_is_no_message_says_what_was_expected(text: str | bytes) -> None:
    with pytest.raises(BadMessage, match=r"expected|must be") as caught:
        JsonMessage.parse(text)

    assert caught.value.code == "bad_message"
    assert isinstance(caught.value, ValueError)


def test_to_json_writes_only_what_is_set() -> None:
    assert JsonMessage(type="t").to_json() == '{"type":"t","payload":{}}'
    assert json.loads(JsonMessage(type="t", payload={"a": 1}, room="r", id="7", kind="k", ts="now").to_json()) == {
        "type": "t", "room": "r", "id": "7", "ts": "now", "kind": "k", "payload": {"a": 1},
    }  # fmt: skip


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), objects)
def test_any_message_is_read_back(type: str, payload: dict[str, Any]) -> None:
    message = JsonMessage(type=type, payload=payload, room="r", kind="k")

    assert JsonMessage.parse(message.to_json()) == message
    assert JsonMessage.parse(JsonMessage.serialize(type, payload)).payload == payload


def test_stored_message_decodes_its_payload() -> None:
    row = StoredMessage("1", "event", "r", "t", "", b'{"a":[1]}')

    assert row.payload == {"a": [1]}
    assert (row.ep, row.off, row.mid, row.sender) == ("", 0, None, None)


def test_encoded_json_inside_a_payload_passes_beside_a_null() -> None:
    payload = {"messages": [msgspec.Raw(b'{"a":null}')], "more": None}

    assert encode_json(payload) == b'{"messages":[{"a":null}],"more":null}'


def test_an_object_that_json_cannot_hold_is_refused_beside_a_null() -> None:
    with pytest.raises(LocalError, match="JSON can hold"):
        encode_json({"a": None, "b": object()})
