"""One open WebSocket as the application sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..codes import CLOSE_NORMAL
from ..inputs import Close, Send, Since

if TYPE_CHECKING:
    from ..effects import Published, PublishFailed
    from . import App
    from .router import Router

__all__ = ["Session"]


class Session:
    """One WebSocket, from `on_open` to `on_close`. Created by the server only.

    `id` is its number, never used twice. `target` is the path with its query as requested; `headers` are the
    request's, names in lower case; `peer` is the address, for logs. `is_open` is False as soon as a close is
    begun by either side; `close_code` and `close_reason` are set before `on_close`.
    """

    __slots__ = (
        "_data",
        "app",
        "busy",
        "close_code",
        "close_reason",
        "headers",
        "id",
        "is_open",
        "over",
        "owes",
        "peer",
        "router",
        "subprotocol",
        "target",
    )

    def __init__(
        self, app: App, id: int, peer: str, target: str, headers: tuple[tuple[str, str], ...], router: Router
    ) -> None:
        self.app = app
        self.id = id
        self.peer = peer
        self.target = target
        self.headers = headers
        self.router = router
        self.subprotocol: str | None = None
        self.is_open = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.busy = False
        """Whether one of its handlers is running; the dispatcher's own."""
        self.over = False
        """Whether its end was told while a handler was running; the dispatcher's own."""
        self.owes: str | None = None
        """The `ref` of the message being handled, until it is answered; the dispatcher's own."""
        self._data: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.path!r:.80} {'open' if self.is_open else 'closed'}>"

    @property
    def data(self) -> dict[str, Any]:
        """The application's own notes on this session; empty at first."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def path(self) -> str:
        """The requested path, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the `?` of the request, as sent; see `urllib.parse.parse_qs`."""
        return self.target.partition("?")[2]

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms it is in now."""
        return self.app.rooms_of(self)

    def send_text(self, text: str) -> bool:
        """Sends one text message. False where the connection is gone or takes no more; then nothing is sent.

        Raises: `LocalError` for text that UTF-8 cannot hold (lone surrogates).
        """
        return self.app.send(Send(self.id, self.app.encode_text(text)))

    def send_binary(self, data: bytes | bytearray | memoryview) -> bool:
        """Sends one binary message. False where the connection is gone or takes no more."""
        return self.app.send(Send(self.id, bytes(data), True))

    def send_json(self, type: str, payload: object = None, *, ref: str | None = None) -> bool:
        """Sends `{"type", "payload"}`; `payload` is an object or flat pairs, `["text", "Hi"]`.

        `ref` echoes the request that this answers, which a connection takes even while it takes no more of
        others. False where the connection is gone or takes no more.
        Raises: `LocalError` for an empty type or a payload that JSON cannot hold.
        """
        sent = self.app.send(Send(self.id, self.app.encode_envelope(type, payload, ref), answer=ref is not None))
        if ref is not None:
            self.answer_later(ref)
        return sent

    def answer_later(self, ref: str | None) -> None:
        """Takes over the answer to the message `ref`: none is sent when its handler returns.

        Whoever calls this sends exactly one, with `send_json(…, ref=ref)`. For handlers whose answer comes from
        a callback or a task; any other message with a `ref` gets `$ack` when its handler returns without one.
        """
        if ref == self.owes:
            self.owes = None

    def refuse(self, ref: str, code: str, message: str) -> None:
        """Answers the message `ref` with `$err`; for handlers that answer later, where others raise `Refused`."""
        self.app.refuse(self, ref, code, message)
        self.answer_later(ref)

    def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Starts the closing handshake after what was sent before; a second call does nothing.

        Raises: `LocalError` for a code an endpoint may not send (RFC 6455 §7.4) or a reason over 123 bytes.
        """
        self.app.close(self, Close(self.id, code, reason))

    def join(self, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0) -> None:
        """Joins `room`; see `App.join_room`."""
        self.app.join_room(self, room, since, last)

    def leave(self, room: str) -> None:
        """Leaves `room`; nothing happens where it is not a member."""
        self.app.leave_room(self, room)

    def publish(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        store: bool = True,
        kind: str = "event",
        mid: str | None = None,
        ref: str | None = None,
        done: Callable[[Published | PublishFailed], object] | None = None,
    ) -> None:
        """Publishes into `room` in the name of this session; see `App.broadcast_room_json`."""
        self.app.broadcast_room_json(
            room, type, payload, store=store, kind=kind, mid=mid, session=self, ref=ref, done=done
        )
