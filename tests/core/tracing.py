"""What the tests of traces share: steps written as a server writes them, read back, replayed, and asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tests.core.harness import Harness
from vixws_core.config import HubConfig, Policy
from vixws_core.trace.explaining import Explainer
from vixws_core.trace.lines import Head, encode_batch, encode_head, outcome_of, read_head, read_lines
from vixws_core.trace.replaying import Replay

__all__ = ["explain", "head_of", "lines_of", "replay", "written"]


def head_of(config: HubConfig | None = None, seed: bytes = b"\0", policy: Policy | None = None, **more: Any) -> Head:
    """The head of a trace of a hub that is made so."""
    known: dict[str, Any] = {
        "version": "1",
        "python": "3",
        "zlib": "1",
        "run": "r",
        "first": 0,
        "clock": 0.0,
        "wall": 0.0,
    }
    return Head(**known | {"hub": config or HubConfig(), "policy": policy or Policy(), "seed": seed} | more)


def written(head: Head, steps: Sequence[tuple[float, Any, Any]], batch: int = 64) -> bytes:
    """A trace of steps; the third part of one is its effects, or the name of what was raised."""
    data = encode_head(head)
    for start in range(0, len(steps), batch):
        part = steps[start : start + batch]
        outcomes = [out if isinstance(out, str) else outcome_of(list(out)) for _, _, out in part]
        lines = [
            (now, type(input).__name__, input, out) if isinstance(out, str) else (now, type(input).__name__, input)
            for now, input, out in part
        ]
        data += encode_batch(lines, outcomes)
    return data


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a file."""
    return data.splitlines(keepends=True)


def replay(data: bytes | Iterable[bytes]) -> Replay:
    """Replays a trace to its end."""
    lines = lines_of(data) if isinstance(data, bytes) else list(data)
    found = Replay(read_head(lines[0]))
    for _ in found.run(read_lines(lines[1:])):
        pass
    return found


def explain(harness: Harness, conn: int, room: str, off: int, policy: Policy | None = None, **more: Any) -> list[str]:
    """What a trace of all that a harness did says of a message; the trace must replay bit for bit."""
    head = head_of(harness.hub.config, policy=policy, **more)
    lines = lines_of(written(head, harness.steps))
    found, explainer = Replay(read_head(lines[0])), Explainer(head, conn, room, off)
    for step in found.run(read_lines(lines[1:])):
        explainer.see(step, found.hub)
    assert found.difference is None
    assert found.unchecked == 0
    return explainer.answer()
