"""Publishes snapshots: a workspace is copied once, named by its content, and never changed.

A snapshot is `HASH/` in a private directory. It appears under its name only when it is complete: it
is written under another name, synced, and renamed. The same tree has the same name, so an unchanged
workspace is not copied, and two publishers of the same tree both succeed.

Files that did not change since the workspace's previous snapshot are hard links to its copies. That
is as safe as one snapshot for many jobs: nobody writes to a published file. Guests, containers and
VMs alike, get it through a mount that is read-only on the host, which no guest's root can change. A
copy with another owner or mode is a file of its own. Deleting a snapshot takes only its own links.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.errors import SnapshotError
from orchestrator.git.repository import MAX_NAME
from orchestrator.snapshot.content import Access
from orchestrator.snapshot.files import WorkspaceFiles, workspace_files
from orchestrator.snapshot.git_dir import GitDir, large_history
from orchestrator.snapshot.index import UNFINISHED, Index, Seen, read_index, write_index
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.size import large_warning
from orchestrator.snapshot.tree import Content, copy_tree, read_tree, tree_hash
from orchestrator.syncfs import sync_file_system
from states.events import SnapshotRef


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot; `commit` and `dirty` are None outside a repository.

    `subject` is the first line of the commit's message, `branch` the branch that is checked out.
    `warnings` are one line each, about files that may not be what the user expects.
    """

    hash: str
    path: Path
    commit: str | None
    dirty: bool | None
    warnings: tuple[str, ...] = ()
    subject: str = ""
    branch: str = ""

    @property
    def ref(self) -> SnapshotRef:
        """What jobs that see it note of it."""
        return SnapshotRef(
            hash=self.hash,
            commit=self.commit,
            dirty=self.dirty,
            subject=self.subject,
            branch=self.branch,
        )


def snapshot_of(ref: SnapshotRef, path: Path, warnings: tuple[str, ...] = ()) -> Snapshot:
    """The published snapshot in a directory, which is named by its hash."""
    return Snapshot(
        path.name,
        path,
        ref.commit,
        ref.dirty,
        warnings,
        subject=ref.subject[:MAX_NAME],
        branch=ref.branch[:MAX_NAME],
    )


async def publish(
    workspace: Path,
    snapshots: Path,
    *,
    own: tuple[Path, ...] = (),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    git: bool = False,
    owner: tuple[int, int],
    index: Path | None = None,
    progress: Progress | None = None,
) -> Snapshot:
    """Publish the workspace in `snapshots`, unless it is there already.

    `own`, `include`, `exclude` and `git` are those of `workspace_files`. With `git`, the snapshot
    has a `.git` made by pikaci. `owner` is the (uid, gid) of the job's user in a guest. As root,
    the files are given to it, with their modes. Otherwise the copy is made readable for everybody,
    which is safe because `snapshots` is private. The hash covers names, bytes, modes and link
    targets as they are in the workspace. A file has the time that it had when it first was in a
    snapshot with these bytes. The file `index` is what this workspace's earlier publishers knew of
    it; without one, every file is read and copied. `progress` counts meanwhile. A cancellation
    takes effect between two files, or two pieces of a large one.
    """
    progress = progress or Progress()

    def call() -> Snapshot:
        try:
            # Before anything is looked at: what is written from now on is not believed later.
            began = time.time_ns()
            files = workspace_files(workspace, own=own, include=include, exclude=exclude, git=git)
            return _publish(workspace, snapshots, files, Access(owner), index, began, progress)
        except OSError as error:
            raise SnapshotError(
                f"the snapshot of {workspace} failed: {error}",
                resolution="check the file's permissions and the disk's free space",
            ) from error

    return await trio.to_thread.run_sync(call)


def _publish(
    workspace: Path,
    snapshots: Path,
    files: WorkspaceFiles,
    access: Access,
    path: Path | None,
    began: int,
    progress: Progress,
) -> Snapshot:
    root = os.fsencode(workspace)
    index = read_index(path, workspace) if path is not None else Index(root)
    tree = read_tree(root, files.names, index, progress, files.listed)
    history = files.history
    key = history.key if history is not None else b""
    found = tree_hash(tree, key)
    if not (snapshots / found).exists():
        known = index.owner == access.holder
        same = _same(index, tree, snapshots) if known else {}
        previous = snapshots / index.snapshot if known else None
        git_dir = GitDir(history, previous, access, progress) if history is not None else None
        found, tree = publish_tree(root, snapshots, found, tree, access, same, progress, git_dir)
    if path is not None and not _is_known(tree, found, index):
        seen = {name: one for name, one in tree.items() if isinstance(one, Seen)}
        write_index(path, Index(root, found, access.holder, began, seen))
    warnings = files.warnings
    if (large := large_warning(tree)) is not None:
        warnings += (large,)
    if history is not None and (large := large_history(snapshots / found)) is not None:
        warnings += (large,)
    return Snapshot(
        found,
        snapshots / found,
        files.commit,
        files.dirty,
        warnings,
        subject=files.subject,
        branch=files.branch,
    )


def _same(index: Index, tree: dict[bytes, Content], snapshots: Path) -> dict[bytes, bytes]:
    """The copies of unchanged files in the previous snapshot of this workspace, by name."""
    previous = os.fsencode(snapshots / index.snapshot) + b"/"
    return {
        name: previous + name
        for name, seen in index.files.items()
        if isinstance(now := tree.get(name), Seen)
        and now.digest == seen.digest
        and now.mode == seen.mode
    }


def _is_known(tree: dict[bytes, Content], found: str, index: Index) -> bool:
    """Whether the index has all of this already."""
    return index.snapshot == found and all(
        index.files.get(name) is one for name, one in tree.items() if isinstance(one, Seen)
    )


def publish_tree(
    root: bytes,
    snapshots: Path,
    found: str,
    tree: dict[bytes, Content],
    access: Access,
    same: dict[bytes, bytes],
    progress: Progress,
    git_dir: GitDir | None = None,
) -> tuple[str, dict[bytes, Content]]:
    """Publish a tree that was read, and whose hash was `found`; the same of what was copied."""
    new = snapshots / f"{UNFINISHED}{secrets.token_hex(8)}"
    new.mkdir(mode=0o755)
    try:
        copied = copy_tree(root, tree, os.fsencode(new), access, same, progress)
        if copied != tree:  # the workspace changed meanwhile
            found = tree_hash(copied, git_dir.history.key if git_dir is not None else b"")
        if git_dir is not None:
            git_dir.make(new)
        sync_file_system(new)
        try:
            new.rename(snapshots / found)
        except OSError:
            if not (snapshots / found).is_dir():
                raise
            # Another publisher was faster; its copy is identical.
            shutil.rmtree(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return found, copied
