"""What the fold counted, as Prometheus metrics: the table of names, and the collector a registry asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .fold import ERROR_KINDS, Fold, Histogram

__all__ = ["METRICS", "MetricRow", "WebSocketMetrics", "metrics_table", "safe_accept"]

_Value: TypeAlias = int | Mapping[str, int] | Histogram


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its name without `_total`, type, unit ("" for a plain count), meaning, and where its value is.

    `label` names the one label of a metric that is counted by kind; its values are fixed.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    unit: Literal["", "bytes", "seconds"]
    meaning: str
    value: Callable[[Fold], _Value]
    label: str = ""

    @property
    def sample(self) -> str:
        """The name as it is scraped: a counter's ends in `_total`."""
        return f"{self.name}_total" if self.type == "counter" else self.name


METRICS: Final = (
    MetricRow("vixws_active_sessions", "gauge", "", "WebSockets that are open.", lambda f: f.active_sessions),
    MetricRow(
        "vixws_active_connections",
        "gauge",
        "",
        "Connections of any kind: open WebSockets, handshakes, pages being served.",
        lambda f: f.active_connections,
    ),
    MetricRow("vixws_connections", "counter", "", "Connections accepted.", lambda f: f.connections),
    MetricRow(
        "vixws_refused_connections",
        "counter",
        "",
        "Connections turned away over a limit: of all, of those still opening, or of one address.",
        lambda f: f.refused,
    ),
    MetricRow(
        "vixws_dropped_handshakes",
        "counter",
        "",
        "Handshakes cut because their address held most of the unfinished ones when a newcomer needed room.",
        lambda f: f.gave_way,
    ),
    MetricRow("vixws_sessions", "counter", "", "WebSockets opened.", lambda f: f.sessions),
    MetricRow(
        "vixws_received_messages",
        "counter",
        "",
        "Messages of clients that reached the application or were published into a room.",
        lambda f: f.received_messages,
    ),
    MetricRow(
        "vixws_sent_messages",
        "counter",
        "",
        "Messages put into the outboxes of clients, each copy of a broadcast and answers of the protocol included.",
        lambda f: f.sent_messages,
    ),
    MetricRow(
        "vixws_received_bytes",
        "counter",
        "bytes",
        "Bytes received: handshakes and frames, after TLS.",
        lambda f: f.received_bytes,
    ),
    MetricRow(
        "vixws_sent_bytes",
        "counter",
        "bytes",
        "Bytes handed to the operating system: handshakes and frames, before TLS.",
        lambda f: f.sent_bytes,
    ),
    MetricRow(
        "vixws_errors",
        "counter",
        "",
        "What went wrong: a rule that a peer broke, a handler that raised, a store that could not.",
        lambda f: dict(f.errors),
        "kind",
    ),
    MetricRow("vixws_joins", "counter", "", "Memberships of rooms begun.", lambda f: f.joins),
    MetricRow("vixws_leaves", "counter", "", "Memberships of rooms ended, in whatever way.", lambda f: f.leaves),
    MetricRow("vixws_rooms", "gauge", "", "Rooms that have at least one member.", lambda f: len(f.members)),
    MetricRow(
        "vixws_broadcasts", "counter", "", "Messages put out to several members at once.", lambda f: f.broadcasts
    ),
    MetricRow(
        "vixws_deliveries",
        "counter",
        "",
        "Copies of broadcast messages, one for each receiver.",
        lambda f: f.deliveries,
    ),
    MetricRow(
        "vixws_parked_readers",
        "gauge",
        "",
        "Connections that are not read from now: they do not take what they are sent, or what they sent waits for "
        "the application or the store.",
        lambda f: len(f.not_read),
    ),
    MetricRow(
        "vixws_store_queue_depth",
        "gauge",
        "",
        "Appends that the store has not answered yet.",
        lambda f: len(f.appends_waiting),
    ),
    MetricRow(
        "vixws_store_log_bytes",
        "gauge",
        "bytes",
        "Size of the SQLite store's write-ahead log as of the last commit; 0 for other stores.",
        lambda f: f.log_bytes(),
    ),
    MetricRow(
        "vixws_handler_seconds",
        "histogram",
        "seconds",
        "Time the application took for the messages of one read, or for an opening.",
        lambda f: f.handler_seconds,
    ),
    MetricRow(
        "vixws_append_seconds",
        "histogram",
        "seconds",
        "Time from asking the store for an append to its answer, good or bad.",
        lambda f: f.append_seconds,
    ),
)
"""Every metric there is, in the order of the exposition. No room, user, address or path is ever a label."""


class WebSocketMetrics(Collector):
    """Counts what passes a hub's door and tells Prometheus, in at most 200 series however many rooms there are.

    A consumer (`vixws_core.protocols.Consumer`): give it to a server, or to a `Pump`. `see` belongs to the event
    loop's thread; scraping may happen in any other. `registry` holds this collector alone; the collector may be
    registered in another registry as well.
    """

    def __init__(self) -> None:
        self.fold: Final = Fold()
        self.see: Final = self.fold.see
        self.count_refused: Final = self.fold.count_refused
        self.count_gave_way: Final = self.fold.count_gave_way
        self.watch_log: Final = self.fold.watch_log
        self.registry: Final = CollectorRegistry(auto_describe=True)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Reads every metric of the table. The cost does not depend on how many sessions or rooms there are."""
        return [_family(row, row.value(self.fold)) for row in METRICS]

    def render(self, accept: str = "", /) -> tuple[str, bytes]:
        """Content type and body of a scrape: text, or OpenMetrics where the `Accept` header asks for it.

        Never fails because of what `accept` holds.
        """
        encode, content_type = choose_encoder(safe_accept(accept))
        return content_type, encode(self.registry)


_RANGE = re.compile(r"(?:text/plain|application/openmetrics-text)(?:\s*;\s*[a-zA-Z_-]+=[a-zA-Z0-9._-]+)*")
_VERSION = re.compile(r";\s*version=(?!\d{1,3}(?:\.\d{1,3}){0,2}\s*(?:;|$))")


def safe_accept(accept: str) -> str:
    """Keeps of an `Accept` header what the encoder understands: the two known types with a version of numbers.

    prometheus_client compares a version with numbers and repeats it in the answer's head (0.26: a version of letters
    raises `TypeError`), so what is anything else is left out; without a known type the answer is plain text.
    """
    ranges = (item.strip() for item in accept.split(","))
    return ",".join(item for item in ranges if _RANGE.fullmatch(item) and not _VERSION.search(item))


def metrics_table() -> str:
    """The table of metrics in Markdown, as `docs/metrics.md` shows it."""
    lines = ["| name | type | unit | meaning |", "|---|---|---|---|"]
    for row in METRICS:
        name = f"`{row.sample}{{{row.label}}}`" if row.label else f"`{row.sample}`"
        lines.append(f"| {name} | {row.type} | {row.unit} | {row.meaning} |")
    return "\n".join(lines) + "\n"


def _family(row: MetricRow, value: _Value) -> Metric:
    if isinstance(value, Histogram):
        return HistogramMetricFamily(row.name, row.meaning, _buckets(value), value.sum, unit=row.unit)
    if row.type == "gauge":
        assert isinstance(value, int)
        return GaugeMetricFamily(row.name, row.meaning, value, unit=row.unit)
    if isinstance(value, int):
        return CounterMetricFamily(row.name, row.meaning, value, unit=row.unit)
    family = CounterMetricFamily(row.name, row.meaning, labels=(row.label,), unit=row.unit)
    for kind in ERROR_KINDS:
        family.add_metric((kind,), value[kind])
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as the exposition has them."""
    bounds = (*map(repr, histogram.bounds), "+Inf")
    return list(zip(bounds, accumulate(list(histogram.counts)), strict=True))
