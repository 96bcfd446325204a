"""What a client has asked the server and has no answer to: publishes, kept until settled, and requests.

An answer that may be tried again stops the outbox for a while, so that what follows keeps its order. After a
reconnect everything is sent again, in order, with the same keys: no answer is not a failure (PROTOCOL §4).
"""

from __future__ import annotations

from ..codes import CLOSE_SERVER_FAULT, CLOSE_TOO_BIG, INTERNAL, PROTOCOL_ERROR, TOO_LARGE
from ..errors import LocalError
from ..wire.envelope import Incoming, client_message
from ..wire.payloads import AckPayload, ErrorPayload, decode_payload
from .config import ClientConfig
from .link import FAR, Link
from .records import ClientCancel, ClientPublish, ClientRequest, PublishSettled, RequestSettled

__all__ = ["ClientOutbox"]

_MID_MAX = 128
"""Characters of an idempotency key (PROTOCOL §1)."""


class _Item:
    """One message that waits for its answer."""

    __slots__ = ("in_flight", "mid", "ref", "request", "strikes", "strikes_at", "text")

    def __init__(self, request: int, ref: str, text: bytes, mid: str | None) -> None:
        self.request: int = request
        self.ref: str = ref
        self.text: bytes = text
        self.mid: str | None = mid
        """The key of a publish; None: it is a request."""
        self.in_flight: bool = False
        self.strikes: int = 0
        self.strikes_at: int = 0
        """The outbox's `progress` at the last strike."""


class ClientOutbox:
    """Publishes and requests in the order they were asked, bounded in count and bytes."""

    def __init__(self, link: Link, config: ClientConfig) -> None:
        self._link = link
        self._config = config
        self._items: dict[str, _Item] = {}
        self._held = 0
        """Items not in flight."""
        self._bytes = 0
        self._mids = 0
        self._progress = 0
        self._retries = 0
        self._nonce = link.chance.secret("mid", 8)
        self.publishes: int = 0
        self.message_bytes_max: int = 0
        """The server's limit; 0: not told yet."""
        self.retry_at: float = FAR

    @property
    def awaited(self) -> bool:
        """Whether an answer is on its way."""
        return len(self._items) > self._held

    # ---- the application ------------------------------------------------------------------------

    def publish(self, ask: ClientPublish) -> None:
        """Takes a publish and sends it where possible. Raises: `LocalError` for a bad or one too many."""
        config = self._config
        if not ask.type or ask.type.startswith("$"):
            raise LocalError(f"type must be non-empty and not start with '$', got {ask.type!r:.80}")
        if ask.mid is not None and not 1 <= len(ask.mid) <= _MID_MAX:
            raise LocalError(f"mid must have 1 to {_MID_MAX} characters, got {len(ask.mid)}")
        ref = f"~p{ask.request}"
        mid = ask.mid if ask.mid is not None else f"m:{self._nonce}:{self._mids + 1}"
        text = client_message(ask.type, ask.payload, ref=ref, room=ask.room, mid=mid, kind=ask.kind)
        self._check_new(ref)
        if self.publishes >= config.publishes_max:
            raise LocalError(f"{self.publishes} publishes have no answer, at most {config.publishes_max} may")
        if self._bytes + len(text) > config.publish_bytes_max:
            raise LocalError(f"publishes without an answer must fit into {config.publish_bytes_max} bytes")
        self._mids += ask.mid is None
        self.publishes += 1
        self._bytes += len(text)
        self._add(_Item(ask.request, ref, text, mid))

    def request(self, ask: ClientRequest) -> None:
        """Takes a request and sends it where possible. Raises: `LocalError` for a bad or one too many."""
        ref = f"~q{ask.request}"
        text = client_message(ask.type, ask.payload, ref=ref, room=ask.room)
        self._check_new(ref)
        if len(self._items) - self.publishes >= self._config.requests_max:
            raise LocalError(f"{self._config.requests_max} requests have no answer, no more may be asked")
        self._add(_Item(ask.request, ref, text, None))

    def cancel(self, ask: ClientCancel) -> None:
        """Forgets a request."""
        item = self._items.get(f"~q{ask.request}")
        if item is not None:
            self._remove(item)

    def _check_new(self, ref: str) -> None:
        if ref in self._items:
            raise LocalError(f"request numbers must be new, got {ref[2:]} again")

    def _add(self, item: _Item) -> None:
        self._items[item.ref] = item
        self._held += 1
        if self._link.is_open and self.retry_at == FAR:
            self._transmit(item)  # Nothing older is held: that was sent when the link opened or the pause ended.

    # ---- the connection -------------------------------------------------------------------------

    def opened(self, message_bytes_max: int) -> None:
        """Sends everything again on a new connection."""
        self.message_bytes_max = message_bytes_max
        self.retry_at = FAR
        self._flush()

    def lost(self, code: int) -> None:
        """Takes note that the connection ended; `code` is the server's close code."""
        self.retry_at = FAR
        first = next((item for item in self._items.values() if item.in_flight), None)
        for item in self._items.values():
            item.in_flight = False
        self._held = len(self._items)
        # The server handles messages in order, so the oldest without an answer is the one it choked on.
        if first is not None and code in (CLOSE_TOO_BIG, CLOSE_SERVER_FAULT) and self._strike(first):
            name = TOO_LARGE if code == CLOSE_TOO_BIG else INTERNAL
            self._fail(first, name, f"{first.strikes} times the server closed with {code}", retry=False)

    def stopped(self) -> None:
        """Settles all that is left: the client ends."""
        for item in tuple(self._items.values()):
            message = "the client stopped before the answer: it may or may not have been stored"
            self._fail(item, "closed", message if item.mid is not None else "the client stopped", retry=True)

    def due(self) -> None:
        """Goes on after a pause."""
        if self._link.now >= self.retry_at:
            self.retry_at = FAR
            self._flush()

    def _flush(self) -> None:
        for item in tuple(self._items.values()):
            if not item.in_flight:
                self._transmit(item)

    def _transmit(self, item: _Item) -> None:
        most = self.message_bytes_max
        if most and len(item.text) > most:
            self._fail(item, TOO_LARGE, f"the message has {len(item.text)} bytes, the server takes {most}", retry=False)
            return
        item.in_flight = True
        self._held -= 1
        self._link.send(item.text)

    # ---- answers --------------------------------------------------------------------------------

    def answer(self, message: Incoming) -> bool:
        """Takes an answer, `$err` excepted; False where nothing asked for it."""
        item = self._items.get(message.ref or "")
        if item is None or not item.in_flight:
            return False
        if item.mid is None:
            self._remove(item)
            self._link.tell(RequestSettled(item.request, True, message.type, bytes(message.payload)))
        elif message.type == "$ack":
            ack = decode_payload(AckPayload, message.payload)
            self._progress += 1
            self._retries = 0
            self._remove(item)
            self._link.progress()
            told = PublishSettled(item.request, True, item.mid, ack.ep or "", ack.off or 0, ack.id or "", ack.dup)
            self._link.tell(told)
        else:
            self._link.blame(PROTOCOL_ERROR, f"a publish was answered with {message.type!r:.80}")
        return True

    def refused(self, ref: str | None, error: ErrorPayload) -> bool:
        """Takes an `$err`; False where nothing of ours has this ref."""
        item = self._items.get(ref or "")
        if item is None or not item.in_flight:
            return False
        if item.mid is None or not error.retry or (error.code == INTERNAL and self._strike(item)):
            self._fail(item, error.code, error.msg, error.retry)
            return True
        item.in_flight = False
        self._held += 1
        if self.retry_at == FAR:  # Each of many that were refused together is the same one failure.
            self._retries += 1
        config = self._config
        delay = self._link.chance.backoff(self._retries - 1, config.backoff_min_s, config.backoff_max_s)
        if error.after_ms is not None:
            # The time told is the least; what is added keeps many clients from coming back at once.
            delay += min(error.after_ms / 1000, config.reconnect_told_max_s)
        at = self._link.now + delay
        self.retry_at = at if self.retry_at == FAR else max(self.retry_at, at)
        return True

    def _strike(self, item: _Item) -> bool:
        """Counts a failure without other progress; True where it was the last one allowed."""
        if item.strikes_at != self._progress:
            item.strikes = 0
        item.strikes_at = self._progress
        item.strikes += 1
        return item.strikes >= self._config.strikes_max

    def _fail(self, item: _Item, code: str, message: str, retry: bool) -> None:
        self._remove(item)
        if item.mid is None:
            self._link.tell(RequestSettled(item.request, False, code=code, message=message, retry=retry))
        else:
            self._link.tell(PublishSettled(item.request, False, item.mid, code=code, message=message))

    def _remove(self, item: _Item) -> None:
        del self._items[item.ref]
        self._held -= not item.in_flight
        if item.mid is not None:
            self.publishes -= 1
            self._bytes -= len(item.text)
