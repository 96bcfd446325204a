"""Twenty-four simulated worlds, byte for byte as recorded: a change of the inside changes nothing that passes the door.

A change that is meant to be seen renews the file, in a commit of its own that says so:
`python -m tests.core.test_digests`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vixws_core.testing import run_varied, varied_world

FILE = Path(__file__).with_name("worlds.txt")
WORLDS = 24
STEPS = 400


def digest(name: str) -> str:
    """All inputs, effects and times of one world, as one hash."""
    world = varied_world(name)
    run_varied(world, STEPS)
    return world.digest


def recorded() -> dict[str, str]:
    """The digests on file, by the world's seed."""
    return dict(line.split() for line in FILE.read_text().splitlines())


@pytest.mark.parametrize("name", [f"house/{number}" for number in range(WORLDS)])
def test_worlds_are_bit_for_bit_as_recorded(name: str) -> None:
    assert digest(name) == recorded()[name]


if __name__ == "__main__":
    FILE.write_text("".join(f"house/{number} {digest(f'house/{number}')}\n" for number in range(WORLDS)))
