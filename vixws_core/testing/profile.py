"""How a client of a world comes: what its request shows, and who it is."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ..app.access import AuthRequest, RootRouter, User
from ..app.router import Handler

__all__ = ["Profile", "know_users", "profiles_of"]

_HOST = "sim"
"""The name of a world's server."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one client shows when it connects, each time anew.

    With `user` the world says who it is, as a good token would: by the same hooks and effects as on a server, at the
    upgrade or (`in_hello`) with its first message. Without, the application's own `authenticate` judges what it shows.
    """

    user: str | None = None
    """The id of the user that it is."""
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is known of that user besides: `User.claims`."""
    token: str | None = None
    """A token for the application's own `authenticate`."""
    in_hello: bool = False
    """The token is shown in `$hello`, not at the upgrade."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    cookies: Mapping[str, str] = field(default_factory=dict[str, str])
    """They come with an `Origin`, without which cookies prove nothing."""
    origin: str | None = None
    """The page that it comes from; without one and with cookies it is a page of the server's own."""
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    subprotocols: tuple[str, ...] = ()
    hello: bool = True
    """Whether it speaks the protocol; False: it sends and hears the application's messages alone."""

    @property
    def url(self) -> str:
        """Where it connects to."""
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"ws://{_HOST}{self.path}{query}"

    @property
    def shown(self) -> str | None:
        """The token that it shows, its own or the one that stands for its `user`."""
        return self.token if self.user is None else _token_of(self.user)

    @property
    def request_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of its request, the handshake's own left out."""
        found = [(name, value) for name, value in self.headers.items()]
        if self.cookies:
            found.append(("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        origin = self.origin or (f"http://{_HOST}" if self.cookies else None)
        if origin is not None:
            found.append(("Origin", origin))
        if self.shown is not None and not self.in_hello:
            found.append(("Authorization", f"Bearer {self.shown}"))
        return tuple(found)


def _token_of(user: str) -> str:
    return "world." + urlsafe_b64encode(user.encode()).decode().rstrip("=")


def profiles_of(clients: int | Sequence[Profile], token_of: Callable[[int], str] | None = None) -> tuple[Profile, ...]:
    """One profile for each client; those of a number of clients show what `token_of` gives, in `$hello`."""
    if not isinstance(clients, int):
        return tuple(clients)
    return tuple(Profile() if token_of is None else Profile(token=token_of(at), in_hello=True) for at in range(clients))


def know_users(router: RootRouter, profiles: tuple[Profile, ...]) -> None:
    """Lets the users among `profiles` be known by their tokens; of everybody else the router's own hook judges."""
    users = {_token_of(one.user): User(one.user, one.claims) for one in profiles if one.user is not None}
    if not users:
        return
    own = router.authenticator
    if own is not None and own.is_async:
        function = own.function

        async def who_in_time(request: AuthRequest) -> User | None:
            known = users.get(request.token)
            if known is not None:
                return known
            found: User | None = await function(request)
            return found

        router.authenticator = Handler(who_in_time)
        router.authenticator.name = own.name
        return

    def who(request: AuthRequest) -> User | None:
        known = users.get(request.token)
        if known is not None or own is None:
            return known
        found: User | None = own.function(request)
        return found

    router.authenticator = Handler(who, thread=own is not None and own.thread)
    if own is not None:
        router.authenticator.name = own.name
