"""A tree as a tar stream, with the hashes of its files at the end. Blocks on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.contract import contract
from orchestrator.hosts import tar
from orchestrator.hosts.tar_tree import joined, member, own_member

TREE, SUMS = "tree", "sums"


def pack(root: Path, names: Iterable[bytes]) -> Iterator[bytes]:
    """The archive, in pieces: the named entries below `tree`, and last a file `sums`.

    `sums` is what `sha256sum -c` reads. Parents must come before what is in them. All belongs to
    the job's user. Errors are those of `member`.
    """
    return joined(_members(os.fsencode(root), names))


def _members(root: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    owner = (contract().user.uid, contract().user.gid)
    sums = bytearray()
    for name in (b"", *names):
        path, called = (os.path.join(base, name) if name else base for base in (root, _TREE))
        digest = hashlib.sha256()
        yield from member(path, called, owner, digest)
        if os.path.isfile(path) and not os.path.islink(path):
            sums += _sum_line(digest.hexdigest(), name)
    yield own_member(SUMS.encode(), bytes(sums)) + tar.END


_TREE = TREE.encode()


def _sum_line(digest: str, name: bytes) -> bytes:
    """A line of `sha256sum`; none for a name that versions of it write in different ways."""
    if any(byte in name for byte in b"\\\r\n"):
        return b""
    return f"{digest}  ./".encode() + name + b"\n"
