"""What clients, `/readyz` and the metrics see while the store's files are in trouble."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.store.sqlite.processes import READ, beside
from vixws_anyio import Config, Server
from vixws_metrics import WebSocketMetrics
from vixws_store import Limits, SqliteMessageStore

from .rig import PATIENCE_S, Peer, connected, get, http, running

pytestmark = pytest.mark.anyio

MOST = 1 << 20


def log_bytes(metrics: WebSocketMetrics) -> float:
    """The size of the write-ahead log, as a scraper reads it."""
    found = metrics.registry.get_sample_value("vixws_store_log_bytes")
    assert found is not None
    return found


async def publish(peer: Peer, ref: str) -> dict[str, Any]:
    """The answer to a publish of 30 KB."""
    return await peer.ask({"type": "note", "room": "room", "ref": ref, "payload": {"text": "x" * 30_000}})


async def readiness(port: int) -> int:
    status, _, _ = await http(port, get("/readyz"))
    return status


async def wait_ready(port: int) -> None:
    with anyio.fail_after(PATIENCE_S):
        while await readiness(port) != 200:
            await anyio.sleep(0.02)


@pytest.mark.threat(28)
async def test_publishers_hear_of_a_full_log_and_of_its_end(tmp_path: Path) -> None:
    path, metrics = tmp_path / "a.db", WebSocketMetrics()
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=Limits(log_bytes_max=MOST, probe_s=0.02))
    before = log_bytes(metrics)
    async with (
        running(Server(Config(port=0, metrics_listen="127.0.0.1:0"), store=store, metrics=metrics)) as at,
        connected(at.ws) as peer,
    ):
        await publish(peer, "first")
        with beside(READ, path) as (process, _):
            acked, told = 0, await publish(peer, "0")
            while told["type"] == "$ack":
                acked += 1
                told = await publish(peer, str(acked))

            assert (told["type"], told["payload"]["code"], told["payload"]["retry"]) == ("$err", "store_full", True)
            assert acked > 20
            assert log_bytes(metrics) == os.stat(f"{path}-wal").st_size >= MOST
            assert await readiness(at.port) == 503
            await anyio.to_thread.run_sync(process.communicate)
        await wait_ready(at.port)
        assert (await publish(peer, "after"))["type"] == "$ack"
        assert 0 < log_bytes(metrics) < MOST // 2

    assert before == log_bytes(metrics) == 0


@pytest.mark.threat(27)
async def test_publishers_hear_of_a_log_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=Limits(probe_s=0.02))
    async with running(Server(port=0, store=store)) as at, connected(at.ws) as peer:
        for number in range(5):
            assert (await publish(peer, str(number)))["type"] == "$ack"
        os.truncate(f"{path}-wal", 0)
        for number in range(5):
            told = await publish(peer, str(number))
            assert (told["type"], told["payload"]["code"], told["payload"]["retry"]) == (
                "$err",
                "store_unavailable",
                True,
            )
            assert await readiness(at.port) == 503
            await anyio.sleep(0.05)
