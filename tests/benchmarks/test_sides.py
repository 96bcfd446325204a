"""Two checkouts are told apart by the servers themselves, and nothing of either is left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.contestants import Running, ServerError, Vixws
from benchmarks.sides import RevisionError, Side, Told, check, commit_of, unpacked

SERVER = """\
import os, signal
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print(f"vixws ready ws=ws://127.0.0.1:1/ http=x metrics=off pid={os.getpid()}", flush=True)
    signal.sigwait([signal.SIGTERM])
"""
"""A server that only starts and ends."""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def write(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose one commit holds packages of the right names."""
    folder = tmp_path / "checkout"
    for package in ("vixws_core", "vixws_anyio", "vixws_store"):
        write(folder / package / "__init__.py", "age = 'old'\n")
    write(folder / "vixws_anyio" / "__main__.py", SERVER)
    write(folder / "benchmarks" / "__init__.py")
    write(folder / "benchmarks" / "apps" / "echo.py", "age = 'old'\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def side(tree: Path) -> Side:
    return Side(Vixws("asyncio"), "this", tree)


def test_a_commit_is_unpacked_beside_what_is_there_now(checkout: Path) -> None:
    write(checkout / "vixws_core" / "__init__.py", "age = 'new'\n")
    write(checkout / "vixws_core" / "not_yet_added.py")

    with unpacked(commit_of("HEAD", checkout), checkout) as (this, beside):
        assert (this / "vixws_core" / "__init__.py").read_text() == "age = 'new'\n"
        assert (this / "vixws_core" / "not_yet_added.py").exists()
        assert (beside / "vixws_core" / "__init__.py").read_text() == "age = 'old'\n"
        assert not (beside / "vixws_core" / "not_yet_added.py").exists()


def test_both_sides_serve_the_applications_of_now(checkout: Path) -> None:
    write(checkout / "benchmarks" / "apps" / "echo.py", "age = 'new'\n")

    with unpacked(commit_of("HEAD", checkout), checkout) as trees:
        assert [(each / "benchmarks" / "apps" / "echo.py").read_text() for each in trees] == ["age = 'new'\n"] * 2


def test_no_copy_is_left_when_the_block_raises(checkout: Path) -> None:
    trees: list[Path] = []

    with pytest.raises(KeyboardInterrupt), unpacked(commit_of("HEAD", checkout), checkout) as found:
        trees.extend(found)
        raise KeyboardInterrupt

    assert [each.parent.exists() for each in trees] == [False, False]


def test_a_revision_that_is_none_is_told(checkout: Path) -> None:
    with pytest.raises(RevisionError, match="'no-such': expected a commit of this repository"):
        commit_of("no-such", checkout)


def test_a_revision_is_no_option_of_git(checkout: Path) -> None:
    with pytest.raises(RevisionError, match="'--all': expected a commit"):
        commit_of("--all", checkout)


def test_a_folder_without_a_repository_has_no_revisions(tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match="expected a commit of this repository"):
        commit_of("HEAD", tmp_path)


def test_a_commit_without_packages_is_told(checkout: Path) -> None:
    git(checkout, "rm", "-rq", "vixws_core", "vixws_anyio", "vixws_store")
    git(checkout, "commit", "-q", "-m", "Stop")

    with pytest.raises(RevisionError, match="vixws_"), unpacked(commit_of("HEAD", checkout), checkout):
        pass


def test_each_server_runs_the_packages_of_its_own_tree(checkout: Path) -> None:
    with (
        unpacked(commit_of("HEAD", checkout), checkout) as (this, beside),
        side(this).started("publish", None, 0) as one,
        side(beside).started("publish", None, 0) as other,
    ):
        assert one.pid != other.pid


def test_a_server_that_runs_another_trees_packages_is_refused(checkout: Path) -> None:
    (checkout / "vixws_core" / "__init__.py").unlink()
    (checkout / "vixws_core").rmdir()  # so that the installed one is found
    wrong = pytest.raises(ServerError, match=r"vixws_core comes from .*, expected .*checkout/vixws_core/__init__\.py")

    with wrong, side(checkout).started("publish", None, 0):
        pass


def test_a_server_that_is_refused_is_ended(tmp_path: Path) -> None:
    write(tmp_path / "vixws_anyio" / "__init__.py")
    write(tmp_path / "vixws_anyio" / "__main__.py", f"open('pid', 'w').write(str(__import__('os').getpid()))\n{SERVER}")

    with pytest.raises(ServerError), side(tmp_path).started("publish", None, 0):
        pass

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_another_process_cannot_answer_for_the_server(tmp_path: Path) -> None:
    told = Told(pid=7, files={"vixws_core": str(tmp_path / "vixws_core" / "__init__.py")})

    check(told, side(tmp_path), Running(port=1, pid=7))
    with pytest.raises(ServerError, match="process 7 told its files, expected 8"):
        check(told, side(tmp_path), Running(port=1, pid=8))
