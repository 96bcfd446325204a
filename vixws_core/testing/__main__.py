"""Runs many worlds: `python -m vixws_core.testing [-x] [-p] BASE COUNT [STEPS]`; status 1 where an oracle says no.

The seeds are `BASE/0`, `BASE/1`, …; one line is printed per failure, and one at the end. `-x` stops at the
first failure; with `-p` users prove who they are, and what they may do changes all the time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import blake2b

from .oracle import OracleFailed
from .scenarios import run_varied, varied_world

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Runs the worlds; returns the exit status."""
    words = [word for word in arguments if word not in ("-x", "-p")]
    if not 2 <= len(words) <= 3 or not all(word.isdigit() for word in words[1:]):
        print("usage: python -m vixws_core.testing [-x] [-p] BASE COUNT [STEPS]", file=sys.stderr)
        return 2
    base, count = words[0], int(words[1])
    steps = int(words[2]) if len(words) == 3 else 400
    failures = done = 0
    whole = blake2b(digest_size=16)
    for number in range(count):
        done += 1
        world = varied_world(f"{base}/{number}", policed="-p" in arguments)
        try:
            run_varied(world, steps)
        except OracleFailed as exc:
            failures += 1
            print(f"world {base}/{number} failed at step {world.steps}: {exc}")
            if "-x" in arguments:
                break
        whole.update(world.digest.encode())
    print(f"{done} worlds, {failures} failed, digest {whole.hexdigest()}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
