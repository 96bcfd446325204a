"""The command line: `python -m benchmarks echo|room|publish|replay|idle|metrics|house|first`."""

from __future__ import annotations

import argparse
import contextlib
import resource
import shlex
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks import house, metrics
from benchmarks.contestants import PEERS, Contestant, Peer, ServerError, Vixws, installed, root
from benchmarks.load import LoadError, build
from benchmarks.report import describe_machine, progress, result_text
from benchmarks.rounds import run
from benchmarks.sides import RevisionError, commit_of, unpacked
from benchmarks.warm import DIFFER_PCT_MAX, PASSES_MAX, WARM_S_MAX
from benchmarks.workloads import FIRST, WORKLOADS, Plan, Workload

__all__ = ["main"]

_EPILOG = f"""\
workloads:
  echo     every connection keeps messages in flight and gets each one back
  room     one publishes typed JSON to a room that is not stored; all members get it
  publish  durable publishes (SQLite, WAL, synchronous=FULL), counted when acknowledged
  replay   members join a stored room with an old position and read it to its head
  idle     sessions that do nothing: KiB of resident memory for each
  metrics  echo with metrics beside echo without, then scrapes after the sessions of a busy day
  house    this vixws beside another revision: echo (and one by one, echo-single), room, publish and idle on both
           loops; at most {house.CPU_RATIO_MAX:g} times its CPU per event and {house.KIB_RATIO_MAX:g} times its memory
  first    all but metrics and house in their default shapes, on both loops; writes docs/results/first-figures.txt

Server CPU is what the kernel charged to all threads of the server; on a busy machine it is steadier than
messages per second. A ratio compares CPU per event with a peer's in the same round; the figures shown are
medians over the rounds. A workload in a shape of your own has no floors.

Servers are measured warm: each gets unmeasured passes until two in a row agree within {DIFFER_PCT_MAX} % of server
CPU per event, at most {PASSES_MAX} passes or {WARM_S_MAX:g} s. A result says how many they were, and which servers
did not get steady. For idle there are none, as memory that they had left free would hide what a session takes.

exit status: 0 measured (floors and limits are reported, not judged), 1 a run failed, 2 wrong usage, 130 interrupted
"""

_ON_BOTH_LOOPS = ("first", "metrics", "house")
"""What has shapes of its own, and runs on asyncio and trio where not told otherwise."""


class _Usage(Exception):
    """Wrong usage that argparse cannot see."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the shipped vixws server beside other libraries' servers, in the same rounds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=["echo", "room", "publish", "replay", "idle", "metrics", "house", "first"])
    parser.add_argument(
        "--backend",
        metavar="NAMES",
        help="loops of vixws: asyncio, trio, or both with a comma (asyncio; metrics, house, first: both)",
    )
    parser.add_argument("--uvloop", action="store_true", help="uvloop for every server that runs on asyncio")
    parser.add_argument(
        "--peers", metavar="NAMES", help=f"comma-separated: {','.join(PEERS)}, or none (all that are installed and fit)"
    )
    parser.add_argument(
        "--rounds", type=_whole(1, 100), help=f"rounds, each with every server (3; metrics: 9; house: {house.ROUNDS})"
    )
    parser.add_argument(
        "--duration", type=_seconds, metavar="S", help=f"measured seconds a run (2; house: {house.DURATION_S})"
    )
    parser.add_argument(
        "--warmup", type=_seconds, metavar="S", help=f"unmeasured ones at its start (0.5; house: {house.WARMUP_S})"
    )
    parser.add_argument("--conns", type=_whole(1, 100_000), metavar="N", help="connections, room members or sessions")
    parser.add_argument("--depth", type=_whole(1, 100_000), metavar="N", help="echo, publish: in flight per connection")
    parser.add_argument("--window", type=_whole(1, 100_000), metavar="N", help="room: publications in flight (1)")
    parser.add_argument("--size", type=_whole(0, 10_000_000), metavar="BYTES", help="bytes of a message (125)")
    parser.add_argument("--messages", type=_whole(1, 10_000_000), metavar="N", help="replay: stored messages (20000)")
    parser.add_argument(
        "--sessions", type=_whole(1, 10_000_000), metavar="N", help=f"metrics: before the scrapes ({metrics.SESSIONS})"
    )
    parser.add_argument("--beside", metavar="REV", help="house: the revision to compare with, such as HEAD~1")
    parser.add_argument("--workloads", metavar="NAMES", help=f"house: some of {','.join(house.names)} (all)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where databases go (the temporary folder)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results here as well")
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from {low} to {high}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.05 <= found <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}, expected seconds from 0.05 to 3600")
    return found


def _workloads(arguments: argparse.Namespace) -> tuple[Workload, ...]:
    shape = {
        "conns": arguments.conns,
        "depth": arguments.depth,
        "window": arguments.window,
        "size": arguments.size,
        "fill": arguments.messages,
    }
    shape = {name: value for name, value in shape.items() if value is not None}
    if arguments.sessions is not None and arguments.workload != "metrics":
        raise _Usage("--sessions is for metrics")
    if arguments.workload in _ON_BOTH_LOOPS:
        if shape:
            raise _Usage(
                f"{arguments.workload} has shapes of its own: leave out --conns --depth --window --size --messages"
            )
        return FIRST if arguments.workload == "first" else ()
    names = {"echo": ("echo", "echo-single"), "publish": ("publish", "publish-many")}
    chosen = [WORKLOADS[name] for name in names.get(arguments.workload, (arguments.workload,))]
    if not shape:
        return tuple(chosen)
    for each in chosen:  # a shape that has floors of its own keeps them
        if each.shaped(**shape) is each:
            return (each,)
    return (chosen[0].shaped(**shape),)


def _chosen(arguments: argparse.Namespace) -> list[str]:
    """The workloads of house."""
    if arguments.workload != "house":
        if arguments.workloads is not None:
            raise _Usage("--workloads is for house")
        return []
    found = list(house.names) if arguments.workloads is None else arguments.workloads.split(",")
    for name in found:
        if name not in house.names:
            raise _Usage(f"--workloads {name!r}, expected some of {', '.join(house.names)}")
    return list(dict.fromkeys(found))


def _commit(arguments: argparse.Namespace) -> str:
    """What house compares with, as a full hash; empty for all others."""
    if arguments.workload == "house":
        if arguments.beside is None:
            raise _Usage("house compares two revisions: expected --beside REV")
        try:
            return commit_of(arguments.beside)
        except RevisionError as error:
            raise _Usage(f"--beside {error}") from None
    if arguments.beside is not None:
        raise _Usage("--beside is for house")
    return ""


def _contestants(arguments: argparse.Namespace) -> list[Contestant]:
    names = (arguments.backend or ("asyncio,trio" if arguments.workload in _ON_BOTH_LOOPS else "asyncio")).split(",")
    for name in names:
        if name not in ("asyncio", "trio"):
            raise _Usage(f"--backend {name!r}, expected asyncio or trio")
    if arguments.uvloop and "asyncio" not in names:
        raise _Usage("--uvloop is for asyncio, which --backend leaves out")
    found: list[Contestant] = [Vixws(name, arguments.uvloop and name == "asyncio") for name in dict.fromkeys(names)]
    peers: list[str]
    if arguments.workload in ("metrics", "house"):
        if arguments.peers not in (None, "none"):
            raise _Usage(f"{arguments.workload} compares vixws with itself: leave out --peers")
        return found
    if arguments.peers is None:
        peers = [each for each in PEERS if installed(each) and (each != "trio-websocket" or "trio" in names)]
    else:
        peers = [] if arguments.peers == "none" else str(arguments.peers).split(",")
    for each in dict.fromkeys(peers):
        if each not in PEERS:
            raise _Usage(f"--peers {each!r}, expected some of {', '.join(PEERS)}, or none")
        if not installed(each):
            raise _Usage(f"--peers {each}: not installed; pip install -e '.[bench]' brings all peers")
        found.append(Peer(each, arguments.uvloop))
    return found


def _raise_descriptor_limit() -> None:
    """Idle sessions need a descriptor each, in the server too, which inherits this limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8192 and (hard == resource.RLIM_INFINITY or hard > soft):
        wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _plan(arguments: argparse.Namespace) -> Plan:
    rounds, duration_s, warmup_s = {
        "metrics": (9, 2.0, 0.5),
        "house": (house.ROUNDS, house.DURATION_S, house.WARMUP_S),
    }.get(arguments.workload, (3, 2.0, 0.5))
    plan = Plan(
        build(),
        arguments.rounds or rounds,
        arguments.duration or duration_s,
        arguments.warmup or warmup_s,
        arguments.folder,
    )
    if arguments.workload == "house":
        return replace(plan, settle_s=house.SETTLE_S, pass_s=house.PASS_S)
    return plan


def _texts(
    arguments: argparse.Namespace, workloads: tuple[Workload, ...], contestants: list[Contestant], plan: Plan
) -> Generator[str, None, None]:
    """Measure, and describe each result as it comes."""
    ours = [each for each in contestants if isinstance(each, Vixws)]
    if arguments.workload == "metrics":
        yield from metrics.texts(ours, plan, arguments.sessions or metrics.SESSIONS)
    if arguments.workload == "house":
        with unpacked(arguments.commit) as trees:
            yield from house.texts(ours, arguments.chosen, trees, arguments.commit[:7], plan)
    for workload in workloads:
        fitting = [each for each in contestants if not isinstance(each, Peer) or each.library in workload.peers]
        result = run(workload, fitting, plan, progress)
        progress("")
        yield result_text(result)


def _measure(
    arguments: argparse.Namespace, workloads: tuple[Workload, ...], contestants: list[Contestant], out: Path | None
) -> None:
    plan = _plan(arguments)
    _raise_descriptor_limit()
    said = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if arguments.argv is None else arguments.argv)])
    texts = [describe_machine(said, arguments.folder, arguments.commit)]
    print(texts[0], flush=True)
    with contextlib.closing(_texts(arguments, workloads, contestants, plan)) as found:
        for text in found:
            texts.append(text)
            print(f"\n{text}", flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n\n".join(texts) + "\n", encoding="utf-8")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that the server and the load client end as well."""
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.argv = argv
    try:
        workloads, contestants = _workloads(arguments), _contestants(arguments)
        arguments.chosen, arguments.commit = _chosen(arguments), _commit(arguments)
    except _Usage as error:
        parser.error(str(error))
    if arguments.folder is not None and not arguments.folder.is_dir():
        parser.error(f"--folder {str(arguments.folder)!r}: no such folder")
    out = arguments.out
    if out is None and arguments.workload == "first":
        out = root / "docs" / "results" / "first-figures.txt"
    signal.signal(signal.SIGTERM, _end)
    try:
        _measure(arguments, workloads, contestants, out)
    except (LoadError, RevisionError, ServerError, OSError) as error:
        progress("")
        print("\n".join([f"benchmarks: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress("")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
