"""The answer that a direct caller waits for."""

from __future__ import annotations

from typing import Any

import anyio

from vixws_core.errors import StoreError

__all__ = ["Answer"]


class Answer:
    """A place where one caller waits for its result, which is given once."""

    __slots__ = ("_error", "_event", "_value")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._error: StoreError | None = None
        self._value: Any = None

    def give(self, value: Any) -> None:
        """Hands over the result."""
        self._value = value
        self._event.set()

    def fail(self, error: StoreError) -> None:
        """Hands over a failure."""
        self._error = error
        self._event.set()

    async def wait(self) -> Any:
        """The result. Cancelling the wait does not take the request back.

        Raises: a `StoreError` like the one given.
        """
        await self._event.wait()
        if self._error is not None:
            raise StoreError(self._error.code, str(self._error), retry=self._error.retry, expected=self._error.expected)
        return self._value
