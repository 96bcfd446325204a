"""Settings that are lists of rules: how much of which rooms is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from vixws_core.errors import LocalError
from vixws_core.retention import Retention

from .kinds import Value
from .setting import is_pattern

__all__ = ["Rules"]

RULES_MAX: Final = 100
_KEYS: Final = {"pattern": "pattern", "count": "count", "ageS": "age_s", "age_s": "age_s", "bytes": "bytes"}
"""The keys of a rule, camelCase or snake_case, and its fields."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A list of retentions; as JSON in a variable or flag too. At most 100."""

    @property
    def expected(self) -> str:
        """In words."""
        example = '{"pattern": "chat.*", "count": 10000, "ageS": 604800, "bytes": 1073741824}'
        return f"a list of at most {RULES_MAX} objects such as {example}, each with one bound at least"

    @property
    def range(self) -> str:
        """In short."""
        return "list of objects with `pattern` and one at least of `count`, `ageS`, `bytes`; text: as JSON"

    def parse(self, text: str) -> Value:
        """Nothing, or a JSON list."""
        try:
            return self.check(json.loads(text) if text.strip() else [])
        except RecursionError:
            raise ValueError(text) from None

    def check(self, value: object) -> Value:
        """A list of objects, or of `Retention`."""
        if not isinstance(value, (list, tuple)):
            raise ValueError("expected a list")
        given = cast("Sequence[object]", value)
        if len(given) > RULES_MAX:
            raise ValueError(given)
        return tuple(map(_rule, given))


def _rule(value: object) -> Retention:
    """One rule. Raises: `ValueError`."""
    found = value if isinstance(value, Retention) else _read(value)
    if not is_pattern(found.pattern):
        raise ValueError(found.pattern)
    return found


def _read(value: object) -> Retention:
    """One rule as a file has it. Raises: `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    entries = cast("Mapping[str, Any]", value)
    fields: dict[str, Any] = {_KEYS[key]: bound for key, bound in entries.items() if key in _KEYS}
    if len(fields) != len(entries) or "pattern" not in fields or None in fields.values():
        raise ValueError(entries)
    try:
        return Retention(**fields)
    except LocalError as exc:
        raise ValueError(str(exc)) from None
