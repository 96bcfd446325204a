"""What is run, and what has to come of it: one table, and the account of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = [
    "FRAGMENTS_MAX",
    "GROUPS",
    "MESSAGE_BYTES_MAX",
    "RUNS",
    "Case",
    "Counts",
    "Group",
    "Run",
    "faults",
    "runs_of",
]

Counts = Mapping[str, int]
"""How many cases have each result word."""


class Group(NamedTuple):
    """Some of Autobahn's cases: their patterns, and how many results of each word they have to have."""

    patterns: tuple[str, ...]
    behavior: Counts
    close: Counts


class Run(NamedTuple):
    """One start of Autobahn: which side of ours is tested, on which loop, with which groups of cases."""

    side: str
    loop: str
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is printed, and as Autobahn calls the one it tests."""
        return f"{self.side}-{self.loop}"

    @property
    def patterns(self) -> list[str]:
        """Its cases, as a specification names them."""
        return [pattern for name in self.groups for pattern in GROUPS[name].patterns]

    @property
    def behavior(self) -> Counter[str]:
        """How many results of each word are expected."""
        return sum((Counter(GROUPS[name].behavior) for name in self.groups), Counter())

    @property
    def close(self) -> Counter[str]:
        """The same of how the connection ended."""
        return sum((Counter(GROUPS[name].close) for name in self.groups), Counter())


GROUPS: Final = {
    "framing": Group(
        ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*"),
        {"OK": 243, "INFORMATIONAL": 3},  # 7.1.6, 7.13.1, 7.13.2: the RFC leaves open what follows.
        {"OK": 243, "INFORMATIONAL": 3},
    ),
    "limits": Group(("9.*",), {"OK": 54}, {"OK": 54}),
    "fragments": Group(("10.*",), {"OK": 1}, {"OK": 1}),
}
"""Autobahn's cases. A new group (12 and 13 are permessage-deflate's) is a row here and its name in `RUNS`."""

PLAIN: Final = ("framing", "limits", "fragments")

RUNS: Final = {
    "ci": (
        Run("server", "asyncio", PLAIN),
        Run("server", "trio", ("framing",)),
        Run("client", "asyncio", PLAIN),
    ),
    "all": (
        Run("server", "asyncio", PLAIN),
        Run("server", "trio", PLAIN),
        Run("client", "asyncio", PLAIN),
        Run("client", "trio", PLAIN),
    ),
}
"""What `python -m tests.conformance NAME` runs, in order."""

BUDGET_S: Final = {"ci": 180.0, "all": 900.0}
"""Seconds for all runs of a name together; what does not end by then has failed."""

MESSAGE_BYTES_MAX: Final = 16 * 2**20
"""The largest message of any case."""

FRAGMENTS_MAX: Final = 65_537
"""The most fragments of any message (9.3.1 and 9.4.1: 4 MiB, 64 bytes each, and an empty last one)."""

GOOD: Final = frozenset(("OK", "INFORMATIONAL"))
"""The result words that a case may have. NON-STRICT conforms as well, and is still not what we want."""


class Case(NamedTuple):
    """What Autobahn says of one case: a word for what happened and one for how the connection ended, and why."""

    id: str
    behavior: str
    close: str
    why: str = ""


def runs_of(name: str, side: str = "", loop: str = "", group: str = "") -> tuple[Run, ...]:
    """The runs of a row of `RUNS`, or those of one side, loop or group of cases."""
    chosen = (run for run in RUNS[name] if side in ("", run.side) and loop in ("", run.loop))
    if not group:
        return tuple(chosen)
    return tuple(run._replace(groups=(group,)) for run in chosen if group in run.groups)


def counts(words: list[str]) -> str:
    """How often each word comes, as text."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def faults(run: Run, cases: list[Case]) -> list[str]:
    """What is wrong with the results of a run, one line each; none: it passed."""
    wrong = [
        f"case {case.id}: {case.behavior}, close {case.close}: {case.why}"
        for case in cases
        if not {case.behavior, case.close} <= GOOD
    ]
    for what, expected, words in (
        ("behavior", run.behavior, [case.behavior for case in cases]),
        ("behaviorClose", run.close, [case.close for case in cases]),
    ):
        if Counter(words) != expected:
            wrong.append(f"{what}: expected {counts(list(expected.elements()))}, got {counts(words) or 'nothing'}")
    return wrong
