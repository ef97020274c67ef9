"""Submodules and other repositories that lie in a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import SnapshotError
from orchestrator.snapshot.snapshot import publish
from tests.unit.orchestrator.workspaces import (
    OWNER,
    TRACKED,
    add_gitlink,
    fill,
    fill_inner,
    git,
    names,
)


async def test_repositories_inside_belong_with_their_own_rules(
    workspace: Path, snapshots: Path
) -> None:
    """A nested repository's files go in, without what it ignores; a deleted file stays out."""
    git(workspace, "init", "-q")
    fill_inner(workspace, "inner")
    fill_inner(workspace / "inner", "deeper")
    (workspace / "gone").touch()
    git(workspace, "add", "gone")
    (workspace / "gone").unlink()

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert {
        f"{one}/{name}" for one in ("inner", "inner/deeper") for name in (".gitignore", "x.c")
    } == names(snapshot)


def with_gitfile(target: str) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        directory.mkdir()
        (directory / ".git").write_text(f"gitdir: {target}\n")
        (directory / "x").touch()

    return change


def with_dot_git(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        directory.mkdir()
        make(directory / ".git")

    return change


NOT_INITIALISED: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "absent": (lambda it: None, set()),
    "empty": (lambda it: it.mkdir(), set()),
    "empty .git": (with_dot_git(lambda it: it.mkdir()), set()),
    "plain files": (lambda it: (it.mkdir(), (it / "x").touch()), {"sub/x"}),
    "gitfile that leads nowhere": (with_gitfile("../.git/modules/sub"), {"sub/x"}),
    "gitfile that leads outside": (with_gitfile("/nonexistent/sub"), {"sub/x"}),
    "gitfile that leads to itself": (with_gitfile(".git"), {"sub/x"}),
    "gitfile that leads to its directory": (with_gitfile("."), {"sub/x"}),
    "gitfile that is none": (with_dot_git(lambda it: it.write_text("x")), set()),
    ".git that leads nowhere": (with_dot_git(lambda it: it.symlink_to("x")), set()),
    ".git that leads to itself": (with_dot_git(lambda it: it.symlink_to(".git")), set()),
    ".git that is a pipe": (with_dot_git(os.mkfifo), set()),
    ".git that is not whole": (
        with_dot_git(lambda it: (it.mkdir(), (it / "HEAD").write_text("ref: refs/heads/x"))),
        set(),
    ),
    "another work tree's repository": (
        lambda it: (
            fill_inner(it.parent.parent, "other"),
            git(it.parent.parent / "other", "config", "core.worktree", "/etc"),
            with_gitfile(str(it.parent.parent / "other" / ".git"))(it),
        ),
        {"sub/x"},
    ),
}


@pytest.mark.parametrize("shape", NOT_INITIALISED)
async def test_a_submodule_that_is_not_initialised_is_told(
    workspace: Path, snapshots: Path, shape: str
) -> None:
    """The run goes on with the files that are there, and a warning names the submodule."""
    fill(workspace)
    add_gitlink(workspace, "sub")
    make, files = NOT_INITIALISED[shape]
    make(workspace / "sub")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert TRACKED | files == names(snapshot)
    (warning,) = snapshot.warnings
    assert warning.endswith(": sub")
    assert snapshot.dirty is (bool(files) or shape == "absent")


async def test_many_submodules_are_told_in_one_line(workspace: Path, snapshots: Path) -> None:
    """With the first names, harmless for a terminal."""
    fill(workspace)
    for number in range(8):
        add_gitlink(workspace, f"sub\x1b{number}")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    (warning,) = snapshot.warnings
    assert warning.isprintable() and "sub\\x1b4 and 3 more" in warning


async def test_a_submodule_without_repository_as_workspace_is_a_tree_of_its_own(
    workspace: Path, snapshots: Path
) -> None:
    """The repository around it has no file of it."""
    fill(workspace)
    add_gitlink(workspace, "sub")
    (workspace / "sub").mkdir()
    (workspace / "sub" / "x").touch()

    snapshot = await publish(workspace / "sub", snapshots, owner=OWNER)

    assert ({"x"}, None, None) == (names(snapshot), snapshot.commit, snapshot.dirty)
    (warning,) = snapshot.warnings
    assert str(workspace) in warning


async def test_a_repository_inside_that_cannot_be_read_stops_the_run(
    workspace: Path, snapshots: Path
) -> None:
    """Submodule or not: its files cannot be told."""
    fill(workspace)
    commit = fill_inner(workspace, "sub")
    add_gitlink(workspace, "sub", commit)
    git(workspace / "sub", "config", "core.repositoryFormatVersion", "99")

    with pytest.raises(SnapshotError, match="/sub: git cannot read this repository"):
        await publish(workspace, snapshots, owner=OWNER)
