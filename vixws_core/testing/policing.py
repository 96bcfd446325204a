"""Worlds with rules: who may do what changes all the time, and an oracle that nothing is told without a grant.

PROTOCOL §13: 6, no byte of a room after `$kicked`; 14, without a grant a client sees nothing that depends on the room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..app.access import AuthRequest, Denied, Grant, RootRouter, User
from ..app.app import App
from ..effects import Authenticate, Authorize, Broadcast, Effect, SendBytes, StoreAppend
from ..inputs import Accept, Authenticated, Authorized, Input, Join, Publish, Revoke, TimePassed
from ..names import user_room
from .decoding import Heard, frames_of
from .oracle import check
from .streams import Chance

__all__ = ["GrantOracle", "Policing", "token_of"]

_FAR = float("inf")
_CLAIMED = frozenset(("$err", "$left"))
"""Answers that name a room because whoever asked did."""


def token_of(index: int) -> str:
    """What the client of that number shows."""
    return f"token of user{index}"


class Policing:
    """The rules of a world: per user and room everything is allowed or nothing, and that changes."""

    def __init__(self, chance: Chance, clock: Callable[[], float]) -> None:
        self._chance = chance
        self._clock = clock
        self._denied: set[tuple[str, str]] = set()
        self.calm: bool = False
        """Everything is allowed, for good: a world that settles waits for that."""

    def register(self, router: RootRouter) -> None:
        """Registers the two hooks, one of them now and then slow."""

        @router.authenticate
        def who(request: AuthRequest) -> User | None:
            if not request.in_message:
                return None
            if not request.token.startswith("token of "):
                raise Denied
            return User(request.token.removeprefix("token of "))

        @router.authorize
        async def may(user: User, action: str, room: str) -> Grant | None:
            allowed = (user.id, room) not in self._denied or self.calm
            if not allowed:
                return None
            stream = self._chance.of("may")
            if self.calm or stream.random() < 0.5:
                return Grant()
            return Grant("join", "read", "publish", until=self._clock() + 3.0 * stream.random())

    def act(self, app: App, users: Sequence[str], rooms: Sequence[str]) -> None:
        """Now and then changes a rule; mostly it is then revoked, else it holds from the next question on."""
        stream = self._chance.of("rules")
        if self.calm or stream.random() >= 0.05:
            return
        user, room = stream.choice(users), stream.choice(rooms)
        self._denied ^= {(user, room)}
        choice = stream.random()
        if choice < 0.5:
            app.revoke(user, room)
        elif choice < 0.6:
            app.revoke(user)
        elif choice < 0.65:
            app.revoke(user, room, now=True)


class GrantOracle:
    """A consumer that knows what was granted to whom, and judges all that is put out and stored."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._proofs: dict[int, int] = {}
        self._asked: dict[int, tuple[Authorize, int]] = {}
        self._revision: dict[str, int] = {}
        self._grants: dict[tuple[int, str, str], float] = {}
        self._kicked: set[tuple[int, str]] = set()
        """Who was put out of which room, and was granted nothing in it since."""
        self._passed = 0.0
        """The time up to which ends were acted on, by the steps before this one."""
        self._asked_again: set[tuple[int, str, str]] = set()
        """What ended in this step, and was asked for again in it."""
        self.counts: dict[str, int] = {}
        """What was judged: messages of rooms, pages, kicks, denials, stored publishes."""

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Judges one step. Raises: `OracleFailed`."""
        self._note(now, input)
        for effect in effects:
            if isinstance(effect, Authorize):
                user = self._users.get(effect.conn, "")
                self._asked[effect.request] = effect, self._revision.get(user, 0)
                self._ask_again(now, (effect.conn, effect.room, effect.action))
            elif isinstance(effect, Authenticate):
                self._proofs[effect.request] = effect.conn
            elif isinstance(effect, SendBytes):
                self._put(effect.conn, effect.data)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    self._put(conn, effect.data)
            elif isinstance(effect, StoreAppend) and not isinstance(input, Publish):
                self._stored(effect)
        self._asked_again.clear()
        if isinstance(input, TimePassed):
            # What was due came in its order: one whose turn was before another's end is still told to that other.
            self._passed = now

    def _ask_again(self, now: float, key: tuple[int, str, str]) -> None:
        if self._grants.get(key, _FAR) <= now:
            self._asked_again.add(key)

    def _note(self, now: float, input: Input) -> None:
        if isinstance(input, Accept) and input.user is not None:
            self._users[input.conn] = input.user
        elif isinstance(input, Authenticated) and input.user is not None:
            self._users[self._proofs[input.request]] = input.user
        elif isinstance(input, Join):
            self._grants[input.conn, input.room, "join"] = _FAR
            self._kicked.discard((input.conn, input.room))
        elif isinstance(input, Revoke):
            self._revision[input.user] = self._revision.get(input.user, 0) + 1
            for conn, room, action in tuple(self._grants):
                if self._users.get(conn) == input.user and input.room in (None, room):
                    del self._grants[conn, room, action]
        elif isinstance(input, Authorized):
            self._decided(now, input)

    def _decided(self, now: float, input: Authorized) -> None:
        asked, revision = self._asked.pop(input.request)
        if revision != self._revision.get(self._users.get(asked.conn, ""), 0):
            return
        until = _FAR if input.expires_in_s is None else now + input.expires_in_s
        for action in input.actions:
            self._grants[asked.conn, asked.room, action] = until
        if asked.action not in input.actions:
            self._count("refused")
            self._grants.pop((asked.conn, asked.room, asked.action), None)
        else:
            self._kicked.discard((asked.conn, asked.room))

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _may(self, conn: int, room: str, action: str) -> bool:
        if room.startswith("@") and action != "publish":
            return room == user_room(self._users.get(conn, ""))
        key = (conn, room, action)
        return key not in self._asked_again and self._grants.get(key, -_FAR) > self._passed

    def _put(self, conn: int, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            return
        for heard in frames_of(data):
            if heard.room is not None:
                self._told(conn, heard.room, heard)

    def _told(self, conn: int, room: str, heard: Heard) -> None:
        kind = heard.type
        if kind == "$kicked":
            self._count("kicked")
            self._kicked.add((conn, room))
            self._grants.pop((conn, room, "join"), None)
            return
        if kind in _CLAIMED:
            return
        check((conn, room) not in self._kicked, f"connection {conn} is told {heard!r:.200} of {room!r} behind $kicked")
        if kind == "$ack":
            return
        action = "read" if kind in ("$page", "$position") else "join"
        self._count(kind if kind.startswith("$") else "message")
        check(self._may(conn, room, action), f"connection {conn} is told {heard!r:.200} without the grant to {action}")

    def _stored(self, effect: StoreAppend) -> None:
        conns = [conn for conn, user in self._users.items() if user == effect.sender]
        may = any(self._may(conn, effect.room, "publish") for conn in conns)
        self._count("stored")
        check(may, f"{effect!r:.200} is stored without a grant")
