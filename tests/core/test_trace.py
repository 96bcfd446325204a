"""Traces as text: every input goes out and comes back, worlds replay bit for bit, and nothing foreign is believed."""

from __future__ import annotations

import base64
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import EPOCH, Harness
from tests.core.tracing import head_of, lines_of, replay, written
from vixws_core import Hub, HubConfig
from vixws_core.config import Policy
from vixws_core.effects import Closing, Joined, Left, PauseReading, ResumeReading, SendBytes
from vixws_core.errors import BadRoom
from vixws_core.inputs import (
    Accept,
    BytesReceived,
    Connected,
    Input,
    Join,
    Publish,
    RoomAdvanced,
    Since,
    StoreListed,
    StoreRead,
)
from vixws_core.message import StoredMessage
from vixws_core.testing import run_varied, varied_world
from vixws_core.trace.lines import INPUTS, Check, Record, TraceError, digest_of, outcome_of, read_head, read_lines
from vixws_core.trace.recording import TracedPump
from vixws_core.trace.replaying import UNCHECKED_MAX, Replay
from vixws_core.trace.scene import scene_of

ROW = StoredMessage("1", "event", "r", "t", "ts", b'{"\xc3\xa4":1}', "e", 3, "mid", "ada")
VALUES: dict[Any, Any] = {
    int: 7,
    float: 0.1,
    str: "ä\u2028",
    bytes: b"\x00\xff",
    bool: True,
    frozenset[str]: frozenset({"a", "b"}),
    tuple[tuple[str, str], ...]: (("a", "b"),),
    tuple[tuple[int, int], ...]: ((1, 2), (3, 4)),
    tuple[StoredMessage, ...]: (ROW, ROW),
    tuple[str, ...]: ("join",),
    Since: Since("e", 4, "id"),
}


def filled(kind: type[Any]) -> Any:
    """An input with a value in every field that is not its default."""
    values = {}
    for field in msgspec.structs.fields(kind):
        choices = [one for one in get_args(field.type) if one in VALUES]
        values[field.name] = VALUES[field.type if field.type in VALUES else choices[0]]
    return kind(**values)


@pytest.mark.parametrize("kind", get_args(Input), ids=lambda kind: kind.__name__)
def test_every_input_comes_back_as_it_went(kind: type[Any]) -> None:
    bare = filled(kind)
    first = kind(*(getattr(bare, field.name) for field in msgspec.structs.fields(kind) if field.required))
    data = written(head_of(), [(1.5, bare, []), (2.25, first, [])])
    found = [each for each in read_lines(lines_of(data)[1:]) if isinstance(each, Record)]

    assert [(each.now, each.name, each.input) for each in found] == [
        (1.5, kind.__name__, bare),
        (2.25, kind.__name__, first),
    ]


def test_the_table_has_every_input() -> None:
    assert set(INPUTS.values()) == set(get_args(Input)) == set(Hub()._dispatch)


def test_the_head_comes_back_as_it_went() -> None:
    head = head_of(HubConfig(rooms_max=3, unstored_rooms=("a.*",)), b"seed", Policy(True, True, "closed"), secret=b"s")

    assert read_head(lines_of(written(head, []))[0]) == head


@pytest.mark.parametrize("number", range(20))
def test_worlds_are_written_and_replayed_bit_for_bit(number: int) -> None:
    world = varied_world(f"trace/{number}")
    run_varied(world, 150)
    for trace in world.traces:
        data = written(head_of(trace.config, trace.seed, trace.policy), trace.steps, 64 - number)
        found = replay(data)

        assert found.difference is None
        assert (found.steps, found.unchecked) == (len(trace.steps), 0)


def test_another_seed_or_a_changed_byte_is_found() -> None:
    harness = Harness()
    ada = harness.client("africa")
    for _ in range(100):
        ada.publish("africa")
    data = written(head_of(), harness.steps)
    lines = lines_of(data)
    at = next(number for number, line in enumerate(lines) if b'"RoomAdvanced"' in line)
    text = base64.b64encode(b'{"text": "hi"}'), base64.b64encode(b'{"text": "ho"}')
    other = replay([*lines[:at], lines[at].replace(*text), *lines[at + 1 :]])
    seeded = replay([*lines_of(written(head_of(seed=b"x"), harness.steps))])

    assert text[0] in lines[at]
    assert replay(data).difference is None
    assert other.difference is not None
    assert other.difference.first <= at <= other.difference.line
    assert seeded.difference is not None


@pytest.mark.parametrize(
    ("one", "two"),
    [(PauseReading(1), ResumeReading(1)), (PauseReading(1), Closing(1)), (Joined(1, "a"), Left(1, "a"))],
)
def test_effects_that_look_alike_have_other_digests(one: Any, two: Any) -> None:
    def digest(effect: Any) -> int:
        return digest_of([outcome_of([effect, SendBytes(1, b"x")])])

    assert digest(one) != digest(two)
    assert digest(one) == digest(one)


def test_effects_that_cannot_be_packed_have_a_digest_all_the_same() -> None:
    one, two = (digest_of([outcome_of([Joined(1, name)])]) for name in ("\ud800", "\ud801"))

    assert one != two
    assert one == digest_of([outcome_of([Joined(1, "\ud800")])])


def test_a_replay_goes_on_to_the_check_behind_the_step_that_is_asked_for() -> None:
    harness = Harness()
    harness.client("africa")
    lines = lines_of(written(head_of(), harness.steps, 4))
    found = Replay(read_head(lines[0]))
    steps = [step.number for step in found.run(read_lines(lines[1:]), 5)]

    assert steps == list(range(8))
    assert (found.unchecked, found.difference) == (0, None)


# ---- what is odd ----------------------------------------------------------------------------------


def test_what_the_hub_raised_is_raised_again() -> None:
    hub = Hub()
    steps: list[tuple[float, Any, Any]] = [(1.0, Connected(1), hub.handle(Connected(1), 1.0))]
    with pytest.raises(BadRoom):
        hub.handle(Publish("\ud800", "t", b"{}"), 2.0)
    steps += [(2.0, Publish("\ud800", "t", b"{}"), "BadRoom"), (3.0, Publish("@x", "t", b"{}"), "BadRoom")]

    assert replay(written(head_of(), steps)).difference is None
    found = replay(written(head_of(), [*steps, (4.0, Publish("a", "t", b"{}"), "BadRoom")]))
    assert found.difference is not None
    assert found.difference.what == "the hub raised nothing, and BadRoom when it was recorded"
    found = replay(written(head_of(), [*steps, (4.0, Publish("\ud800", "t", b"{}"), [])]))
    assert found.difference is not None
    assert found.difference.what == "its Publish could not be written down"


def test_a_pump_that_is_traced_notes_what_raised_before_it_goes_on() -> None:
    told: list[int] = []
    pump = TracedPump(Hub(), lambda: 5.0, [], {}, lambda: told.append(len(pump.outcomes)), 2)
    pump.put(Connected(1))
    with pytest.raises(BadRoom):
        pump.do(Publish("", "t", b"{}"))
    pump.do(BytesReceived(1, b"x"))
    lines, outcomes = pump.take()

    assert [line[1] for line in lines] == ["Connected", "Publish", "BytesReceived"]
    assert (lines[1][3:], outcomes[1]) == (("BadRoom",), "BadRoom")
    assert told == [3]
    assert (pump.lines, pump.outcomes) == ([], [])


def test_a_pump_that_is_traced_shows_and_calls_as_any_other() -> None:
    def steps(traced: bool) -> list[Any]:
        harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000))
        if traced:
            calls = harness.pump._calls
            harness.pump = TracedPump(harness.hub, lambda: harness.now, [harness], calls, lambda: 0, 1 << 30)
        ada, eve = harness.client("africa"), harness.client("africa")
        eve.takes = False
        for _ in range(100):
            ada.publish("africa", "x" * 100)
        eve.flush()
        ada.vanish()
        return harness.steps

    assert steps(True) == steps(False)


def test_a_file_that_ends_within_a_line_is_replayed_up_to_there() -> None:
    harness = Harness()
    harness.client("africa")
    data = written(head_of(), harness.steps, 4)
    for cut in range(len(data) - 200, len(data)):
        found = replay(data[:cut])

        assert found.difference is None
        assert found.cut == (not data[:cut].endswith(b"\n"))
        assert found.unchecked <= 4


GOOD = b'[1.0,"TimePassed",{}]\n'
BAD = {
    b"\n": "truncated",
    b"{}\n": "array",
    b"[]\n": "got 0 parts",
    b'[1.0,"Nothing",{}]\n': "'Nothing'",
    b'[1.0,"Join",{}]\n': "conn",
    b'[1.0,"Join",{"conn":"x","room":"r"}]\n': "int",
    b'[1.0,"BytesReceived",{"conn":1,"data":"%"}]\n': "base64",
    b'["x","TimePassed",{}]\n': "float",
    b'[0.5,"TimePassed",{}]\n': "does not go back",
    b'[1e999,"TimePassed",{}]\n': "",
    b'["=",7,1]\n': "lines are missing",
    b'["=","x",1]\n': "int",
    b"[" * 5_000 + b"\n": "",
    b'[1.0,"TimePassed",{}\xff]\n': "",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:30]))
def test_a_bad_line_is_named(line: bytes) -> None:
    head = lines_of(written(head_of(), []))[0]
    with pytest.raises(TraceError, match=r"^line 3: ") as told:
        replay([head, GOOD, line])

    assert BAD[line] in str(told.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"format":1', b'"format":2', "expected format 1, got 2"),
        (b'{"vixws":"trace"', b'{"vixws":"other"', "expected the head of a trace"),
        (b'"rooms_max":128', b'"rooms_max":"x"', "int"),
        (b'"rooms_max":128', b'"rooms_max":-1', "numbers of 0 or more"),
        (b'"rooms_max":128', b'"rooms_most":128', "rooms_max, rooms_most is not in both"),
        (b'"seed":"AA=="', b'"seed":""', "1 to 64 bytes"),
        (b'"first":0', b'"first":-1', "0 or more"),
        (b'"run"', b'"ran"', "ran"),
        (b"}\n", b"\n", "line 1"),
    ],
)
def test_a_bad_head_is_told(old: bytes, new: bytes, words: str) -> None:
    (line,) = lines_of(written(head_of(), []))
    assert old in line
    with pytest.raises(TraceError, match=r"^line 1: ") as told:
        read_head(line[:-2].replace(old, new) + new if old == b"}\n" else line.replace(old, new))

    assert words in str(told.value)


def test_a_trace_without_its_beginning_or_without_checks_is_not_replayed() -> None:
    with pytest.raises(TraceError, match="begins with step 5"):
        Replay(head_of(first=5))
    lines = lines_of(written(head_of(), []))
    with pytest.raises(TraceError, match="expected a check"):
        replay([*lines, *[GOOD] * (UNCHECKED_MAX + 1)])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_trace_with_changed_bytes_is_told_or_replayed_and_never_breaks(data: st.DataObject) -> None:
    harness = Harness()
    harness.client("africa").publish("africa")
    text = bytearray(written(head_of(), harness.steps, 8))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = replay(bytes(text))
    except TraceError:
        return

    assert found.steps <= len(harness.steps)


def test_the_state_is_told_in_words() -> None:
    harness = Harness(HubConfig(unsent_bytes_low=2_000, unsent_bytes_high=6_000, unstored_rooms=("tmp",)))
    ada, eve = harness.client("africa", "tmp"), harness.client("africa")
    eve.takes = False
    for _ in range(20):
        harness.put(Publish("africa", "t", b'{"x":"%b"}' % (b"y" * 1_000)))
    lines = list(scene_of(harness.hub, range(9)))

    assert lines.pop(0) == "2 connections, 2 of them open"
    assert lines[0].endswith(" bytes unsent, 0 received and not handled")
    assert lines[1] == f"connection {ada.conn}: open"
    assert lines[2].startswith(f"connection {eve.conn}: open, ")
    assert lines[3] == f"room 'africa': epoch {EPOCH}, at offset 20; 2 members"
    assert lines[4] == f"  connection {ada.conn}: live at offset 20"
    assert lines[5].startswith(f"  connection {eve.conn}: reads on at offset ")
    assert lines[5].endswith("; parked, as it does not take what it is sent")
    assert lines[6:] == ["room 'tmp': not stored; 1 members", f"  connection {ada.conn}: live"]
    harness.finishing = False
    ada.send({"type": "app"}, {"type": "app"})
    ada.send({"type": "app"}, {"type": "app"})
    assert any(line.endswith("messages wait for their handler") for line in scene_of(harness.hub, range(9)))


def test_checks_and_unused_kinds_are_told_apart() -> None:
    data = written(head_of(), [(1.0, StoreRead(1, "e", 0, 1, (ROW,)), []), (1.0, StoreListed(1, (ROW,)), [])])
    kinds = [type(each) for each in read_lines(lines_of(data)[1:])]

    assert kinds == [Record, Record, Check]
    assert replay(written(head_of(), [(1.0, Accept(1), []), (2.0, Join(1, "a"), [])])).steps == 2
    assert replay(written(head_of(), [(1.0, RoomAdvanced("a", "e", 1, ()), [])])).difference is None


def test_nothing_is_read_behind_a_line_that_is_cut() -> None:
    assert list(read_lines([GOOD[:-1], GOOD])) == [None]
