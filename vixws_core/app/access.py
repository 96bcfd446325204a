"""Who somebody is, and what they may do: the two hooks of an application, and what they are given and return."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, overload
from urllib.parse import parse_qs

import msgspec

from ..config import Policy
from ..errors import LocalError
from ..names import ACTIONS, check_name, user_room
from .router import Handler, Router

__all__ = ["BEARER", "AuthRequest", "Denied", "Grant", "RootRouter", "User", "credentials", "without_cookies"]

Function = TypeVar("Function", bound=Callable[..., object])

BEARER: Final = "vixws.bearer."
"""What a subprotocol begins with that carries a token: browsers cannot set headers (PROTOCOL §2)."""

_DENIALS: Final = (401, 403)


def _pairs(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Headers of an answer. Raises: `LocalError` for one that is no text."""
    pairs = tuple((headers or {}).items())
    for name, value in pairs:
        if not (isinstance(name, str) and isinstance(value, str)):  # pyright: ignore[reportUnnecessaryIsInstance] — callers may not be typed
            raise LocalError(f"a header's name and value must be strings, got {name!r:.60}: {value!r:.60}")
    return pairs


class Denied(Exception):
    """Raised by `authenticate`: this is nobody we know. `message` is shown to the peer.

    At the upgrade the answer is `status`, 401 or 403, with `headers`; for a token in `$hello` the close is 4001.
    Raises: `LocalError` for another status, or a header that is no text.
    """

    def __init__(
        self, message: str = "who you are was not proved", status: int = 401, headers: Mapping[str, str] | None = None
    ) -> None:
        if status not in _DENIALS:
            raise LocalError(f"the status of a denial must be one of {_DENIALS}, got {status!r}")
        super().__init__(message)
        self.status: int = status
        self.headers: tuple[tuple[str, str], ...] = _pairs(headers)


class User:
    """Somebody who proved who they are.

    `id` names them to others, as `from` of their messages, and names their own room, `@user/<id>`: 1 to 122 bytes of
    visible text. `claims` is what the application knows besides, for `authorize` and its handlers. `expires`, in Unix
    seconds, ends it: the client is asked for another proof before, and closed with 4101 without one; a time that is
    over proves nothing. `headers` are added to the answer of the upgrade, a `set-cookie` perhaps.
    Raises: `LocalError` for an id that cannot be one, or a header that is no text.
    """

    __slots__ = ("claims", "expires", "headers", "id")

    def __init__(
        self,
        id: str,
        claims: Mapping[str, Any] | None = None,
        expires: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance] — ids come from tokens and databases
            raise LocalError(f"the id of a user must be a string, got {id!r:.60}")
        check_name(user_room(id))
        if expires is not None and not math.isfinite(expires):
            raise LocalError(f"expires must be Unix seconds or None, got {expires!r}")
        self.id: str = id
        self.claims: Mapping[str, Any] = {} if claims is None else claims
        self.expires: float | None = expires
        self.headers: tuple[tuple[str, str], ...] = _pairs(headers)

    def __repr__(self) -> str:
        return f"<User {self.id!r:.140}>"


class Grant:
    """What `authorize` grants in one room: these actions, or without any the one that it was asked for.

    `until`, in Unix seconds, ends it: whoever is in the room then is asked for again. Until then the answer is kept,
    for each connection, and not asked for again; `server.revoke` ends it at once.
    Raises: `LocalError` for an action that is none of `join read publish presence`.
    """

    __slots__ = ("actions", "until")

    def __init__(self, *actions: str, until: float | None = None) -> None:
        for action in actions:
            if action not in ACTIONS:
                raise LocalError(f"an action must be one of {' '.join(ACTIONS)}, got {action!r:.60}")
        if until is not None and not math.isfinite(until):
            raise LocalError(f"until must be Unix seconds or None, got {until!r}")
        self.actions: tuple[str, ...] = actions
        self.until: float | None = until

    def __repr__(self) -> str:
        return f"<Grant {' '.join(self.actions) or 'what was asked'}>"


class AuthRequest(msgspec.Struct, frozen=True):
    """What `authenticate` gets: the request of the upgrade, and the token that came with it, or later.

    `token` is that of `Authorization: Bearer …`, of a subprotocol `vixws.bearer.…`, or of `$hello` and `$auth`; ""
    where there is none. `in_message`: it came in a message, behind an open handshake. `cookies` is empty unless the
    request came from an allowed origin: a request without one could be anybody's.
    """

    target: str
    headers: tuple[tuple[str, str], ...]
    subprotocols: tuple[str, ...] = ()
    peer: str = ""
    token: str = ""
    in_message: bool = False
    cookies: Mapping[str, str] = {}

    def __repr__(self) -> str:
        # Neither token, query, headers nor cookies: what a program logs must be no key to anything.
        return f"<AuthRequest {self.path!r:.80} from {self.peer!r:.60}>"

    @property
    def path(self) -> str:
        """The requested path, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """What stands behind the `?`, decoded."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def header(self, name: str) -> str:
        """The first header of that name; "" where there is none."""
        return next((value for found, value in self.headers if found == name.lower()), "")


def credentials(
    target: str,
    headers: tuple[tuple[str, str], ...],
    subprotocols: tuple[str, ...],
    peer: str,
    cookies_count: bool,
) -> AuthRequest:
    """What an upgrade shows of who asks for it."""
    token = ""
    proofs = [value for name, value in headers if name == "authorization"]
    if len(proofs) == 1:  # Of two a proxy in front of us may have looked at the other one.
        scheme, _, rest = proofs[0].partition(" ")
        if scheme.lower() == "bearer":
            token = rest.strip()
    for offered in subprotocols:
        if not token and offered.startswith(BEARER):
            token = offered.removeprefix(BEARER)
    cookies: dict[str, str] = {}
    if cookies_count:
        for name, value in headers:
            if name == "cookie":
                cookies = _cookies(value) | cookies
    shown = headers if cookies_count else without_cookies(headers)
    return AuthRequest(target, shown, subprotocols, peer, token, False, cookies)


def without_cookies(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Headers without the cookies, which prove nothing where the page that sent them is not known."""
    return tuple(header for header in headers if header[0] != "cookie")


def _cookies(text: str) -> dict[str, str]:
    """The cookies of one header, each by itself (RFC 6265 §5.4): others of the same host may set odd ones.

    Of two with one name the first counts: its path fits the request better.
    """
    found: dict[str, str] = {}
    for pair in text.split(";"):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        if equals and name and name not in found:
            found[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return found


class RootRouter(Router):
    """The router of `/` and `/ws`, with the two hooks that hold for all routes of a server."""

    def __init__(self) -> None:
        super().__init__()
        self.authenticator: Handler | None = None
        self.authorizer: Handler | None = None

    @overload
    def authenticate(self, function: Function, /) -> Function: ...
    @overload
    def authenticate(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def authenticate(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `hook(request) -> User | None`, asked at every upgrade, on every route.

        It returns who that is, raises `Denied`, or returns None where the upgrade does not tell: then the client's
        first message must be a `$hello` with a token, for which it is asked again (`request.in_message`), and None
        is a denial. An exception is a 500, and taking longer than 5 s (`authDeadline`) a 503; neither is a pass.
        """
        return self._decorate("authenticator", function, thread)

    @overload
    def authorize(self, function: Function, /) -> Function: ...
    @overload
    def authorize(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def authorize(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `hook(user, action, room) -> Grant | None`, asked before anybody does something in a room.

        `action` is `join` (get what is published), `read` (get what was published before: history, positions, replay),
        `publish` or `presence`. `user` is None where nobody has to prove who they are. None refuses; so does an
        exception. Everybody's own room, `@user/<id>`, is theirs to join and read without asking.
        """
        return self._decorate("authorizer", function, thread)

    def policy(self, access: str | None = None) -> Policy:
        """What the hub is to obey: the hooks that are registered, and `access`, which None leaves to them."""
        authorized = self.authorizer is not None
        return Policy(
            authenticated=self.authenticator is not None,
            authorized=authorized,
            access=access or ("closed" if authorized else "open"),
        )
