"""Seeds that are others with each commit, so that each one is tried on other cases."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["base_seed"]


def base_seed() -> str:
    """The commit, so that each one is tried on other worlds; a fixed word outside a checkout."""
    found = subprocess.run(
        ("git", "rev-parse", "HEAD"), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "fixed"
