"""The command: `python -m benchmarks.adversaries [--seconds 300] [--backend asyncio|trio] [--sessions 50]`.

On each loop a server of its own is started on loopback. A first attack, not measured, fills what the server keeps of
the past (heads of rooms, names, pages of SQLite), all of which is bounded. Then honest sessions talk alone, beside the
attackers, and alone again until the server has given its memory back.

Every session has an address of its own in 127.0.0.0/8, and the server runs with `limitLoopback`: the limits of one
address and the rate of messages hold as they do for strangers, who are not exempt as this machine's own connections are
by default. Everything is bounded in count and time, and only processes that were started here are ended.

exit status: 0 all held, 1 something did not (what was measured is printed all the same), 2 wrong usage
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.report import progress

from .attacks import KINDS
from .honest import PUBLISH_S, Crowd, HonestError, p99

__all__ = ["Result", "attacked", "main"]

ROOT: Final = Path(__file__).parent.parent.parent
P99_MS_MAX: Final = 50.0
P99_RATIO_MAX: Final = 3.0
RSS_PCT_MAX: Final = 5.0
RSS_KIB_MAX: Final = 4_096
SETTLE_S_MAX = 60.0
"""Slow readers are dropped after 30 s, and what is half closed after 5."""
FIRST_S_MAX: Final = 60.0
"""The first attack takes half as long as the measured one, at most so long."""
LOCK_EVERY_S: Final = 5.0
LOCK_S: Final = 0.02
FLAGS: Final = ("--limit-loopback", "--max-message-size", "2097152", "--metrics", "off", "--port", "0")


@dataclass
class Result:
    """What was measured on one loop; milliseconds and KiB."""

    backend: str
    seconds: float
    only: str = ""
    """The one kind of attackers there is; empty: all kinds."""
    idle_p99: float = 0.0
    attacked_p99: float = 0.0
    after_p99: float = 0.0
    worst: float = 0.0
    publishes: int = 0
    deliveries: int = 0
    rss_cold: int = 0
    rss_before: int = 0
    cpu_pct: float = 0.0
    """The server's processor time beside attackers, of one core."""
    rss_most: int = 0
    rss_after: int = 0
    settled_s: float = 0.0
    lost: str = ""
    done: str = ""
    """What the attackers did."""

    @property
    def wrong(self) -> list[str]:
        """What did not hold."""
        found = [self.lost] if self.lost else []
        if self.attacked_p99 > max(P99_MS_MAX, P99_RATIO_MAX * self.idle_p99):
            found.append(f"p99 is over {P99_MS_MAX:g} ms and over {P99_RATIO_MAX:g} times that of the idle run")
        if not _is_back(self.rss_before, self.rss_after):
            found.append(f"the memory is over {RSS_PCT_MAX:g} % and over {RSS_KIB_MAX} KiB larger than before")
        return found

    def text(self) -> str:
        """The figures, for a person."""
        lines = [
            f"{self.backend}, {self.seconds:g} s:",
            f"  deliveries beside attackers  {self.deliveries}, {'lost: ' + self.lost if self.lost else 'none lost'}",
            f"  p99 alone                    {self.idle_p99:.1f} ms",
            f"  p99 beside attackers         {self.attacked_p99:.1f} ms, slowest {self.worst:.1f} ms",
            f"  p99 alone again              {self.after_p99:.1f} ms",
            f"  the server's CPU             {self.cpu_pct:.0f} % of one core beside attackers",
            f"  resident memory              {self.rss_cold} KiB cold, {self.rss_before} after the first attack, "
            f"{self.rss_most} at most, {self.rss_after} in the end, {self.settled_s:.0f} s later",
            *(f"  {line}" for line in self.done.splitlines()),
            f"  {'held' if not self.wrong else 'NOT HELD: ' + '; '.join(self.wrong)}",
        ]
        return "\n".join(lines)


def _is_back(before: int, now: int) -> bool:
    return now - before <= max(before * RSS_PCT_MAX / 100, RSS_KIB_MAX)


@contextmanager
def _serving(folder: Path, backend: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server and its port; killed in the end where it has not ended by itself."""
    url = f"sqlite:///{folder / 'attacked.db'}"
    command = ("-m", "vixws_anyio", "serve", "--app", "benchmarks.adversaries.app:server")
    with open(folder / f"{backend}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            (sys.executable, *command, "--backend", backend, "--store", url, *FLAGS),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("vixws ready "):
                raise HonestError(f"the server did not start: {line!r} {Path(log.name).read_text()[-2_000:]}")
            fields = dict(item.split("=", 1) for item in line.split()[2:])
            yield process, int(fields["ws"].rsplit(":", 1)[1].split("/")[0])
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def rss_kib(pid: int) -> int:
    """The resident memory of a process; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def _watch(pid: int, result: Result, file: Path) -> None:
    """Notes the most memory, and locks the store now and then."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.1)
        result.rss_most = max(result.rss_most, rss_kib(pid))
        if time.monotonic() - last > LOCK_EVERY_S:
            last = time.monotonic()
            await asyncio.to_thread(_lock, file)


def _lock(file: Path) -> None:
    """Holds the write lock of a database for a moment, as another program may."""
    connection = sqlite3.connect(file, timeout=1.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(LOCK_S)
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        pass  # It was busy: another time.
    finally:
        connection.close()


def cpu_s(pid: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _attack(port: int, seconds: float, sessions: int, crowd: Crowd, only: str) -> tuple[list[float], str]:
    """The attackers' process, beside honest talk; returns what the honest measured, and what was done."""
    command = ("-m", "benchmarks.adversaries.attacks", str(port), str(seconds), str(sessions), only)
    attackers = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        samples = await crowd.talk(seconds)
        told, _ = await asyncio.wait_for(attackers.communicate(), 30)
    finally:
        if attackers.returncode is None:
            attackers.kill()
            await attackers.wait()
    return samples, "\n".join(
        f"{name + ':':<20} {one['sessions']} sessions, {one['connected']} connections, {one['sent'] / 1e6:.1f} MB"
        for name, one in json.loads(told or b"{}").items()
    )


async def _measure(pid: int, port: int, result: Result, sessions: int, file: Path) -> None:
    crowd = Crowd(port, sessions)
    alone = max(1.0, min(60.0, result.seconds / 5))
    try:
        await crowd.open()
        await crowd.talk(1.0)  # Not measured: it gets warm.
        result.rss_cold = rss_kib(pid)
        progress(f"{result.backend}: the first attack")
        await _attack(port, min(FIRST_S_MAX, result.seconds / 2), sessions, crowd, result.only)
        await crowd.talk(min(SETTLE_S_MAX, max(1.0, result.seconds)))
        progress(f"{result.backend}: alone")
        result.idle_p99 = p99(await crowd.talk(alone))
        result.rss_before = result.rss_most = rss_kib(pid)
        progress(f"{result.backend}: beside attackers, {result.seconds:g} s")
        watching = asyncio.create_task(_watch(pid, result, file))
        before, began = crowd.published, cpu_s(pid)
        samples, result.done = await _attack(port, result.seconds, sessions, crowd, result.only)
        result.cpu_pct = 100 * (cpu_s(pid) - began) / result.seconds
        watching.cancel()
        result.publishes, result.deliveries = crowd.published - before, len(samples)
        result.attacked_p99, result.worst = p99(samples), 1000 * samples[-1] if samples else 0.0
        progress(f"{result.backend}: alone again")
        ended = time.monotonic()
        while True:
            result.after_p99 = p99(await crowd.talk(alone))
            result.rss_after, result.settled_s = rss_kib(pid), time.monotonic() - ended
            if _is_back(result.rss_before, result.rss_after) or result.settled_s > SETTLE_S_MAX:
                return
    except (HonestError, TimeoutError, OSError) as exc:
        result.lost = f"{type(exc).__name__}: {exc}"
    finally:
        crowd.close()


def attacked(backend: str, seconds: float, sessions: int = 50, folder: Path | None = None, only: str = "") -> Result:
    """Starts a server on this loop, has it attacked for so long, and says what was measured."""
    result = Result(backend, seconds, only)
    with tempfile.TemporaryDirectory(dir=folder) as name, _serving(Path(name), backend) as (process, port):
        asyncio.run(_measure(process.pid, port, result, sessions, Path(name) / "attacked.db"))
        if process.poll() is not None:
            result.lost = result.lost or f"the server ended with {process.returncode}"
    progress("")
    return result


def main(arguments: Sequence[str]) -> int:
    """Runs on one loop or both; prints the figures and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adversaries")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long each loop's server is attacked (300)")
    parser.add_argument("--backend", choices=("asyncio", "trio"), help="one loop; both where it is not given")
    parser.add_argument("--sessions", type=int, default=50, help="honest sessions, and attackers (50, at most 250)")
    parser.add_argument("--only", choices=tuple(KINDS), default="", help="one kind of attackers, to see what it does")
    asked = parser.parse_args(arguments)
    if not (1 <= asked.seconds <= 3_600 and 1 <= asked.sessions <= 250):
        parser.error("expected --seconds from 1 to 3600 and --sessions from 1 to 250")
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    print(f"machine: {cores} cores, Linux {platform.release()}, Python {platform.python_version()}, load before {load}")
    print(f"sessions: {asked.sessions} honest, each publishing every {PUBLISH_S:g} s, and as many attackers")
    print(f"server: vixws serve {' '.join(FLAGS[:3])}; each session has an address of its own, whose limits hold")
    backends = (asked.backend,) if asked.backend else ("asyncio", "trio")
    results = [attacked(each, asked.seconds, asked.sessions, only=asked.only) for each in backends]
    for result in results:
        print(f"\n{result.text()}", flush=True)
    return 1 if any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
