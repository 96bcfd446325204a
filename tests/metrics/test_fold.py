"""The fold: sequences of records and what they must add up to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vixws_core.config import HubConfig
from vixws_core.effects import (
    Broadcast,
    Closed,
    CloseTransport,
    Drained,
    Effect,
    FindPosition,
    Joined,
    Left,
    MessageReceived,
    MessageSkipped,
    Opened,
    PauseReading,
    PeerMisbehaved,
    Published,
    Requested,
    ResumeReading,
    SendBytes,
    StoreAppend,
)
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    Join,
    Leave,
    Publish,
    RoomAdvanced,
    Send,
    SendToAll,
    Shutdown,
    StoreAppended,
    StoreFailed,
    TimePassed,
)
from vixws_core.wire.frames import CLOSE, PING, TEXT, encode_frame
from vixws_core.wire.http import http_switching
from vixws_metrics import WebSocketMetrics
from vixws_metrics.fold import ERROR_KINDS, Histogram

from .driving import REQUEST, Driving, frame

Step = tuple[Input, Sequence[Effect]]

HI = encode_frame(TEXT, b"hi")
APPEND = StoreAppend(7, "r", "event", "t", b"{}")

TABLE: dict[str, tuple[list[Step], dict[str, float]]] = {
    "a connection that never opens": (
        [(Connected(1), []), (BytesReceived(1, b"GET"), []), (Disconnected(1), [])],
        {"vixws_connections_total": 1, "vixws_active_connections": 0, "vixws_received_bytes_total": 3},
    ),
    "a session opens and closes": (
        [
            (Connected(1), []),
            (BytesReceived(1, REQUEST), [Requested(1, "GET", "/", (), True)]),
            (Accept(1), [SendBytes(1, http_switching("key", None), 0), Opened(1, "/", None)]),
            (Disconnected(1), [Closed(1, 1006, "")]),
        ],
        {"vixws_sessions_total": 1, "vixws_active_sessions": 0, "vixws_sent_messages_total": 0},
    ),
    "two sessions are open": (
        [(Accept(1), [Opened(1, "/", None)]), (Accept(2), [Opened(2, "/", None)])],
        {"vixws_sessions_total": 2, "vixws_active_sessions": 2},
    ),
    "messages of one read": (
        [(BytesReceived(1, b"x" * 40), [MessageReceived(1, ("a", "b", b"c"))])],
        {"vixws_received_messages_total": 3, "vixws_received_bytes_total": 40},
    ),
    "messages that waited for their handler": (
        [(HandlerFinished(1), [MessageReceived(1, ("a", "b"))])],
        {"vixws_received_messages_total": 2},
    ),
    "a client publishes": (
        [(BytesReceived(1, b"x"), [APPEND])],
        {"vixws_received_messages_total": 1, "vixws_store_queue_depth": 1},
    ),
    "clients' publishes that waited for their turn": (
        [
            (HandlerFinished(1), [APPEND]),
            (TimePassed(), [StoreAppend(8, "r", "event", "t", b"{}")]),
            (Accept(2), [StoreAppend(9, "r", "event", "t", b"{}")]),
        ],
        {"vixws_received_messages_total": 3, "vixws_store_queue_depth": 3},
    ),
    "a client publishes into a room that is not stored": (
        [(BytesReceived(1, b"x"), [Broadcast((1, 2), HI)])],
        {"vixws_received_messages_total": 1, "vixws_sent_messages_total": 2},
    ),
    "the application publishes": (
        [(Publish("r", "t", b"{}"), [APPEND])],
        {"vixws_received_messages_total": 0, "vixws_store_queue_depth": 1},
    ),
    "the application broadcasts to all": (
        [(SendToAll(b"hi"), [Broadcast((1, 2, 3), HI)])],
        {"vixws_received_messages_total": 0, "vixws_broadcasts_total": 1, "vixws_deliveries_total": 3},
    ),
    "a commit of two messages reaches three members": (
        [(RoomAdvanced("r", "ep", 2, ()), [Broadcast((1, 2, 3), HI + HI, 2)])],
        {"vixws_broadcasts_total": 2, "vixws_deliveries_total": 6, "vixws_sent_messages_total": 6},
    ),
    "a directed message": ([(Send(1, b"hi"), [SendBytes(1, HI)])], {"vixws_sent_messages_total": 1}),
    "a directed message parks its connection": (
        [(Send(1, b"hi"), [SendBytes(1, HI), PauseReading(1)])],
        {"vixws_sent_messages_total": 1, "vixws_parked_readers": 1},
    ),
    "a directed message that is refused": ([(Send(1, b"hi"), [])], {"vixws_sent_messages_total": 0}),
    "a directed message comes too late": ([(Send(1, b"hi"), [Drained()])], {"vixws_sent_messages_total": 0}),
    "a page of three and a control frame": (
        [(TimePassed(), [SendBytes(1, HI * 3, 3), SendBytes(1, encode_frame(PING, b""), 0)])],
        {"vixws_sent_messages_total": 3, "vixws_broadcasts_total": 0},
    ),
    "bytes are flushed": ([(BytesFlushed(((1, 10), (2, 32))), [])], {"vixws_sent_bytes_total": 42}),
    "a peer breaks rules": (
        [(BytesReceived(1, b"x"), [PeerMisbehaved(1, "bad_json", ""), PeerMisbehaved(1, "bad_json", "")])],
        {'vixws_errors_total{kind="bad_json"}': 2, 'vixws_errors_total{kind="other"}': 0},
    ),
    "a word nobody knows": (
        [(BytesReceived(1, b"x"), [PeerMisbehaved(1, "room-of-one's-own", "")])],
        {'vixws_errors_total{kind="other"}': 1},
    ),
    "a handler fails": (
        [(HandlerFinished(1, "t", 0.002, True), []), (HandlerFinished(1, "t", 0.5, False), [])],
        {
            'vixws_errors_total{kind="handler"}': 1,
            "vixws_handler_seconds_count": 2,
            "vixws_handler_seconds_sum": 0.502,
            'vixws_handler_seconds_bucket{le="0.001"}': 0,
            'vixws_handler_seconds_bucket{le="0.0025"}': 1,
            'vixws_handler_seconds_bucket{le="0.5"}': 2,
        },
    ),
    "an append is answered": (
        [
            (Publish("r", "t", b"{}"), [APPEND]),
            (StoreAppended(7, "ep", 1, "1"), [Published(1, "r", "ep", 1, "1", False)]),
        ],
        {"vixws_store_queue_depth": 0, "vixws_append_seconds_count": 1, "vixws_append_seconds_sum": 1},
    ),
    "an append fails": (
        [(Publish("r", "t", b"{}"), [APPEND]), (StoreFailed(7, "store_full"), [])],
        {"vixws_store_queue_depth": 0, "vixws_append_seconds_sum": 1, 'vixws_errors_total{kind="store"}': 1},
    ),
    "a read fails": (
        [(Publish("r", "t", b"{}"), [APPEND]), (StoreFailed(8, "store_unavailable"), [])],
        {"vixws_store_queue_depth": 1, "vixws_append_seconds_count": 0, 'vixws_errors_total{kind="store"}': 1},
    ),
    "a key is used for two contents": (
        [(BytesReceived(1, b"x"), [APPEND]), (StoreFailed(7, "mid_conflict", "", False), [])],
        {'vixws_errors_total{kind="mid_conflict"}': 1, 'vixws_errors_total{kind="store"}': 0},
    ),
    "an answer to an unknown request": (
        [(StoreAppended(99, "ep", 1, "1"), [])],
        {"vixws_append_seconds_count": 0, "vixws_store_queue_depth": 0},
    ),
    "rooms with and without members": (
        [
            (Join(1, "a"), [Joined(1, "a"), FindPosition(1, "a")]),
            (Join(2, "a"), [Joined(2, "a")]),
            (Join(1, "b"), [Joined(1, "b")]),
            (Leave(1, "b"), [Left(1, "b")]),
            (Leave(2, "a"), [Left(2, "a")]),
        ],
        {"vixws_joins_total": 3, "vixws_leaves_total": 2, "vixws_rooms": 1},
    ),
    "a connection that is not read ends": (
        [
            (BytesReceived(1, b"x"), [PauseReading(1)]),
            (BytesReceived(2, b"x"), [PauseReading(2)]),
            (BytesReceived(3, b"x"), [PauseReading(3)]),
            (Disconnected(1), [Closed(1, 1006, "")]),
            (BytesFlushed(()), [ResumeReading(2)]),
        ],
        {"vixws_parked_readers": 1},
    ),
    "what is not counted": (
        [(Close(1), [CloseTransport(1), MessageSkipped(1, "unknown_type"), SendBytes(1, encode_frame(CLOSE, b""), 0)])],
        {"vixws_sent_messages_total": 0},
    ),
}


def value(metrics: WebSocketMetrics, sample: str) -> float | None:
    name, _, label = sample.partition("{")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', label))
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("name", TABLE)
def test_steps_add_up_to_the_expected_values(name: str) -> None:
    steps, expected = TABLE[name]
    metrics = WebSocketMetrics()

    for now, (input, effects) in enumerate(steps, 1):
        metrics.see(float(now), input, effects)

    assert expected == {sample: value(metrics, sample) for sample in expected}


def test_kinds_of_errors_are_sorted_and_unique() -> None:
    assert sorted(set(ERROR_KINDS)) == list(ERROR_KINDS)


# ---- histograms ---------------------------------------------------------------------------------


def test_bounds_of_a_histogram_are_inclusive() -> None:
    histogram = Histogram(0.1, 1)

    for seconds in (0.0, 0.1, 0.11, 1.0, 1.5, 1e9):
        histogram.add(seconds)

    assert histogram.counts == [2, 2, 2]


@pytest.mark.threat(29)
def test_a_clock_that_steps_back_counts_as_no_time() -> None:
    histogram = Histogram(0.1)

    histogram.add(-3.0)

    assert (histogram.counts, histogram.sum) == ([1, 0], 0.0)


# ---- beside a real hub --------------------------------------------------------------------------

ACTIONS = [
    "connect",
    "open",
    "open",
    "open",
    "request",
    "garbage",
    "text",
    "publish",
    "publish_unstored",
    "join",
    "join",
    "leave",
    "ping",
    "bad_json",
    "peer_close",
    "bad_frame",
    "too_large",
    "disconnect",
    "app_close",
    "handler_ends",
    "handler_ends",
    "handler_fails",
    "flush",
    "wait",
    "wait_long",
    "store_breaks",
    "store_heals",
    "flood",
    "everyone",
]
CONFIG = HubConfig(
    message_bytes_max=1_000,
    unsent_bytes_low=2_000,
    unsent_bytes_high=4_000,
    pending_messages_max=3,
    publishes_max=4,
    unstored_rooms=("free*",),
)


def act(driving: Driving, action: str, pick: int) -> None:
    """Does one thing that may happen to a server."""
    put: Any = driving.pump.put
    conn = driving.open[pick % len(driving.open)] if driving.open else 0
    room = f"room{pick % 3}"
    acts: dict[str, Any] = {
        "connect": lambda: driving.connect(),
        "open": lambda: driving.opened(),
        "request": lambda: driving.receive(conn, REQUEST),
        "garbage": lambda: driving.receive(conn, b"\r\n\0\xff garbage\r\n\r\n"),
        "text": lambda: driving.text(conn, '{"type":"hello","payload":{}}'),
        "publish": lambda: driving.text(conn, f'{{"type":"m","room":"{room}","payload":{{}},"ref":"1"}}'),
        "publish_unstored": lambda: driving.text(conn, '{"type":"m","room":"free1","payload":{}}'),
        "join": lambda: put(Join(conn, room if pick % 2 else "free1")),
        "leave": lambda: put(Leave(conn, room)),
        "ping": lambda: driving.receive(conn, frame(9, b"")),
        "bad_json": lambda: driving.text(conn, "{"),
        "peer_close": lambda: driving.receive(conn, frame(8, b"\x03\xe8")),
        "bad_frame": lambda: driving.receive(conn, b"\xff\xff"),
        "too_large": lambda: driving.receive(conn, frame(1, b"x" * 2_000)),
        "disconnect": lambda: driving.disconnect(conn),
        "app_close": lambda: put(Close(conn, 1000, "enough")),
        "handler_ends": lambda: driving.finish(),
        "handler_fails": lambda: driving.finish(failed=True),
        "flush": lambda: driving.flush(),
        "wait": lambda: driving.wait(1.0),
        "wait_long": lambda: driving.wait(700.0),
        "store_breaks": lambda: setattr(driving, "broken_store", True),
        "store_heals": lambda: setattr(driving, "broken_store", False),
        "flood": lambda: put(*(Send(conn, b"x" * 900) for _ in range(6))),
        "everyone": lambda: put(SendToAll(b"all")),
    }
    acts[action]()


@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 30)), max_size=40),
    st.sampled_from(["disconnect", "close", "shutdown", "time"]),
)
def test_metrics_agree_with_the_hub_and_nothing_is_active_in_the_end(
    actions: list[tuple[str, int]], ending: str
) -> None:
    driving = Driving(CONFIG)
    fold, hub = driving.metrics.fold, driving.hub
    for action, pick in actions:
        act(driving, action, pick)

        assert hub.sessions == fold.active_sessions
        assert len(hub.rooms()) == len(fold.members)
        assert {room: len(hub.members(room)) for room in hub.rooms()} == fold.members
        assert len(driving.open) == fold.active_connections
        assert fold.not_read <= set(driving.open)

    if ending == "close":
        driving.pump.put(*(Close(conn) for conn in driving.open))
    elif ending == "shutdown":
        driving.pump.put(Shutdown(8.0))
    elif ending == "time":
        driving.wait(10_000.0)
    for conn in tuple(driving.open):
        driving.disconnect(conn)
    # Frames that were held back while a handler was busy have their turn in a later step.
    while driving.busy or ((due := hub.next_deadline()) is not None and due <= driving.now):
        if driving.busy:
            driving.finish()
        else:
            driving.wait(0.0)

    assert (hub.connections, fold.active_sessions, fold.active_connections) == (0, 0, 0)
    assert (fold.members, fold.not_read, fold.appends_waiting) == ({}, set(), {})
    assert fold.joins == fold.leaves


def test_a_hub_counts_messages_both_ways() -> None:
    driving = Driving()
    one, two = driving.opened(), driving.opened()
    driving.pump.put(Join(one, "r"), Join(two, "r"))

    driving.text(one, '{"type":"m","room":"r","payload":{},"ref":"1"}')
    driving.text(one, '{"type":"for the application","payload":{}}')
    driving.flush()

    assert driving.value("vixws_received_messages_total") == 2
    assert driving.value("vixws_sent_messages_total") == 3  # Two copies and an $ack.
    assert driving.value("vixws_deliveries_total") == 2
    assert driving.value("vixws_append_seconds_count") == 1
    assert driving.value("vixws_sent_bytes_total") > 200
    assert driving.value("vixws_errors_total", kind="other") == 0


def test_a_page_of_history_counts_each_message() -> None:
    driving = Driving()
    for at in range(20):
        driving.pump.put(Publish("r", "m", b'{"n":%d}' % at))
    conn = driving.opened()

    driving.pump.put(Join(conn, "r", last=20))

    assert driving.value("vixws_sent_messages_total") == 20
    assert driving.value("vixws_broadcasts_total") == 0
