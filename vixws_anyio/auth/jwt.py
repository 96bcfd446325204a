"""Users who prove who they are by a JSON Web Token (RFC 7519); needs PyJWT, the extra `vixws[jwt]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vixws_core.app.access import AuthRequest, Denied, User
from vixws_core.errors import LocalError

try:
    import jwt
    from jwt.algorithms import get_default_algorithms
except ImportError:
    raise ImportError("vixws_anyio.auth.jwt needs PyJWT: pip install 'vixws[jwt]'") from None

__all__ = ["jwt_users"]

_SYMMETRIC = ("HS256", "HS384", "HS512")
_BAD_TOKEN = (jwt.PyJWTError, OverflowError, RecursionError)
"""What PyJWT raises for a token: its own exceptions, and those of odd numbers and of JSON nested deeply."""


def jwt_users(
    key: str | bytes | Callable[[str], Any],
    *,
    algorithms: Sequence[str] = ("HS256",),
    audience: str | Sequence[str] | None = None,
    issuer: str | None = None,
    leeway_s: float = 0.0,
    cookie: str | None = None,
    user_claim: str = "sub",
) -> Callable[[AuthRequest], User | None]:
    """Makes a hook for `server.authenticate`: `server.authenticate(jwt_users(SECRET, audience="chat"))`.

    The token is that of the request (`Authorization`, `vixws.bearer.…`), of the cookie named `cookie`, or of `$hello`
    and `$auth`. It must be signed by `key` with one of `algorithms`, have an `exp` that is not over, and name its user
    in `user_claim`; `audience` and `issuer` are checked where they are given, and a token with an audience needs one.
    `key` may be a function that returns the key for a token, such as a `PyJWKClient`'s, which blocks: then register
    the hook with `server.authenticate(thread=True)(jwt_users(…))`. `claims` of the user are the token's, and its end is
    the token's. Without a token at the upgrade the first message has to bring one.
    Raises: `LocalError` for no algorithm, one that is not known (those with public keys need `cryptography`), `none`,
    symmetric and asymmetric ones together, or a symmetric key of under 32 bytes.
    """
    names = tuple(algorithms)
    symmetric = [name for name in names if name in _SYMMETRIC]
    known = get_default_algorithms().keys() - {"none"}
    if isinstance(algorithms, str) or not names or not known.issuperset(names):
        raise LocalError(f"algorithms must be some of {' '.join(sorted(known))}, got {algorithms!r}")
    if symmetric and len(symmetric) != len(names):
        raise LocalError(f"a key is for symmetric or for asymmetric algorithms, not for both: {names!r}")
    if symmetric and not callable(key) and len(key if isinstance(key, bytes) else key.encode()) < 32:
        raise LocalError("a symmetric key must have at least 32 bytes (RFC 7518 §3.2)")

    def who(request: AuthRequest) -> User | None:
        token = request.token
        if not token and cookie is not None and not request.in_message:
            token = request.cookies.get(cookie, "")
        if not token:
            return None
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key(token) if callable(key) else key,
                algorithms=list(names),
                audience=audience,
                issuer=issuer,
                leeway=leeway_s,
                options={"require": ["exp", user_claim]},
            )
        except jwt.PyJWKClientConnectionError:
            raise  # Not the token's fault.
        except jwt.ExpiredSignatureError:
            raise Denied("the token is over") from None
        except _BAD_TOKEN:
            raise Denied("the token is not good") from None
        name = claims[user_claim]
        if not isinstance(name, str):
            raise Denied("the token names no user")
        try:
            return User(name, claims, float(claims["exp"]) + leeway_s)
        except (LocalError, ValueError, TypeError, OverflowError):
            raise Denied("the token names no user") from None

    return who
