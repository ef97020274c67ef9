"""Workspaces in git repositories, as tests make them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from orchestrator.snapshot import Snapshot

OWNER = (1000, 100)


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
