"""Some seconds of the campaign against adversaries: the honest lose nothing, whatever fifty others do beside them.

What the figures are worth is judged by `.ci/campaign adversaries` alone: other programs share this machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.adversaries import __main__ as campaign
from benchmarks.adversaries.__main__ import Result, attacked, main
from benchmarks.adversaries.attacks import KINDS
from benchmarks.adversaries.honest import p99


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_honest_lose_nothing_beside_fifty_attackers(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "SETTLE_S_MAX", 0.0)
    result = attacked(backend, 3.0, folder=tmp_path)

    assert result.lost == ""
    assert result.deliveries == 10 * result.publishes > 2_000
    assert all(f"{kind}:" in result.done for kind in KINDS)
    assert 0 < result.rss_before <= result.rss_most


def test_what_does_not_hold_is_named() -> None:
    good = Result("asyncio", 1.0, idle_p99=20.0, attacked_p99=60.0, rss_before=50_000, rss_after=54_000)

    assert good.wrong == [] and good.text().endswith("  held")
    assert [word.split()[0] for word in Result("trio", 1.0, attacked_p99=51.0).wrong] == ["p99"]
    assert len(Result("trio", 1.0, rss_before=50_000, rss_after=54_200).wrong) == 1
    assert Result("trio", 1.0, lost="HonestError: cut off").wrong == ["HonestError: cut off"]


def test_the_percentile_is_of_sorted_samples() -> None:
    assert p99([]) == 0.0
    assert p99([number / 1000 for number in range(1, 101)]) == 99.0


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--sessions", "251"], ["--backend", "curio"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
