"""No secret is compared with `==`, whose time tells how much of a guess was right: a reading of the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from .test_house import PACKAGES, sources

SECRET = re.compile(r"(?i)secret|token|passw|credential|signature|api_?key|hmac|\bsid\b|cookie|bearer|\bjwt\b")
NO_SECRETS = frozenset(
    (
        "_tokens",  # A count.
        "current_trio_token",  # Trio's handle of its loop.
        "tokens",  # What a header lists (RFC 9110 §5.6.2).
    )
)
"""Names that only sound like one."""
ALLOWED = frozenset(
    (
        "name == 'cookie'",  # The name of a header, and of a scheme.
        "header[0] != 'cookie'",
        "scheme.lower() == 'bearer'",
        "1 <= len(secret) <= 64",
        "1 <= len(found.secret) <= 64",
    )
)
"""Comparisons that look at no secret's content."""


def comparisons(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Comparisons for sameness or order in which something sounds like a secret: line and text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            continue
        names = {
            name
            for part in (node.left, *node.comparators)
            for inner in ast.walk(part)
            for name in (getattr(inner, "id", None), getattr(inner, "attr", None), getattr(inner, "value", None))
            if isinstance(name, str)
        }
        if any(SECRET.search(name) for name in names - NO_SECRETS):
            yield node.lineno, ast.unparse(node)


@pytest.mark.threat(33)
def test_no_secret_is_compared_with_an_operator() -> None:
    wrong = [
        f"{path}:{line}: {text}"
        for path, tree in sources(*PACKAGES, "examples")
        for line, text in comparisons(tree)
        if text not in ALLOWED
    ]

    assert wrong == []


@pytest.mark.threat(33)
@pytest.mark.parametrize(
    "code",
    [
        "request.token == SECRET",
        "if digest(password) != stored: pass",
        "headers['authorization'] == f'Bearer {api_key}'",
        "token in TOKENS",
        "hello.payload['token'] == wanted",
    ],
)
def test_a_comparison_of_secrets_is_found(code: str) -> None:
    assert len(list(comparisons(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["hmac.compare_digest(token, wanted)", "token is None", "name == 'authorization'"])
def test_what_is_no_such_comparison_is_not(code: str) -> None:
    assert list(comparisons(ast.parse(code))) == []
