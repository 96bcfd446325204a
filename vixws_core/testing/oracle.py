"""How an oracle says no."""

from __future__ import annotations

__all__ = ["OracleFailed", "check"]


class OracleFailed(AssertionError):
    """A rule of the protocol's §13 was broken; the message says which, by whom, and what was expected."""


def check(holds: bool, message: str) -> None:
    """Raises: `OracleFailed` where a rule does not hold."""
    if not holds:
        raise OracleFailed(message)
