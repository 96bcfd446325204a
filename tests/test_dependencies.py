"""Dependencies with known holes: the floors of pyproject.toml, the pins, and what is installed lie above them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.serving import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Hole:
    """Versions of a package from `since` on and below `fixed` have it."""

    package: str
    name: str
    fixed: str
    what: str
    since: str = "0"


HOLES = (
    Hole("h11", "CVE-2025-43859", "0.16", "chunked bodies with bad line ends are taken, which smuggles requests"),
    Hole("websockets", "CVE-2018-1000518", "5.0", "compressed messages are inflated without a limit"),
    Hole("websockets", "CVE-2021-33880", "9.1", "a password is compared in a time that tells of it"),
    Hole("pyjwt", "CVE-2022-29217", "2.4", "a public key is taken for the secret of an HMAC"),
    Hole("pyjwt", "CVE-2024-53861", "2.10.1", "a part of the issuer is enough", since="2.10"),
    Hole("pyjwt", "CVE-2026-32597", "2.12", "critical headers that are not understood are passed over"),
    Hole("pyjwt", "CVE-2026-48526", "2.13", "a JWK is taken for the secret of an HMAC"),
    Hole("pydantic", "CVE-2024-3772", "2.4", "a long e-mail address takes very long"),
    Hole("pytest", "CVE-2025-71176", "9.0.3", "its folder below /tmp can be made by somebody else before"),
    Hole("setuptools", "CVE-2025-47273", "78.1.1", "a download is written where its name says"),
)
"""Known holes of what vixws uses, runs its tests with, or is built with. None are known of the other dependencies."""


def requirements() -> Iterator[Requirement]:
    """Everything that pyproject.toml asks for, our own extras left out."""
    project = PROJECT["project"]
    lists = [PROJECT["build-system"]["requires"], project["dependencies"], *project["optional-dependencies"].values()]
    for text in (text for texts in lists for text in texts):
        if (found := Requirement(text)).name != project["name"]:
            yield found


def floor(requirement: Requirement) -> Version:
    """The least version that a requirement allows."""
    return max(Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~="))


def pins() -> dict[str, Version]:
    """The versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def has(hole: Hole, version: Version) -> bool:
    return Version(hole.since) <= version < Version(hole.fixed)


@pytest.mark.threat(38)
@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"{hole.package} {hole.name}")
def test_no_version_with_a_known_hole_is_asked_for(hole: Hole) -> None:
    floors = [floor(found) for found in requirements() if canonicalize_name(found.name) == hole.package]

    assert floors
    assert [str(found) for found in floors if found < Version(hole.fixed)] == []


@pytest.mark.threat(38)
@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: f"{hole.package} {hole.name}")
def test_no_version_with_a_known_hole_is_pinned_or_installed(hole: Hole) -> None:
    found = {"constraints.txt": pins().get(hole.package)}
    try:
        # What builds the package is not installed with it: an environment may bring an old one of its own.
        if hole.package != "setuptools":
            found["installed"] = Version(metadata.version(hole.package))
    except metadata.PackageNotFoundError:
        pass  # An extra that is not wanted here.

    assert {where: str(version) for where, version in found.items() if version and has(hole, version)} == {}


@pytest.mark.threat(38)
def test_every_dependency_has_a_floor() -> None:
    wrong = [str(found) for found in requirements() if not any(p.operator == ">=" for p in found.specifier)]

    assert wrong == []


@pytest.mark.threat(38)
def test_a_pin_is_above_the_floor() -> None:
    pinned = pins()
    wrong = [str(r) for r in requirements() if (v := pinned.get(canonicalize_name(r.name))) and v not in r.specifier]

    assert wrong == []


@pytest.mark.parametrize(("version", "bad"), [("2.9", False), ("2.10", True), ("2.10.1", False), ("2.11", False)])
def test_a_hole_has_a_beginning_and_an_end(version: str, bad: bool) -> None:
    assert has(Hole("x", "y", "2.10.1", "z", since="2.10"), Version(version)) is bad
