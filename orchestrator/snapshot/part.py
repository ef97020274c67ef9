"""Publishes a part of a snapshot, for a job that sees only some files of the workspace.

The part is a snapshot like any other: named by its content, and never changed. Its files are hard
links to those of the whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import trio

from orchestrator.errors import SnapshotError
from orchestrator.globs import GlobSet
from orchestrator.snapshot.content import Access, digest
from orchestrator.snapshot.index import Index, Seen
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.snapshot import Snapshot, publish_tree
from orchestrator.snapshot.tree import Content, tree_hash

_GIT = b".git"


async def publish_part(
    whole: Snapshot,
    snapshots: Path,
    globs: tuple[str, ...],
    *,
    owner: tuple[int, int],
    index: Index | None = None,
) -> Snapshot:
    """Publish the files of a snapshot that one of the globs matches, or a directory above them.

    The part has no commit, and no `.git`: what a job sees of the workspace is all that it depends
    on. A glob that matches nothing is a warning. `owner` is the (uid, gid) of the job's user. With
    the `index` that was written for the whole snapshot no file is read.
    """
    digests = index.files if index is not None and index.snapshot == whole.hash else {}

    def call() -> Snapshot:
        try:
            return _publish(whole, snapshots, globs, Access(owner), digests)
        except OSError as error:
            raise SnapshotError(
                f"a part of the snapshot {whole.hash[:12]} could not be published: {error}",
                resolution="check the disk's free space",
            ) from error

    return await trio.to_thread.run_sync(call)


def _publish(
    whole: Snapshot,
    snapshots: Path,
    globs: tuple[str, ...],
    access: Access,
    digests: Mapping[bytes, Seen],
) -> Snapshot:
    root = os.fsencode(whole.path)
    sets = {glob: GlobSet((glob.rstrip("/"),)) for glob in globs}
    unused = set(sets)
    tree: dict[bytes, Content] = {}
    for name in sorted(_names(root)):
        shown = os.fsdecode(name)
        if found := [glob for glob, one in sets.items() if one.takes(shown)]:
            unused.difference_update(found)
            tree[name] = _content(root + b"/" + name, digests.get(name))
    part = tree_hash(tree)
    if not (snapshots / part).exists():
        same = {
            name: root + b"/" + name for name, one in tree.items() if not isinstance(one, bytes)
        }
        part, _ = publish_tree(root, snapshots, part, tree, access, same, Progress())
    return replace(
        whole,
        hash=part,
        path=snapshots / part,
        commit=None,
        dirty=None,
        subject="",
        branch="",
        warnings=tuple(
            f"sources: {glob!r} matches no file of the workspace"
            for glob in globs
            if glob in unused
        ),
    )


def _content(path: bytes, known: Seen | None) -> Content:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    return Seen.now(status, known.digest if known is not None else digest(path))


def _names(root: bytes) -> Iterator[bytes]:
    """The files and links below a directory, relative to it; no link is followed."""
    rest = [b""]
    while rest:
        parent = rest.pop()
        with os.scandir(root + b"/" + parent) as entries:
            for entry in entries:
                name = parent + b"/" + entry.name if parent else entry.name
                if name == _GIT:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    rest.append(name)
                else:
                    yield name
