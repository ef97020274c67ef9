"""Whether a tree differs from the commit that is checked out, told without running anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.snapshot.snapshot import publish
from tests.unit.orchestrator.workspaces import OWNER, add_gitlink, commit_all, git


@pytest.fixture
def commit(workspace: Path) -> str:
    """A commit of files, a link, and a submodule that has its repository."""
    sub = workspace / "sub"
    (workspace / "d").mkdir()
    sub.mkdir()
    for path in (workspace / "a", workspace / "d" / "b", sub / "x"):
        path.write_text("1\n")
    (workspace / "link").symlink_to("a")
    (workspace / ".gitignore").write_text("ignored\n")
    inner = commit_all(sub)
    git(workspace, "init", "-q")
    git(workspace, "add", "a", "d", "link", ".gitignore")
    add_gitlink(workspace, "sub", inner)
    return git(workspace, "rev-parse", "HEAD")


def into_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def into_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("d/b")


def staged_and_taken_back(tree: Path) -> None:
    (tree / "a").write_text("2\n")
    git(tree, "add", "a")
    (tree / "a").write_text("1\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda tree: (tree / "a").write_text("2\n"),
    "mode": lambda tree: (tree / "a").chmod(0o755),
    "deleted": lambda tree: (tree / "a").unlink(),
    "directory deleted": lambda tree: shutil.rmtree(tree / "d"),
    "directory in its place": lambda tree: into_directory(tree / "a"),
    "link in its place": lambda tree: into_link(tree / "a"),
    "link changed": lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("b")),
    "untracked": lambda tree: (tree / "new").touch(),
    "untracked repository": lambda tree: git(tree, "init", "-q", "new"),
    "staged": lambda tree: ((tree / "new").touch(), git(tree, "add", "new")),
    "staged, and taken back": staged_and_taken_back,
    "removed from the index": lambda tree: git(tree, "rm", "-q", "--cached", "a"),
    "submodule's file": lambda tree: (tree / "sub" / "x").write_text("2\n"),
    "submodule's new file": lambda tree: (tree / "sub" / "y").touch(),
    "submodule's commit": lambda tree: git(
        tree / "sub", "commit", "-q", "--allow-empty", "-m", "b"
    ),
    "submodule's commit, staged": lambda tree: (
        git(tree / "sub", "commit", "-q", "--allow-empty", "-m", "b"),
        git(tree, "add", "sub"),
    ),
    "submodule deleted": lambda tree: shutil.rmtree(tree / "sub"),
    "file in the place of the submodule": lambda tree: (
        shutil.rmtree(tree / "sub"),
        (tree / "sub").touch(),
    ),
    "another submodule, staged": lambda tree: (
        git(tree, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},other"),
        (tree / "other").mkdir(),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_makes_a_tree_dirty(
    workspace: Path, snapshots: Path, commit: str, change: str
) -> None:
    """What git's status shows; the commit stays known."""
    CHANGES[change](workspace)

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert (commit, True) == (snapshot.commit, snapshot.dirty)


def copied(tree: Path) -> None:
    """Every file is another one, with the same content."""
    shutil.copytree(tree, tree.with_name("copy"), symlinks=True)
    shutil.rmtree(tree)
    tree.with_name("copy").rename(tree)


def by_a_filter(tree: Path) -> None:
    """Git knows by the index that the file is as it was checked out."""
    (tree / ".gitattributes").write_text("a filter=case\n")
    git(tree, "config", "filter.case.clean", "tr a-z A-Z")
    (tree / "a").write_text("upper\n")
    os.utime(tree / "a", (1, 1))
    git(tree, "add", ".gitattributes", "a")
    git(tree, "commit", "-qm", "filtered")


KEPT: dict[str, Callable[[Path], object]] = {
    "nothing": lambda tree: None,
    "touched": lambda tree: os.utime(tree / "a", (1, 1)),
    "written anew": lambda tree: (tree / "a").write_text("1\n"),
    "copied": copied,
    "ignored": lambda tree: (tree / "ignored").touch(),
    "line ends": lambda tree: (
        git(tree, "config", "core.autocrlf", "true"),
        (tree / "a").write_bytes(b"1\r\n"),
        git(tree, "add", "a"),
        os.utime(tree / "a", (1, 1)),
    ),
    "modes do not count": lambda tree: (
        git(tree, "config", "core.fileMode", "false"),
        (tree / "a").chmod(0o755),
    ),
    "filtered": by_a_filter,
}


@pytest.mark.parametrize("change", KEPT)
async def test_what_is_no_change_makes_no_tree_dirty(
    workspace: Path, snapshots: Path, commit: str, change: str
) -> None:
    """Times do not count, nor line ends that git converts."""
    KEPT[change](workspace)

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    head = git(workspace, "rev-parse", "HEAD")
    assert (head, False, ()) == (snapshot.commit, snapshot.dirty, snapshot.warnings)


async def test_a_filtered_file_with_other_times_counts_as_changed(
    workspace: Path, snapshots: Path, commit: str
) -> None:
    """Only the filter could say that it is the same, and it is a program."""
    by_a_filter(workspace)
    os.utime(workspace / "a", (2, 2))

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert snapshot.dirty is True


async def test_outside_a_repository_and_before_a_commit(workspace: Path, snapshots: Path) -> None:
    """Without a repository nothing is known; before the first commit all is a change."""
    (workspace / "a").touch()
    outside = await publish(workspace, snapshots, owner=OWNER)
    git(workspace, "init", "-q")
    before = await publish(workspace, snapshots, owner=OWNER)

    assert (None, None) == (outside.commit, outside.dirty)
    assert (None, True) == (before.commit, before.dirty)


async def test_the_state_root_makes_no_tree_dirty(
    workspace: Path, snapshots: Path, commit: str
) -> None:
    """Our own files are no change of the user's, tracked or not."""
    state = workspace / "state"
    state.mkdir()
    (state / "journal").write_text("j")
    git(workspace, "add", "state")
    git(workspace, "commit", "-qm", "state")
    (state / "journal").write_text("k")
    (state / "log").touch()

    snapshot = await publish(workspace, snapshots, own=(state,), owner=OWNER)

    assert snapshot.dirty is False


async def test_looking_changes_nothing_in_the_repository(
    workspace: Path, snapshots: Path, commit: str
) -> None:
    """Not the index, whose times are out of date, nor any other of git's files."""
    os.utime(workspace / "a", (1, 1))

    def state() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_size)
            for path in (workspace / ".git").rglob("*")
        }

    before = state()
    await publish(workspace, snapshots, owner=OWNER)

    assert before == state()
