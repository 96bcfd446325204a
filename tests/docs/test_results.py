"""Figures that are shown say which commit they are of, and that commit is part of this history."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.serving import ROOT

RESULTS = sorted((ROOT / "docs" / "results").glob("*.txt"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_names_a_commit_of_this_history(path: object) -> None:
    text = (ROOT / "docs" / "results" / str(path)).read_text(encoding="utf-8")
    found = re.search(r"^commit: +([0-9a-f]{7,40})", text, re.MULTILINE)
    assert found, "expected a line 'commit: <hash>'"
    ask = ["git", "-C", str(ROOT), "merge-base", "--is-ancestor", found[1], "HEAD"]

    assert subprocess.run(ask, capture_output=True).returncode == 0
