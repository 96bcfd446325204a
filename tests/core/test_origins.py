"""From which pages browsers may connect: same origin, an exact list, `*`, and everything that only looks alike."""

from __future__ import annotations

import pytest

from vixws_core import LocalError
from vixws_core.app.access import AuthRequest, RootRouter, User, credentials
from vixws_core.app.origins import Origins
from vixws_core.app.session import Session

from .app_rig import AppRig, typed

LISTED = Origins(("https://app.example.org", "http://localhost:3000"))

TABLE = [
    # Origin, Host, verdict: True cookies count, None refused
    ("https://chat.example.com", "chat.example.com", True),
    ("http://chat.example.com", "chat.example.com", True),
    ("https://CHAT.example.com", "chat.EXAMPLE.com", True),
    ("https://chat.example.com:443", "chat.example.com", True),
    ("https://chat.example.com", "chat.example.com:443", True),
    ("http://chat.example.com:8080", "chat.example.com:8080", True),
    ("http://[::1]:8080", "[::1]:8080", True),
    ("https://app.example.org", "chat.example.com", True),
    ("http://localhost:3000", "chat.example.com", True),
    ("null", "chat.example.com", None),
    ("", "chat.example.com", None),
    ("https://evil.example.net", "chat.example.com", None),
    ("https://chat.example.com.evil.net", "chat.example.com", None),
    ("https://evil-chat.example.com", "chat.example.com", None),
    ("https://sub.chat.example.com", "chat.example.com", None),
    ("https://example.com", "chat.example.com", None),
    ("https://chat.example.com.", "chat.example.com", None),
    ("https://chat.example.com:8443", "chat.example.com", None),
    ("https://chat.example.com", "chat.example.com:8443", None),
    ("http://chat.example.com:443", "chat.example.com", None),
    ("http://app.example.org", "chat.example.com", None),
    ("https://app.example.org:8443", "chat.example.com", None),
    ("https://app.example.org/", "chat.example.com", None),
    ("https://app.example.org@evil.net", "chat.example.com", None),
    ("https://evil.net#app.example.org", "chat.example.com", None),
    ("https://evil.net?app.example.org", "chat.example.com", None),
    ("https://app.example.org, https://evil.net", "chat.example.com", None),
    ("app.example.org", "chat.example.com", None),
    ("file://", "chat.example.com", None),
    ("chrome-extension://abcdef", "chat.example.com", None),
    ("https://app.example.org:", "chat.example.com", None),
    ("https://app.example.org:99999", "chat.example.com", None),
    ("https://аpp.example.org", "chat.example.com", None),
    ("https://app.example.org ", "chat.example.com", None),
]


@pytest.mark.parametrize(("origin", "host", "verdict"), TABLE)
@pytest.mark.threat(1)
def test_threat_1_an_origin_is_our_own_or_stands_in_the_list(origin: str, host: str, verdict: bool | None) -> None:
    assert LISTED.judge((("host", host), ("origin", origin))) is verdict


@pytest.mark.threat(1)
def test_threat_1_two_origins_are_none() -> None:
    headers = (("host", "a.example"), ("origin", "http://a.example"), ("origin", "http://a.example"))

    assert Origins().judge(headers) is None


@pytest.mark.threat(1)
def test_threat_1_without_an_origin_cookies_do_not_count() -> None:
    assert Origins().judge((("host", "a.example"),)) is False


@pytest.mark.threat(1)
def test_threat_1_where_every_page_may_connect_only_those_we_know_show_cookies() -> None:
    every = Origins(("*", "https://app.example.org"))

    assert every.judge((("host", "a.example"), ("origin", "https://evil.net"))) is False
    assert every.judge((("host", "a.example"), ("origin", "null"))) is False
    assert every.judge((("host", "a.example"), ("origin", "https://app.example.org"))) is True


@pytest.mark.parametrize(
    "text",
    ["example.com", "https://example.com/", "https://*.example.com/x", "https://*.example.com", "null", "", "ws://a"],
)
def test_what_is_no_origin_is_none_in_the_list(text: str) -> None:
    with pytest.raises(LocalError):
        Origins((text,))


@pytest.mark.threat(1)
def test_threat_1_a_foreign_page_is_refused_before_anybody_is_asked() -> None:
    router = RootRouter()
    asked: list[AuthRequest] = []

    @router.authenticate
    def who(request: AuthRequest) -> User:
        asked.append(request)
        return User("ada")

    rig = AppRig(router, origins=Origins())

    peer = rig.connect("/", "Origin: https://evil.net", "Cookie: sid=1")

    assert peer.out.startswith(b"HTTP/1.1 403 ") and asked == [] and rig.hub.sessions == 0


@pytest.mark.parametrize(
    ("origin", "cookies"), [("Origin: http://example.com", {"sid": "1", "b": "2"}), ("X-A: 1", {})]
)
@pytest.mark.threat(1)
def test_threat_1_cookies_are_shown_of_pages_that_we_know_only(origin: str, cookies: dict[str, str]) -> None:
    router = RootRouter()
    asked: list[AuthRequest] = []

    @router.authenticate
    def who(request: AuthRequest) -> User:
        asked.append(request)
        return User("ada")

    opened: list[tuple[tuple[str, str], ...]] = []

    @router.on_open
    def note(session: Session) -> None:
        opened.append(session.headers)

    rig = AppRig(router, origins=Origins())
    peer = rig.connect("/", origin, "Cookie: sid=1; b=2")

    assert peer.ask(typed("$hello", {"v": [1]}))[0]["type"] == "$welcome"
    assert asked[0].cookies == cookies
    assert bool(asked[0].header("cookie")) is bool(cookies)
    assert ("cookie" in dict(opened[0])) is bool(cookies)


ODD_COOKIES = [
    'prefs={"dark":true}',
    "version=2",
    "path=/x",
    "flag",
    "u=Ada L",
    "[x]=1",
    "n=J\u00f6rg",
    "=nameless",
    "",
    'q="a b"',
]


@pytest.mark.parametrize("odd", ODD_COOKIES)
@pytest.mark.parametrize("form", ["{odd}; sid=t-1", "sid=t-1; {odd}", "{odd};sid=t-1;", "sid=t-1; {odd}; sid=other"])
def test_a_cookie_counts_whatever_stands_beside_it(odd: str, form: str) -> None:
    headers = (("cookie", form.format(odd=odd)),)

    assert credentials("/", headers, (), "", True).cookies["sid"] == "t-1"
    assert credentials("/", (*headers, ("cookie", 'sid=2; b="3"')), (), "", True).cookies["sid"] == "t-1"
