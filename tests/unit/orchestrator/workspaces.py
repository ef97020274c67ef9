"""Workspaces in git repositories, as tests make them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from orchestrator.snapshot.snapshot import Snapshot

OWNER = (1000, 100)
# What `fill` makes, and git does not ignore.
TRACKED = {".gitignore", "a", "d/b", "d/deep/c.o"}


def git(directory: Path, *args: str, stdin: str | None = None) -> str:
    """What git prints, with no configuration of whoever runs the tests."""
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    return subprocess.run(
        ["git", *identity, *args],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
        input=stdin,
    ).stdout.strip()


def commit_all(directory: Path) -> str:
    """Commit what is there, in a repository that is made if need be; returns the commit."""
    if not (directory / ".git").exists():
        git(directory, "init", "-q")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "a")
    return git(directory, "rev-parse", "HEAD")


def add_gitlink(directory: Path, name: str, commit: str = "1" * 40) -> None:
    """Let the index name a submodule, whatever lies in its place."""
    git(directory, "update-index", "--add", "--cacheinfo", f"160000,{commit},{name}")
    git(directory, "commit", "-qm", f"the submodule {name}")


def names(snapshot: Snapshot) -> set[str]:
    """The files and links of a snapshot."""
    return {
        str(path.relative_to(snapshot.path))
        for path in snapshot.path.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def published(snapshots: Path) -> list[str]:
    return os.listdir(snapshots)


def fill(workspace: Path) -> str:
    """A commit with tracked, ignored and tracked ignored files; returns it."""
    for name in ("a", "d/b", "d/deep/c.o", "secret"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(f"{name}\n")
    (workspace / ".gitignore").write_text("*.o\n/secret\n")
    if not (workspace / ".git").exists():
        git(workspace, "init", "-q")
    git(workspace, "add", "-f", "d/deep/c.o")
    return commit_all(workspace)


def fill_inner(workspace: Path, name: str) -> str:
    """A repository in a directory of the workspace, with a commit; returns the commit."""
    inner = workspace / name
    inner.mkdir()
    (inner / ".gitignore").write_text("*.o\n")
    (inner / "x.c").touch()
    (inner / "x.o").touch()
    return commit_all(inner)
