"""Runs many worlds: `python -m vixws_core.testing BASE COUNT [STEPS]`; exit status 1 where an oracle says no.

The seeds are `BASE/0`, `BASE/1`, …; one line is printed per failure, and one at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import blake2b

from .failed import OracleFailed
from .varied import varied_world

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Runs the worlds; returns the exit status."""
    if not 2 <= len(arguments) <= 3 or not all(word.isdigit() for word in arguments[1:]):
        print("usage: python -m vixws_core.testing BASE COUNT [STEPS]", file=sys.stderr)
        return 2
    base, count = arguments[0], int(arguments[1])
    steps = int(arguments[2]) if len(arguments) == 3 else 400
    failures = 0
    whole = blake2b(digest_size=16)
    for number in range(count):
        seed = f"{base}/{number}"
        world = varied_world(seed)
        try:
            world.run(steps)
            world.settle()
        except OracleFailed as exc:
            failures += 1
            print(f"world {seed} failed at step {world.steps}: {exc}")
        whole.update(world.digest.encode())
    print(f"{count} worlds, {failures} failed, digest {whole.hexdigest()}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
