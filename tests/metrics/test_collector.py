"""The collector: names, formats, how many series there are and what a scrape costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import FrameType

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from vixws_core.effects import Broadcast, Closed, Joined, Left, MessageReceived, Opened, PeerMisbehaved, StoreAppend
from vixws_core.inputs import Accept, BytesReceived, Connected, Disconnected, HandlerFinished, Publish, StoreAppended
from vixws_metrics import WebSocketMetrics
from vixws_metrics.collector import METRICS, metrics_table, safe_accept

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
SERIES_MAX = 200


def busy(sessions: int = 5, rooms: int = 3) -> WebSocketMetrics:
    """Metrics after some traffic: every session opens, joins a room, says and publishes something; half of them end."""
    metrics = WebSocketMetrics()
    for conn in range(1, sessions + 1):
        room = f"room-{conn % rooms}"
        now = conn / 1000
        metrics.see(now, Connected(conn, f"10.0.0.{conn}"), [])
        metrics.see(now, Accept(conn), [Opened(conn, f"/{room}", None)])
        metrics.see(now, BytesReceived(conn, b"x" * 50), [Joined(conn, room)])
        metrics.see(now, BytesReceived(conn, b"x" * 50), [MessageReceived(conn, ("hi",))])
        metrics.see(now, HandlerFinished(conn, f"type-{conn}", 0.0001 * (conn % 100)), [])
        metrics.see(now, Publish(room, "m", b"{}"), [StoreAppend(conn, room, "event", "m", b"{}")])
        metrics.see(now + 0.003, StoreAppended(conn, "ep", conn, str(conn)), [Broadcast((1, 2), b"\x81\x01a")])
        metrics.see(now, BytesReceived(conn, b"x"), [PeerMisbehaved(conn, f"kind-{conn}", f"detail {conn}")])
        if conn % 2:
            metrics.see(now, Disconnected(conn), [Left(conn, room), Closed(conn, 1006, "")])
    return metrics


def series(metrics: WebSocketMetrics) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in metrics.registry.collect()
        for sample in family.samples
    }


# ---- formats ------------------------------------------------------------------------------------


def test_plain_text_is_the_default_and_parses_to_what_was_counted() -> None:
    kind, body = busy().render("")

    found = {family.name: family for family in parse_text(body.decode())}
    assert kind.startswith("text/plain; version=0.0.4")
    assert found["vixws_received_messages"].samples[0].value == 5
    assert found["vixws_active_sessions"].samples[0].value == 2
    assert {row.name: row.type for row in METRICS} == {family.name: family.type for family in found.values()}


def test_openmetrics_is_given_where_it_is_asked_for() -> None:
    kind, body = busy().render(f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5,*/*;q=0.1")

    families = openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # As it is.
    found = {family.name: family for family in families}
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert {row.name: (row.type, row.unit) for row in METRICS} == {
        family.name: (family.type, family.unit) for family in found.values()
    }


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/openmetrics-text;version=abc",
        "application/openmetrics-text;version=1..0",
        "application/openmetrics-text;version=1.0.0.0.0.0.0.0",
        "application/openmetrics-text;version=99999999999999999999999999",
        "application/openmetrics-text;version=1.0.0\r\nX-Evil: 1",
        "text/plain;version=x",
        "text/plain;version=",
        "text/plain;version=1.0.0;escaping=nonsense",
        ";;;===,,,",
        "\0\xff" * 100,
        "a" * 100_000,
        "text/plain;" * 2_000,
        "application/openmetrics-text;" + "a=b;" * 20_000,
    ],
)
def test_no_accept_header_breaks_a_scrape(accept: str) -> None:
    kind, body = busy().render(accept)

    assert re.fullmatch(r"text/plain; version=[01]\.0\.[04]; charset=utf-8(; escaping=underscores)?", kind)
    assert b"vixws_active_sessions 2.0\n" in body


def test_an_accept_header_of_the_scraper_itself_is_kept_whole() -> None:
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4"

    assert safe_accept(accept) == accept


# ---- names --------------------------------------------------------------------------------------


def test_names_and_units_are_those_of_prometheus() -> None:
    for row in METRICS:
        assert re.fullmatch(r"vixws(_[a-z]+)+", row.name)
        assert not row.unit or row.name.endswith(f"_{row.unit}")
        assert row.meaning.endswith(".")
        assert row.label in ("", "kind")


@pytest.mark.threat(21)
def test_threat_21_the_number_of_series_does_not_grow_with_rooms_users_or_words() -> None:
    before, after = series(WebSocketMetrics()), series(busy(sessions=30_000, rooms=10_000))

    assert before == after
    assert len(after) <= SERIES_MAX


@pytest.mark.threat(21)
def test_no_room_user_address_or_path_is_shown() -> None:
    body = busy(sessions=50).render("")[1].decode()

    assert not re.search(r"room-|type-|kind-|10\.0\.0\.|detail", body)


def test_the_collector_can_be_registered_elsewhere_too() -> None:
    metrics, registry = busy(), CollectorRegistry()

    registry.register(metrics)

    assert registry.get_sample_value("vixws_active_sessions") == 2


def test_a_histogram_is_cumulative_and_ends_with_its_count() -> None:
    metrics = busy(sessions=100)

    found = {family.name: family for family in metrics.registry.collect()}["vixws_handler_seconds"].samples
    counts = [sample.value for sample in found if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert counts[-1] == 100


# ---- what it costs ------------------------------------------------------------------------------


def test_what_is_kept_does_not_grow_with_sessions_that_are_over() -> None:
    fold = busy(sessions=10_000).fold

    assert len(fold.members) <= 3
    assert (len(fold.not_read), len(fold.appends_waiting)) == (0, 0)


def calls_of_a_scrape(metrics: WebSocketMetrics) -> int:
    """How many Python functions are called for one scrape."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        metrics.render("")
    finally:
        sys.setprofile(before)
    return count


def test_a_scrape_takes_as_many_calls_after_many_sessions_as_after_few() -> None:
    few, many = busy(sessions=10, rooms=5), busy(sessions=20_000, rooms=10_000)

    assert 100 < calls_of_a_scrape(few) == calls_of_a_scrape(many)


# ---- docs, dashboard, promtool ------------------------------------------------------------------


def test_the_table_in_the_docs_is_the_table_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()

    rows = "".join(line for line in text.splitlines(keepends=True) if line.startswith("|"))
    assert rows == metrics_table()


def dashboard_queries() -> list[str]:
    text = resources.files("vixws_metrics").joinpath("dashboards/vixws.json").read_text()
    return [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_exist_and_for_each_of_them() -> None:
    asked = set(re.findall(r"vixws_\w+", " ".join(dashboard_queries())))

    names = {name for name, _ in series(WebSocketMetrics())}
    assert set() == asked - names
    assert {row.name for row in METRICS} == {re.sub("_(total|bucket|count)$", "", name) for name in asked}


def promtool(*arguments: str, given: bytes = b"") -> None:
    path = shutil.which("promtool")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is missing: apt-get install prometheus")
        pytest.skip("promtool is not installed")
    done = subprocess.run([path, *arguments], input=given, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b""), (done.stdout + done.stderr).decode()


def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    promtool("check", "metrics", given=busy().render("")[1])


def test_promtool_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:query{at}", "expr": expr.replace("$__rate_interval", "5m")}
        for at, expr in enumerate(dashboard_queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML.

    promtool("check", "rules", str(path))
