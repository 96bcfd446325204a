"""The pytest plugin: a world for each seed, a command that shows a failure again, and nothing for anybody else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import vixws_core

ROOT = Path(vixws_core.__file__).resolve().parents[1]

TESTS = """
import pytest


def build(server):
    @server.on("count")
    def count(session, payload):
        session.send_json("is", {"n": payload["n"] + 1})


@pytest.mark.world(build, clients=2, seeds=3)
def test_good(world):
    world.client(1).send("count", {"n": 1}) or world.settle()
    world.client(1).send("count", {"n": 1})
    world.settle()
    assert len(world.clients) == 2 and {"n": 2} in world.client(1).of_type("is")


@pytest.mark.world(build, clients=1, seeds=2)
def test_bad(world):
    world.settle()
    world.client(0).send("count", {"m": 1})
    world.settle()


def test_of_the_default(world, world_seed):
    assert str(world.seed) == world_seed


def test_without():
    pass
"""

OWN = """
import pytest


@pytest.fixture
def world():
    return "mine"


def test_it(world):
    assert world == "mine"
"""

NOTHING = """
import sys


def test_it():
    assert not [name for name in sys.modules if name.startswith(("vixws_core", "msgspec", "h11", "wsproto"))]
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest with the plugin, as an installed vixws has it, on a folder of its own."""
    command = (sys.executable, "-m", "pytest", "-p", "vixws_pytest", "-p", "no:cacheprovider", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


def test_a_test_runs_in_as_many_worlds_as_it_says_and_a_failure_prints_how_to_see_it_again(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(TESTS)
    first = run(tmp_path, "-q", "--strict-markers")

    assert "2 failed, 14 passed" in first.stdout, first.stdout + first.stderr
    assert "handler 'build.<locals>.count' raised KeyError('n') for client 0" in first.stdout
    commands = re.findall(r"^python -m pytest (.*--world-seed=.*)$", first.stdout, re.MULTILINE)
    assert len(commands) == 2

    again = run(tmp_path, "-q", *shlex.split(commands[1]))
    assert "1 failed" in again.stdout and "passed" not in again.stdout
    assert "test_bad[seed=1]" in again.stdout


def test_the_number_of_worlds_may_be_set_for_all(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(TESTS)
    done = run(tmp_path, "-q", "--worlds", "5", "-k", "good or default or without")

    assert "11 passed" in done.stdout, done.stdout + done.stderr


def test_a_fixture_of_a_projects_own_called_world_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN)
    done = run(tmp_path, "-q")

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_imports_nothing_of_vixws_until_a_world_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text(NOTHING)
    done = run(tmp_path, "-q", "-p", "no:hypothesispytest")

    assert "1 passed" in done.stdout, done.stdout + done.stderr
