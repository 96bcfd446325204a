"""Users by JSON Web Tokens: what is let in, as whom and until when; and everything that is no good token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from vixws_anyio import AuthRequest, Client, Denied, Server, User
from vixws_anyio.auth.jwt import jwt_users
from vixws_core.errors import LocalError

from .rig import connected, http, limited, request, running

SECRET = "a secret of the tests, 32 bytes long or more"
OTHER = "another secret of the tests, also long enough"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def token_of(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token of ada's that is good for a minute, with these claims besides or instead; None leaves one out."""
    found = {"sub": "ada", "exp": int(time.time()) + 60} | claims
    return jwt.encode({name: value for name, value in found.items() if value is not None}, key, algorithm)


def raw_token(head: object, body: object, secret: bytes | None = None) -> str:
    """A token put together by hand, as no library would; signed by HMAC-SHA256, or not at all."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    texts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in (head, body)]
    signed = b".".join(map(part, texts))
    signature = b"" if secret is None else hmac.digest(secret, signed, hashlib.sha256)
    return b".".join((signed, part(signature))).decode()


def show(token: str, **more: Any) -> AuthRequest:
    return AuthRequest("/", (), token=token, **more)


CLAIMS = {"sub": "ada", "exp": int(time.time()) + 3600}


# ---- what is let in -----------------------------------------------------------------------------


def test_a_good_token_names_its_user_and_says_until_when() -> None:
    ends = int(time.time()) + 60

    user = jwt_users(SECRET)(show(token_of(exp=ends, role="agent")))

    assert user is not None and (user.id, user.expires) == ("ada", float(ends))
    assert user.claims["role"] == "agent"


@pytest.mark.parametrize("in_message", [False, True])
def test_without_a_token_the_upgrade_does_not_tell(in_message: bool) -> None:
    assert jwt_users(SECRET)(show("", in_message=in_message)) is None


def test_leeway_holds_for_the_end_of_the_user_too() -> None:
    ended = int(time.time()) - 5

    user = jwt_users(SECRET, leeway_s=60)(show(token_of(exp=ended)))

    assert user is not None and user.expires == ended + 60.0


def test_another_claim_may_name_the_user() -> None:
    who = jwt_users(SECRET, user_claim="email")

    user = who(show(token_of(sub=None, email="ada@example.com")))

    assert user is not None and user.id == "ada@example.com"
    with pytest.raises(Denied):
        who(show(token_of()))


@pytest.mark.parametrize("audience", ["chat", ["mail", "chat"]])
def test_audience_and_issuer_are_those_that_are_expected(audience: object) -> None:
    who = jwt_users(SECRET, audience="chat", issuer="https://id.example")

    assert who(show(token_of(aud=audience, iss="https://id.example"))) is not None


def test_public_keys_and_functions_that_find_them() -> None:
    asked: list[str] = []

    def find(token: str) -> bytes:
        asked.append(token)
        return PUBLIC_PEM

    token = token_of(PRIVATE, "RS256")
    found = [jwt_users(key, algorithms=["RS256"])(show(token)) for key in (PUBLIC_PEM, PUBLIC_PEM.decode(), find)]

    assert [user and user.id for user in found] == ["ada"] * 3
    assert asked == [token]


def test_a_cookie_counts_where_it_is_named_and_a_token_goes_before_it() -> None:
    cookies = {"sid": token_of(), "other": token_of(sub="eve")}
    by_cookie, without = jwt_users(SECRET, cookie="sid"), jwt_users(SECRET)

    user = by_cookie(show("", cookies=cookies))
    other = by_cookie(show(token_of(sub="bob"), cookies=cookies))

    assert user is not None and user.id == "ada"
    assert other is not None and other.id == "bob"
    assert without(show("", cookies=cookies)) is None
    assert by_cookie(show("", cookies=cookies, in_message=True)) is None, "a message must bring a proof of its own"
    with pytest.raises(Denied):
        by_cookie(show("", cookies={"sid": token_of(OTHER)}))


# ---- what is not --------------------------------------------------------------------------------

BAD = {
    "expired": token_of(exp=int(time.time()) - 1),
    "no exp": token_of(exp=None),
    "an exp that is no time": token_of(exp="soon"),
    "an endless exp": raw_token({"alg": "HS256"}, b'{"sub": "ada", "exp": Infinity}', SECRET.encode()),
    "no sub": token_of(sub=None),
    "a sub that is no string": raw_token({"alg": "HS256"}, CLAIMS | {"sub": 7}, SECRET.encode()),
    "an empty id": token_of(sub=""),
    "an id too long": token_of(sub="a" * 123),
    "an invisible id": token_of(sub="\u200b"),
    "an id with a line feed": token_of(sub="ada\nbob"),
    "another key": token_of(OTHER),
    "another algorithm": token_of(SECRET * 2, "HS512"),
    "no signature": raw_token({"alg": "none"}, CLAIMS),
    "no signature, in capitals": raw_token({"alg": "NONE"}, CLAIMS),
    "a signature cut off": token_of().rsplit(".", 1)[0] + ".",
    "no algorithm": raw_token({}, CLAIMS, SECRET.encode()),
    "an audience that nobody expects": token_of(aud="chat"),
    "not yet": token_of(nbf=int(time.time()) + 60),
    "no token at all": "ada",
    "two dots": "..",
    "not ASCII": "é.é.é",
    "a head that is no object": raw_token([], CLAIMS, SECRET.encode()),
    "a head nested deeply": raw_token(b"[" * 11_000, CLAIMS, SECRET.encode()),
    "a body that is no object": raw_token({"alg": "HS256"}, [1], SECRET.encode()),
}


@pytest.mark.parametrize("why", BAD)
@pytest.mark.parametrize("key", ["secret", "function"])
def test_everything_else_is_denied(why: str, key: str) -> None:
    who = jwt_users(SECRET if key == "secret" else lambda token: SECRET)

    with pytest.raises(Denied) as caught:
        who(show(BAD[why]))

    assert caught.value.status == 401
    assert SECRET not in str(caught.value) and BAD[why] not in str(caught.value)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "mail", "iss": "https://id.example"},
        {"iss": "https://id.example"},
        {"aud": "chat", "iss": "https://evil.example"},
        {"aud": "chat"},
    ],
)
def test_another_audience_or_issuer_is_denied(claims: dict[str, str]) -> None:
    with pytest.raises(Denied):
        jwt_users(SECRET, audience="chat", issuer="https://id.example")(show(token_of(**claims)))


@pytest.mark.parametrize("algorithms", [["RS256"], ["RS256", "ES256"]])
def test_a_public_key_is_no_secret_to_sign_by(algorithms: list[str]) -> None:
    forged = raw_token({"alg": "HS256"}, CLAIMS, PUBLIC_PEM)

    with pytest.raises(Denied):
        jwt_users(PUBLIC_PEM, algorithms=algorithms)(show(forged))


# ---- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "short", "x" * 31, b"x" * 31])
def test_a_short_key_is_refused_when_it_is_given(key: str | bytes) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        jwt_users(key)


@pytest.mark.parametrize(
    "algorithms", [(), ("none",), ("HS256", "None"), ("HS256", "RS256"), ("rs256",), ("HS257",), "HS256"]
)
def test_algorithms_that_cannot_be_meant_are_refused(algorithms: Any) -> None:
    with pytest.raises(LocalError, match="algorithm"):
        jwt_users(SECRET, algorithms=algorithms)


@pytest.mark.parametrize("text", ["no such key", ""])
def test_a_token_whose_key_is_not_known_is_the_peers_fault(text: str) -> None:
    def find(token: str) -> bytes:
        raise jwt.PyJWKClientError(text)

    with pytest.raises(Denied):
        jwt_users(find, algorithms=["RS256"])(show(token_of(PRIVATE, "RS256")))


@pytest.mark.parametrize("failure", [jwt.PyJWKClientConnectionError("refused"), KeyError("kid"), OSError("gone")])
def test_a_key_that_cannot_be_fetched_is_not(failure: Exception) -> None:
    def find(token: str) -> bytes:
        raise failure

    with pytest.raises(type(failure)):
        jwt_users(find, algorithms=["RS256"])(show(token_of(PRIVATE, "RS256")))


# ---- on a server --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_lets_in_by_token_cookie_and_first_message() -> None:
    server = Server(limited())
    server.authenticate(thread=True)(jwt_users(SECRET, cookie="sid"))
    users: list[User | None] = []
    server.on_open(lambda session: users.append(session.user))

    async with running(server) as at:
        headers = {"Cookie": f"sid={token_of(sub='carol')}"}
        async with (
            connected(at.ws, subprotocols=["vixws.v1", f"vixws.bearer.{token_of(sub='ada')}"]),
            connected(at.ws, additional_headers={"Authorization": f"Bearer {token_of(sub='bob')}"}),
            connected(at.ws, additional_headers=headers, origin=at.http.rstrip("/")),
            Client(at.ws, token=token_of(sub="dave")) as client,
        ):
            await client.wait_open()
        refused = await http(at.port, request("/", f"Authorization: Bearer {token_of(OTHER)}").decode())

    assert [user and user.id for user in users] == ["ada", "bob", "carol", "dave"]
    assert (refused[0], refused[2]) == (401, b"the token is not good\n")


@pytest.mark.anyio
async def test_at_the_end_of_its_token_a_connection_is_closed() -> None:
    server = Server(limited())
    server.authenticate(jwt_users(SECRET))
    headers = {"Authorization": f"Bearer {token_of(exp=int(time.time()) + 2)}"}

    async with running(server) as at, connected(at.ws, additional_headers=headers) as peer:
        ended = await peer.ended()

    assert ended == (4101, "token_expired")


@pytest.mark.anyio
async def test_bad_tokens_leave_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(limited(head_bytes_max=65_536))
    server.authenticate(jwt_users(SECRET))
    with caplog.at_level(logging.WARNING, "vixws"):
        async with running(server) as at:
            tokens = [token for token in BAD.values() if token.isascii()]
            found = [await http(at.port, request("/", f"Authorization: Bearer {token}").decode()) for token in tokens]

    assert {status for status, _, _ in found} == {401}
    assert caplog.records == []
