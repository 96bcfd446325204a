"""A client's randomness: everything that looks random, from one seed, so that the same inputs give the same effects."""

from __future__ import annotations

from hashlib import blake2b

from ..errors import LocalError

__all__ = ["Chance"]


class Chance:
    """Secrets, nonces, masks and jitter of one client. Raises: `LocalError` for a seed that is not 1 to 64 bytes."""

    __slots__ = ("_counter", "_masks", "_seed")

    def __init__(self, seed: bytes) -> None:
        if not 1 <= len(seed) <= 64:
            raise LocalError(f"seed must have 1 to 64 bytes, got {len(seed)}")
        self._seed = seed
        self._counter = 0
        self._masks = b""

    def secret(self, purpose: str, size: int = 16) -> str:
        """A secret of this client alone, the same at each call, in hexadecimal."""
        return blake2b(purpose.encode(), key=self._seed, digest_size=size, person=b"vixws client").hexdigest()

    def draw(self, size: int) -> bytes:
        """Fresh bytes: the keyed hash of a counter; at most 64."""
        self._counter += 1
        return blake2b(self._counter.to_bytes(8, "big"), key=self._seed, digest_size=size).digest()

    def uniform(self, spread_s: float) -> float:
        """A time between 0 and `spread_s`, every one as likely."""
        return int.from_bytes(self.draw(8), "big") / (1 << 64) * spread_s

    def backoff(self, failures: int, min_s: float, max_s: float) -> float:
        """Full jitter: a time between 0 and `min_s`·2^`failures`, at most `max_s`."""
        return self.uniform(min(max_s, min_s * 2.0 ** min(failures, 30)))

    def mask(self) -> bytes:
        """A fresh masking key (RFC 6455 §5.3: unpredictable to whoever chose the payload)."""
        masks = self._masks or self.draw(64)
        self._masks = masks[4:]
        return masks[:4]
