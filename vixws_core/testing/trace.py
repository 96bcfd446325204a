"""What passed a hub's door: kept, hashed, and replayed into a fresh hub."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from ..config import HubConfig, Policy
from ..effects import Effect
from ..hub import Hub
from ..inputs import Input
from .oracle import check

__all__ = ["Trace", "encode_step"]

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def encode_step(now: float, input: Input, effects: Sequence[Effect]) -> bytes:
    """The bytes of one step; equal steps have equal bytes, in any process."""
    told = [(type(effect).__name__, effect) for effect in effects]
    return _ENCODER.encode((now, type(input).__name__, input, told))


class Trace:
    """A consumer that keeps every step of one hub: `steps` are `(now, input)` and what `handle` returned for it."""

    def __init__(self, config: HubConfig, seed: bytes, policy: Policy | None = None) -> None:
        self.policy: Policy | None = policy
        self.config: HubConfig = config
        self.seed: bytes = seed
        self.steps: list[tuple[float, Input, list[Effect]]] = []
        self._hash = blake2b(digest_size=16)

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Keeps one step."""
        self.steps.append((now, input, list(effects)))
        self._hash.update(encode_step(now, input, effects))

    @property
    def digest(self) -> str:
        """A hash over all steps so far."""
        return self._hash.hexdigest()

    def replay(self) -> None:
        """Hands the inputs to a fresh hub. Raises: `OracleFailed` where one of its answers differs."""
        hub = Hub(self.config, seed=self.seed, policy=self.policy)
        for at, (now, input, effects) in enumerate(self.steps):
            again = hub.handle(input, now)
            check(again == effects, f"step {at} is replayed with other effects: {input!r:.200}: {again!r:.300}")
