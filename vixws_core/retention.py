"""Retention: how much of a room's log is kept, by pattern of rooms. What a configuration says and stores obey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .errors import LocalError
from .names import matches

__all__ = ["Retention", "rule_for"]

COUNT_MAX: Final = 1 << 53
AGE_S_LEAST: Final = 1.0
AGE_S_MAX: Final = 3.2e9
"""A hundred years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept of the rooms that fit `pattern` (`*` stands for any run of characters): the newest messages that
    fit all bounds it has, of which it must have one. The oldest go, in order, soon after they are over a bound.

    Raises: `LocalError` that names the bound.
    """

    pattern: str
    count: int | None = None
    """Most messages, 1 or more."""
    age_s: float | None = None
    """How old a message may be, in seconds by the clock of the machine that stored it, 1 to 3.2e9."""
    bytes: int | None = None
    """Most payload bytes, 1 or more; the newest message stays however big it is."""

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may not be typed
            raise LocalError(f"pattern must be a pattern of rooms, got {self.pattern!r:.80}")
        for name, value in (("count", self.count), ("bytes", self.bytes)):
            if value is not None and not (type(value) is int and 1 <= value <= COUNT_MAX):
                raise LocalError(f"{name} must be an integer from 1 to {COUNT_MAX}, got {value!r:.80}")
        age = self.age_s
        if age is not None and not (type(age) in (int, float) and AGE_S_LEAST <= age <= AGE_S_MAX):
            raise LocalError(f"age_s must be a number from {AGE_S_LEAST:g} to {AGE_S_MAX:g} seconds, got {age!r:.80}")
        if self.count is None and self.age_s is None and self.bytes is None:
            raise LocalError(f"a retention must have a count, an age_s or bytes, got none for {self.pattern!r:.140}")

    def as_json(self) -> dict[str, object]:
        """As a configuration file has it: `pattern`, and of `count`, `ageS` and `bytes` those that are set."""
        found = {"pattern": self.pattern, "count": self.count, "ageS": self.age_s, "bytes": self.bytes}
        return {key: value for key, value in found.items() if value is not None}


def rule_for(rules: Iterable[Retention], room: str) -> Retention | None:
    """The first of the rules whose pattern fits a room; None where none does, and all is kept."""
    return next((rule for rule in rules if matches(rule.pattern, room)), None)
