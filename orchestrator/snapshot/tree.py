"""The content of a tree: its files and links by name, and the hash over all of them.

The hash covers names, bytes, modes and link targets; each part is prefixed with its length.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence

import trio

from orchestrator.snapshot.content import Access, copy_file, digest
from orchestrator.snapshot.index import Index, Seen
from orchestrator.snapshot.progress import Progress

_FORMAT = b"pikaci snapshot 1\0"

NOTHING_LISTED: Mapping[bytes, Seen] = {}

# A regular file, or the target of a link.
Content = Seen | bytes


def tree_hash(tree: Mapping[bytes, Content], history: bytes = b"") -> str:
    """The hash of the files and links of a tree, in the order of their names.

    `history` is the key of what its `.git` is made from; empty for a tree without one.
    """
    whole = hashlib.sha256(_FORMAT)
    for name, content in tree.items():
        if isinstance(content, bytes):
            kind, what = b"link", content
        else:
            kind, what = b"file %o" % stat.S_IMODE(content.mode), content.digest
        parts = (len(name), name, len(kind), kind, len(what), what)
        whole.update(b"%d:%b%d:%b%d:%b" % parts)
    if history:
        whole.update(b"4:.git7:history%d:%b" % (len(history), history))
    return whole.hexdigest()


def read_tree(
    root: bytes,
    names: Sequence[bytes],
    index: Index,
    progress: Progress,
    listed: Mapping[bytes, Seen] = NOTHING_LISTED,
) -> dict[bytes, Content]:
    """Read the named files and links below `root`, except for files that the index knows.

    `listed` are regular files as they were when they were listed, without digests: asking the file
    system a second time costs a tenth of an unchanged snapshot.
    """
    tree: dict[bytes, Content] = {}
    progress.begin("reading", len(names))
    for name in names:
        trio.from_thread.check_cancelled()
        path = root + b"/" + name
        try:
            if (now := listed.get(name)) is None:
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    tree[name] = os.readlink(path)
                    progress.count(status.st_size)
                    continue
                now = Seen.now(status)
            tree[name] = index.find(name, now) or now.with_digest(digest(path))
            progress.count(now.size)
        except FileNotFoundError:
            pass  # deleted since it was listed
    return tree


def copy_tree(
    root: bytes,
    tree: Mapping[bytes, Content],
    new: bytes,
    access: Access,
    same: Mapping[bytes, bytes],
    progress: Progress,
) -> dict[bytes, Content]:
    """Copy a tree that was read to the directory `new`; what was copied.

    `same` are files with the content of the tree's, by name: they become hard links to these.
    """
    copied: dict[bytes, Content] = {}
    access.give(new, 0o755)
    made = {b""}
    progress.begin("copying", len(tree))
    for name, content in tree.items():
        trio.from_thread.check_cancelled()
        progress.count(content.size if isinstance(content, Seen) else 0)
        if (parent := name.rpartition(b"/")[0]) not in made:
            _make_parents(new, parent, made, access)
        target = new + b"/" + name
        if (ready := same.get(name)) is not None and _link(ready, target):
            copied[name] = content
            continue
        try:
            copied[name] = _copy(root + b"/" + name, target, access)
        except FileNotFoundError:
            pass  # deleted since it was read
    return copied


def _copy(path: bytes, target: bytes, access: Access) -> Content:
    status = os.lstat(path)
    if not stat.S_ISLNK(status.st_mode):
        return Seen.now(*copy_file(path, target, access))
    leads_to = os.readlink(path)
    os.symlink(leads_to, target)
    access.give(target, None)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    return leads_to


def _link(ready: bytes, target: bytes) -> bool:
    """Whether a hard link could be made. There is a limit for each file, and some have none."""
    try:
        os.link(ready, target, follow_symlinks=False)
    except OSError:
        return False
    return True


def _make_parents(new: bytes, parent: bytes, made: set[bytes], access: Access) -> None:
    if parent in made:
        return
    _make_parents(new, os.path.dirname(parent), made, access)
    target = new + b"/" + parent
    os.mkdir(target)
    access.give(target, 0o755)
    made.add(parent)
