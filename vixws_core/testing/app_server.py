"""The server as an application sees it, in a world: the methods of a real one, without sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any, Unpack

from ..app.access import RootRouter
from ..app.app import App
from ..app.commands import Publishing
from ..app.router import Router
from ..app.session import Session
from ..effects import HistoryListed, Published, PublishFailed
from ..errors import LocalError, StoreError
from ..inputs import Since
from ..message import StoredMessage

__all__ = ["Moment", "SimServer"]


class Moment:
    """Something that handlers of a world wait for; each wait ends some steps after `set`."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """It has happened."""
        self._is_set = True

    def wait(self) -> Awaitable[None]:
        """Waits until it has."""
        return _Waited(self)

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set


class _Waited:
    """Looks at a moment, once a step, until it has come."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def __await__(self) -> Generator[None, None, None]:
        while not self._moment.is_set:
            yield


class SimServer(RootRouter):
    """What a world hands to `build`: a router, with the rooms and messages of `vixws_anyio.Server`.

    Handlers may close over it. It is a new one at each start of the world's server, as a new process has one.
    Its methods raise `LocalError` while `build` runs: nothing is served yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.routes: dict[str, tuple[Router, tuple[str, ...]]] = {"/": (self, ()), "/ws": (self, ())}
        self._app: App | None = None

    def carry(self, app: App) -> None:
        """The world's own: from now on its methods act on this application."""
        self._app = app

    @property
    def app(self) -> App:
        """What carries it out. Raises: `LocalError` while nothing is served."""
        if self._app is None:
            raise LocalError("the server does not serve yet: call this in a handler, not while it is built")
        return self._app

    def route(self, path: str, subprotocols: Sequence[str] = ()) -> Router:
        """Opens another path for upgrades, with handlers of its own; `/` and `/ws` name the server's.

        Raises: `LocalError` for a path that is taken or does not begin with `/`.
        """
        if not path.startswith("/") or "?" in path or "#" in path:
            raise LocalError(f"path must begin with '/' and have no query, got {path!r:.80}")
        known = self.routes.get(path)
        if known is not None and (known[0] is not self or known[1]):
            raise LocalError(f"path {path!r:.80} has handlers already")
        router = self if known is not None else Router()
        self.routes[path] = (router, tuple(subprotocols))
        return router

    # ---- rooms and messages ---------------------------------------------------------------------

    def join_room(
        self, session: Session, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0
    ) -> None:
        """Puts `session` into `room`; see `vixws_core.app.App.join_room`."""
        self.app.join_room(session, room, since, last)

    def leave_room(self, session: Session, room: str) -> None:
        """Takes `session` out of `room`; nothing happens where it is not a member."""
        self.app.leave_room(session, room)

    def leave_all_rooms(self, session: Session) -> None:
        """Takes `session` out of all its rooms."""
        self.app.leave_all_rooms(session)

    def broadcast_json(self, type: str, payload: object = None, but: Session | None = None) -> None:
        """Sends one typed message to every open session, except `but`; never stored."""
        self.app.broadcast_json(type, payload, but)

    def broadcast_room_json(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        session: Session | None = None,
        **how: Unpack[Publishing],
    ) -> None:
        """Publishes into `room`: appended to its log, then sent to its members; see `App.broadcast_room_json`."""
        self.app.broadcast_room_json(room, type, payload, session=session, **how)

    async def publish(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        session: Session | None = None,
        **how: Unpack[Publishing],
    ) -> Published:
        """Publishes into `room` and waits until it is stored; see `broadcast_room_json`.

        Raises: `StoreError` where that failed.
        """
        outcomes: list[Published | PublishFailed] = []
        answered, told = Moment(), how.get("done")

        def done(outcome: Published | PublishFailed) -> None:
            outcomes.append(outcome)
            answered.set()
            if told is not None:
                told(outcome)

        how["done"] = done
        self.broadcast_room_json(room, type, payload, session=session, **how)
        await answered.wait()
        outcome = outcomes[0]
        if isinstance(outcome, PublishFailed):
            raise StoreError(outcome.code, outcome.message, retry=outcome.retry, expected=outcome.expected)
        return outcome

    async def history(self, room: str, limit: int = 50, before_id: str | None = None) -> tuple[StoredMessage, ...]:
        """Reads the newest `limit` messages of `room` below the id `before_id`, oldest first.

        Raises: `StoreError` where the store could not.
        """
        answers: list[HistoryListed] = []
        answered = Moment()

        def done(answer: HistoryListed) -> None:
            answers.append(answer)
            answered.set()

        self.app.history(room, limit, before_id, done)
        await answered.wait()
        answer = answers[0]
        if answer.code:
            raise StoreError(answer.code, answer.message)
        return answer.rows

    def revoke(self, user: str, room: str | None = None, *, now: bool = False) -> None:
        """Takes back what the user of that id was granted; see `vixws_core.app.App.revoke`."""
        self.app.revoke(user, room, now=now)

    def members(self, room: str) -> list[Session]:
        """The sessions in `room` now."""
        return self.app.members(room)

    def rooms(self) -> list[str]:
        """Names of the rooms that have members now."""
        return self.app.rooms()

    def sessions(self) -> list[Session]:
        """All open sessions, oldest first."""
        return self.app.sessions()
