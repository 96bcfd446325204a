"""The runner starts servers as users do, compares within a round, and ends what it started."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.contestants import Contestant, Peer, ServerError, Vixws, installed, root, serving
from benchmarks.load import LoadError, build, measure
from benchmarks.metrics import Scrapes, ratio_text, scrape, scrapes_text
from benchmarks.report import floor_lines, result_text, warm_lines
from benchmarks.rounds import Figures, Result, run
from benchmarks.warm import Warming
from benchmarks.workloads import FIRST, WORKLOADS, Floor, Plan, Workload
from tests.benchmarks.processes import children, command_line

SMALL = {
    "echo": {"conns": 2, "depth": 2},
    "room": {"conns": 3},
    "publish": {"conns": 2, "depth": 2},
    "replay": {"conns": 2, "fill": 700},
    "idle": {"conns": 5},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load client."""
    return build(tmp_path_factory.mktemp("wsload"))


def plan(program: Path, rounds: int = 1) -> Plan:
    return Plan(program, rounds, duration_s=0.25, warmup_s=0.02, settle_s=0.02, hold_s=0.02, pass_s=0.05)


def small(name: str) -> Workload:
    return WORKLOADS[name].shaped(**SMALL[name])


def figures(cpu_us: float = 1.0, rate: float = 1.0, kib: float = 1.0) -> Figures:
    return Figures(rate, cpu_us, p50_us=1.0, p99_us=2.0, kib=kib, server_pct=50.0, client_pct=10.0)


def warmed(passes: int, steady: bool = True) -> Figures:
    return replace(figures(), warming=Warming(passes, steady))


CARRIED = [
    *(("websockets", each) for each in SMALL),
    *(("picows", each) for each in ("echo", "publish")),
    ("trio-websocket", "room"),
]


@pytest.mark.parametrize(("library", "name"), [each for each in CARRIED if installed(each[0])])
def test_a_peer_carries_a_workload(program: Path, library: str, name: str) -> None:
    workload = small(name)
    said: list[str] = []

    result = run(workload, [Peer(library)], plan(program), said.append)

    assert len(said) == len(result.figures[Peer(library)]) == 1
    assert library in result_text(result)
    assert len(result.warmings(Peer(library))) == (1 if workload.cost else 0)


@pytest.mark.parametrize(("backend", "name"), [*(("asyncio", each) for each in SMALL), ("trio", "publish")])
def test_the_shipped_server_carries_each_workload(program: Path, backend: str, name: str) -> None:
    ours = Vixws(backend)

    result = run(small(name), [ours], plan(program), lambda _text: None)

    assert len(result.figures[ours]) == 1
    assert ours.name in result_text(result)


def test_contestants_alternate_within_rounds(program: Path) -> None:
    said: list[str] = []
    contestants: list[Contestant] = [Peer("websockets"), Vixws("asyncio", uvloop=True)]

    result = run(small("echo"), contestants, plan(program, rounds=2), said.append)

    assert [len(each) for each in result.figures.values()] == [2, 2]
    assert [each.partition(": ")[2] for each in said] == [
        "round 1 of 2, websockets",
        "round 1 of 2, vixws asyncio+uvloop",
        "round 2 of 2, vixws asyncio+uvloop",
        "round 2 of 2, websockets",
    ]


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    ours, peer = Vixws("asyncio"), Peer("websockets")
    result = Result(
        WORKLOADS["echo"],
        {ours: [figures(1.0), figures(4.0), figures(9.0)], peer: [figures(4.0), figures(8.0), figures(18.0)]},
    )

    assert result.ratios(ours, peer) == [0.25, 0.5, 0.5]
    assert result.median(ours, "cpu_us") == 4.0


def test_a_floor_passes_misses_or_is_not_measured() -> None:
    ours, peer = Vixws("asyncio"), Peer("websockets")

    def lines(cost: float, with_peer: bool = True) -> list[str]:
        found: dict[Contestant, list[Figures]] = {ours: [figures(cost)]}
        if with_peer:
            found[peer] = [figures(2.0)]
        return floor_lines(Result(WORKLOADS["echo"], found).verdicts())

    assert lines(0.9) == ["  floor pass: vixws asyncio ≤ 0.45 × websockets: 0.45"]
    assert lines(1.0) == ["  floor MISS: vixws asyncio ≤ 0.45 × websockets: 0.50"]
    assert lines(1.0, with_peer=False) == ["  floor none: vixws asyncio ≤ 0.45 × websockets: not measured"]


def test_a_rate_is_kept_from_below_and_memory_from_above() -> None:
    ours = Vixws("trio")

    fast = Result(WORKLOADS["publish-many"], {ours: [figures(rate=10_000.0)]}).verdicts()
    slow = Result(WORKLOADS["publish-many"], {ours: [figures(rate=9_999.0)]}).verdicts()
    lean = Result(WORKLOADS["idle"], {ours: [figures(kib=14.0)]}).verdicts()
    fat = Result(WORKLOADS["idle"], {ours: [figures(kib=14.1)]}).verdicts()

    assert [each.kept for each in (*fast, *slow, *lean, *fat)] == [True, False, True, False]


def test_a_result_tells_how_many_passes_warmed_each_server() -> None:
    result = Result(
        WORKLOADS["echo"],
        {
            Vixws("asyncio"): [warmed(2), warmed(4), warmed(3)],
            Peer("websockets"): [warmed(3), warmed(3), warmed(3)],
        },
    )

    assert warm_lines(result) == ["  warm passes: vixws asyncio 2–4, websockets 3"]
    assert result_text(result).endswith("\n  warm passes: vixws asyncio 2–4, websockets 3")


def test_a_result_says_plainly_which_servers_did_not_get_steady() -> None:
    result = Result(
        WORKLOADS["echo"],
        {Vixws("trio"): [warmed(2)] * 3, Peer("picows"): [warmed(8, steady=False), warmed(2), warmed(8, steady=False)]},
    )

    assert warm_lines(result) == [
        "  warm passes: vixws trio 2, picows 2–8",
        "  NOT STEADY: picows in 2 of 3 rounds: measured though no two passes in a row had agreed within 5 % "
        "after 8 passes or 20 s",
    ]


def test_memory_is_measured_without_passes() -> None:
    result = Result(WORKLOADS["idle"], {Vixws("trio"): [figures()]})

    assert warm_lines(result) == []


def test_a_shape_of_ones_own_has_no_floors() -> None:
    echo = WORKLOADS["echo"]

    assert echo.shaped(conns=7).floors == ()
    assert echo.shaped(conns=echo.conns) is echo


def test_each_loop_has_the_floors_that_were_set_for_it() -> None:
    def limits(backend: str) -> list[tuple[str, float, str]]:
        return [
            (workload.name, floor.limit, floor.peer)
            for workload in FIRST
            for floor in workload.floors
            if backend in floor.backends
        ]

    both = [("echo", 0.45, "websockets")]
    rest = [
        ("room", 1.0, "websockets"),
        ("publish", 0.4, "websockets"),
        ("publish-many", 10_000, ""),
        ("idle", 14, ""),
    ]

    assert limits("asyncio") == [*both, ("echo-single", 1.0, "websockets"), *rest]
    assert limits("trio") == [*both, ("echo-single", 0.6, "trio-websocket"), *rest]
    assert Floor(14, figure="kib").said == "≤ 14 KiB per session"


@pytest.mark.parametrize(("cost", "said"), [(2.06, "pass"), (2.07, "MISS")])
def test_metrics_are_compared_with_the_same_server_without_them(cost: float, said: str) -> None:
    without, counted = Vixws("trio"), Vixws("trio", metrics=True)
    result = Result(WORKLOADS["echo"], {without: [figures(2.0)] * 3, counted: [figures(9.0), *[figures(cost)] * 2]})

    text = ratio_text(result, without, counted)

    assert f"floor {said}: vixws trio with metrics ≤ 1.03 × without: {cost / 2:.3f}" in text


def test_a_scrape_has_a_floor_for_cpu_and_one_for_time() -> None:
    text = scrapes_text(Scrapes("vixws trio with metrics", 100_000, 5, 6_000, 5.0, (0.004, 0.0051, 0.009)))

    assert "scrapes after 100,000 sessions and 5 messages" in text
    assert "floor pass: vixws trio with metrics ≤ 5 ms of server CPU a scrape: 5.00" in text
    assert "floor MISS: vixws trio with metrics ≤ 5 ms of scraper's time a scrape: 5.10" in text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_scrapes_tell_of_all_sessions_before_them(program: Path, backend: str) -> None:
    found = scrape(Vixws(backend, metrics=True), program, sessions=70, scrapes=2, echo_s=0.1)

    assert found.sessions == 170  # The echo opens 100 of its own.
    assert found.messages > 0
    assert found.answer_bytes > 1000
    assert len(found.seconds) == 2
    assert found.cpu_ms > 0


def test_a_server_is_gone_when_its_block_is_left() -> None:
    command = Peer("websockets").command("echo", None, 0)

    with serving(command) as server:
        os.kill(server.pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_server_is_gone_when_its_block_raises() -> None:
    pids: list[int] = []

    with pytest.raises(LoadError), serving(Peer("websockets").command("echo", None, 0)) as server:
        pids.append(server.pid)
        raise LoadError("the run failed")

    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('no such store')", "ended with status 1 before it was ready"),
        ("print('hello', flush=True); input()", "expected 'NAME ready"),
        (
            "import os, signal\n"
            "signal.signal(signal.SIGTERM, lambda *_: os._exit(3))\n"
            "print(f'x ready ws=ws://127.0.0.1:1/ pid={os.getpid()}', flush=True)\n"
            "signal.pause()",
            "status 3 after SIGTERM",
        ),
    ],
)
def test_a_server_that_misbehaves_is_told_with_itscommand_line(script: str, said: str) -> None:
    with pytest.raises(ServerError, match=said), serving([sys.executable, "-c", script]) as server:
        assert server.port == 1


def test_what_a_failing_server_wrote_comes_with_the_error() -> None:
    script = "import sys; sys.exit('no such store')"

    with pytest.raises(ServerError) as caught, serving([sys.executable, "-c", script]):
        pass

    assert caught.value.__notes__ == ["no such store"]


def test_a_run_that_measured_nothing_has_no_figures() -> None:
    with pytest.raises(LoadError, match="no message in the measured time"):
        Figures.read(WORKLOADS["echo"], {"server": {"cpu_pct": 1.0}, "client": {"cpu_pct": 1.0}})


def test_a_failed_run_is_told_in_the_load_clients_words(program: Path) -> None:
    with pytest.raises(LoadError, match="connect: Connection refused"):
        measure(program, ["echo", "--port", "1"], 10)


def test_wrong_usage_of_the_load_client_is_told(program: Path) -> None:
    with pytest.raises(LoadError, match="--conns must be a number"):
        measure(program, ["echo", "--port", "1", "--conns", "many"], 10)


def test_a_run_that_takes_too_long_is_ended(program: Path) -> None:
    late = pytest.raises(LoadError, match=r"no result within 0\.2 s")

    with serving(Peer("websockets").command("echo", None, 0)) as server, late:
        measure(program, ["echo", "--port", str(server.port), "--duration", "60"], 0.2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk"],
        [],
        ["echo", "--backend", "curio"],
        ["echo", "--backend", "trio", "--uvloop"],
        ["echo", "--peers", "socketio"],
        ["echo", "--rounds", "0"],
        ["echo", "--duration", "soon"],
        ["first", "--conns", "3"],
        ["metrics", "--size", "3"],
        ["metrics", "--peers", "websockets"],
        ["echo", "--sessions", "3"],
        ["publish", "--folder", "no-such-folder"],
        ["house"],
        ["house", "--beside", "no-such-revision"],
        ["house", "--beside", "HEAD", "--workloads", "replay"],
        ["house", "--beside", "HEAD", "--conns", "3"],
        ["house", "--beside", "HEAD", "--peers", "websockets"],
        ["echo", "--beside", "HEAD"],
        ["echo", "--workloads", "echo"],
    ],
)
def test_wrong_usage_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_names_every_workload(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])

    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(
        f"  {name} " in out for name in ("echo", "room", "publish", "replay", "idle", "metrics", "house", "first")
    )


def test_applications_are_short_and_use_public_names_only() -> None:
    for path in (root / "benchmarks" / "apps").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]

        assert len(text.splitlines()) <= 15, path.name
        for node in imports:
            assert isinstance(node, ast.ImportFrom)
            assert node.module in {"os", "vixws_anyio", "vixws_core", "vixws_store", "vixws_metrics"}
            assert not any(alias.name.startswith("_") for alias in node.names)


def test_a_terminated_runner_leaves_no_server_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "echo",
        "--peers",
        "none",
        "--duration",
        "60",
        "--folder",
        str(tmp_path),
    ]
    runner = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    servers: list[int] = []
    try:
        while runner.poll() is None:
            servers = [pid for pid in children(runner.pid) if b"vixws_anyio" in command_line(pid)]
            if servers and any(b"wsload" in command_line(pid) for pid in children(runner.pid)):
                break
            os.sched_yield()
        runner.send_signal(signal.SIGTERM)
        status = runner.wait(20)
    finally:
        runner.kill()

    assert (status, len(servers)) == (128 + signal.SIGTERM, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(servers[0], 0)
    assert list(tmp_path.iterdir()) == []
