"""The server that foreign clients are tried with, on either loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Served, serving


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all clients of a module."""
    folder = tmp_path_factory.mktemp("foreign")
    with serving(folder, "--app", "tests.foreign.app:server", "--backend", request.param) as served:
        yield served
        assert served.stop() == 0
