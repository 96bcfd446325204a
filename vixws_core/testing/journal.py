"""What happened in a world, in words, for whoever reads why it failed."""

from __future__ import annotations

from collections import deque

__all__ = ["Journal"]

_LINES_MAX = 60
"""The newest lines that are kept."""


class Journal:
    """Lines that say what was done, by whom, and which handler took it; the newest ones are kept."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_MAX)
        self._told = 0

    def say(self, line: str) -> None:
        """Adds a line; one that is the same as the last is counted instead."""
        self._told += 1
        if self.lines and self.lines[-1].partition(" (×")[0] == line:
            times = self.lines[-1].partition(" (×")[2].rstrip(")")
            self.lines[-1] = f"{line} (×{int(times or 1) + 1})"
        else:
            self.lines.append(line)

    def __str__(self) -> str:
        left = "  …\n" if self._told > _LINES_MAX else ""
        return left + "\n".join(f"  {line}" for line in self.lines)
