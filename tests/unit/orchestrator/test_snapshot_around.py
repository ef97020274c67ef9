"""A workspace in a directory that is not its own: ignored by a repository, or reaching outside."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orchestrator.errors import SnapshotError, UsageError
from orchestrator.snapshot.snapshot import publish
from tests.unit.orchestrator.workspaces import (
    OWNER,
    commit_all,
    fill,
    git,
    names,
    published,
)


@pytest.mark.parametrize(
    ("rule", "inside"),
    [
        ("/tmp/*", "tmp"),
        ("/tmp/*", "tmp/tree"),
        ("/tmp/", "tmp/tree"),
        ("/tmp/*", "tmp/tree/d"),
        ("tree", "tmp/tree"),
        ("tmp", "tmp/tree/d"),
        ("*", "tmp/tree"),
    ],
)
async def test_a_workspace_that_an_outer_repository_ignores_is_a_tree_of_its_own(
    workspace: Path, snapshots: Path, rule: str, inside: str
) -> None:
    """All its files are taken but those that it ignores itself, and a warning says why."""
    fill(workspace)
    (workspace / ".gitignore").write_text(rule)
    for directory in ("tmp/tree/d", "tmp/tree", "tmp"):
        (workspace / directory).mkdir(parents=True, exist_ok=True)
        (workspace / directory / "x").touch()
        (workspace / directory / "x.o").touch()
        (workspace / directory / ".gitignore").write_text("*.o\n")

    snapshot = await publish(workspace / inside, snapshots, owner=OWNER)

    taken = names(snapshot)
    assert {"x", ".gitignore"} <= taken and "x.o" not in taken
    assert (None, None) == (snapshot.commit, snapshot.dirty)
    (warning,) = snapshot.warnings
    assert str(workspace) in warning and "ignores" in warning


async def test_an_ignored_directory_with_tracked_files_belongs_to_the_repository(
    workspace: Path, snapshots: Path
) -> None:
    """Tracked files always belong, and what is ignored beside them stays out."""
    (workspace / "build").mkdir()
    (workspace / "build" / "kept").touch()
    commit = commit_all(workspace)
    (workspace / ".git" / "info" / "exclude").write_text("/build/\n")
    (workspace / "build" / "made").touch()

    snapshot = await publish(workspace / "build", snapshots, owner=OWNER)

    assert ({"kept"}, commit, False) == (names(snapshot), snapshot.commit, snapshot.dirty)


def write_index(workspace: Path, name: bytes) -> None:
    """An index of one file, whose name git would never take."""
    entry = bytes(24) + (0o100644).to_bytes(4, "big") + bytes(12) + b"\1" * 20
    entry += len(name).to_bytes(2, "big") + name
    entry += bytes(8 - len(entry) % 8)
    index = b"DIRC" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + entry
    (workspace / ".git" / "index").write_bytes(index + hashlib.sha1(index).digest())


@pytest.mark.parametrize("name", ["../secret", "d/../../secret", "{outside}", "./a", "d//b"])
async def test_an_index_cannot_reach_outside_the_workspace(
    workspace: Path, snapshots: Path, name: str
) -> None:
    """A name that git would never write is refused, before anything is copied."""
    git(workspace, "init", "-q")
    secret = workspace.parent / "secret"
    secret.write_text("s")
    (workspace / "d").mkdir()
    write_index(workspace, name.format(outside=secret).encode())

    with pytest.raises(SnapshotError, match="invalid path"):
        await publish(workspace, snapshots, owner=OWNER)

    assert [] == published(snapshots)


async def test_an_index_cannot_reach_through_a_link(workspace: Path, snapshots: Path) -> None:
    """A tracked directory may have become a link, to anywhere."""
    fill(workspace)
    outside = workspace.parent / "outside"
    (workspace / "d").rename(outside)
    (workspace / "d").symlink_to(outside)
    (workspace / ".git" / "info" / "exclude").write_text("/d\n")

    snapshot = await publish(workspace, snapshots, owner=OWNER)

    assert {".gitignore", "a"} == names(snapshot)
    assert snapshot.dirty is True


async def test_a_tree_that_is_too_deep_is_refused(workspace: Path, snapshots: Path) -> None:
    """In so many words, and without a traceback."""
    deep = workspace.joinpath(*["d"] * 500)
    deep.mkdir(parents=True)
    (deep / "x").touch()

    with pytest.raises(UsageError, match="400 nested directories"):
        await publish(workspace, snapshots, owner=OWNER)
