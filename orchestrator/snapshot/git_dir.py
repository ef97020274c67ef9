"""The `.git` of a snapshot, if a job file asks for one: made by pikaci, never the workspace's own.

The hash of a snapshot covers the history that it was made from (commit, tags, boundary), but not
its bytes: git may pack the same history differently.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.errors import UsageError
from orchestrator.git.history import History, read_history
from orchestrator.git.own import write_repository
from orchestrator.git.tree import Tree
from orchestrator.snapshot.content import Access
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.size import LARGE_BYTES
from orchestrator.units import size


def history_of(root: Path, tree: Tree, commit: str | None, left_out: frozenset[bytes]) -> History:
    """The history of a workspace, whose outermost tree is `tree`, at its commit.

    `left_out` are tracked files that a rule keeps out of the snapshot. Raises `UsageError` if the
    workspace is not the root of a repository, or has no commit; `Unreadable`.
    """
    repository = tree.repository
    if repository is None:
        raise UsageError(
            f"{root}: `git = true` in [snapshot] needs a git repository, and this is not one",
            resolution="commit it to one, or remove `git` from [snapshot]",
        )
    if tree.prefix:
        raise UsageError(
            f"{root}: `git = true` in [snapshot] needs the root of a repository, but this is a"
            f" directory of {repository.tree}",
            resolution=f"--workspace {repository.tree}, or remove `git` from [snapshot]",
        )
    if commit is None:
        raise UsageError(
            f"{root}: `git = true` in [snapshot] needs a commit, and this repository has none",
            resolution="make one: git commit",
        )
    return read_history(tree.git, repository, commit, left_out)


@dataclass(frozen=True)
class GitDir:
    """The `.git` that a snapshot gets. `previous` is the workspace's previous snapshot, if any."""

    history: History
    previous: Path | None
    access: Access
    progress: Progress

    def make(self, snapshot: Path) -> None:
        """Make it in a complete copy of the workspace's files.

        A cancellation takes effect within a second.
        """
        self.progress.begin("packing", 0)

        def check() -> None:
            trio.from_thread.check_cancelled()
            self.progress.size = _packed(snapshot)

        write_repository(self.history, snapshot, self.previous, check)
        for directory, _, names in os.walk(snapshot / ".git"):
            self.access.give(os.fsencode(directory), 0o755)
            for name in names:
                self.access.give(os.fsencode(os.path.join(directory, name)), 0o644)


def large_history(snapshot: Path) -> str | None:
    """A warning if the history in a snapshot is larger than `LARGE_BYTES`."""
    whole = _packed(snapshot)
    if whole <= LARGE_BYTES:
        return None
    return (
        f"the history in the snapshot's .git has {size(whole)}: a shallow clone (git clone"
        " --depth) as the workspace has a smaller one"
    )


def _packed(snapshot: Path) -> int:
    """The bytes of a snapshot's packs, also of unfinished ones."""
    whole = 0
    with suppress(OSError), os.scandir(snapshot / ".git" / "objects" / "pack") as packs:
        for pack in packs:
            with suppress(FileNotFoundError):  # renamed meanwhile
                whole += pack.stat().st_size
    return whole
