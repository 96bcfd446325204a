"""A pytest plugin: the fixture `world`, a simulated world for each seed, and the command that shows a failure again.

```python
@pytest.mark.world(my_app.build, clients=2, seeds=20)
def test_what_is_said_is_heard(world):
    world.client(0).join("africa")
    world.client(1).publish("africa", "note", {"n": 1})
    world.run(100)
    world.settle()
```

The mark's first argument is `build`; `seeds` is how many worlds the test runs in, the others are `World`'s. Nothing of
vixws is imported before a test asks for a world, and no test without the fixture is touched.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vixws_core.testing import World

__all__ = ["world", "world_seed"]

_SEEDS = 10
"""Worlds of a test that does not say how many."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--world-seed` and `--worlds`."""
    group = parser.getgroup("vixws")
    group.addoption("--world-seed", metavar="SEED", help="run tests of the fixture `world` in this one world")
    group.addoption(
        "--worlds", type=int, metavar="COUNT", help="run tests of the fixture `world` in so many worlds each"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    line = "world(build, seeds=10, **arguments): what the fixture `world` is made of, and in how many worlds to run"
    config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for a world once for each seed."""
    if "world_seed" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--world-seed", default=None)
    if one is None:
        marker = metafunc.definition.get_closest_marker("world")
        asked = metafunc.config.getoption("--worlds", default=None)
        count = asked if asked is not None else _SEEDS if marker is None else marker.kwargs.get("seeds", _SEEDS)
        seeds = [str(number) for number in range(count)]
    else:
        seeds = [one]
    metafunc.parametrize("world_seed", seeds, ids=[f"seed={seed}" for seed in seeds], indirect=True)


@pytest.fixture
def world_seed(request: pytest.FixtureRequest) -> str:
    """The seed of this run's world."""
    seed: str = request.param
    return seed


@pytest.fixture
def world(request: pytest.FixtureRequest, world_seed: str) -> World:
    """A world of the seed, made as the test's mark `world` says."""
    from vixws_core.testing import World

    marker = request.node.get_closest_marker("world")
    arguments: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    arguments.pop("seeds", None)
    if marker is not None and marker.args:
        arguments["build"] = marker.args[0]
    return World(world_seed, **arguments)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Adds the command that runs the failing world again."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    spec = getattr(item, "callspec", None)
    if report.failed and spec is not None and "world_seed" in spec.params:
        seed = shlex.quote(str(spec.params["world_seed"]))
        command = f"python -m pytest {shlex.quote(item.nodeid)} --world-seed={seed}"
        report.sections.append(("the same world again", command))
