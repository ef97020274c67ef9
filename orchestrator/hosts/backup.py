"""A local tree as a backup of a volume, which Incus unpacks into a new volume. Blocks.

Incus reads the backup's index wherever it stands, and refuses a backup without one. So the index
comes last: an archive that was cut off anywhere makes no volume.

The tree is a directory of the volume (`TREE`), not the volume's own: Incus gives that mode 0711.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import msgspec

from orchestrator.hosts import tar
from orchestrator.hosts.manifest import walk
from orchestrator.hosts.tar_tree import joined, member, own_member

TREE = "tree"

_VOLUME = b"backup/volume"
_INDEX = b"backup/index.yaml"


def archive(
    tree: Path, config: Mapping[str, str], *, owner: tuple[int, int]
) -> Generator[bytes, None, None]:
    """The backup in pieces, compressed: a volume with this configuration, and the tree in it.

    All of the tree belongs to `owner`, a (uid, gid). Errors are those of `member`.
    """
    # The fastest level: source code becomes a quarter, and the way there is the narrow part.
    gzip = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    for piece in joined(_members(tree, config, owner)):
        yield gzip.compress(piece)
    yield gzip.flush()


def _members(tree: Path, config: Mapping[str, str], owner: tuple[int, int]) -> Iterator[bytes]:
    yield tar.header(tar.Entry(_VOLUME, tar.DIRECTORY, 0o755), (0, 0))
    root, called = os.fsencode(tree), _VOLUME + b"/" + TREE.encode()
    yield from member(root, called, owner)
    for name, _ in walk(tree):
        yield from member(root + b"/" + name, called + b"/" + name, owner)
    yield own_member(_INDEX, _index(config)) + tar.END


def _index(config: Mapping[str, str]) -> bytes:
    # Name, driver and pool have to be there. Incus takes others: the call's, and the pool's own.
    volume = {"name": TREE, "type": "custom", "content_type": "filesystem", "config": dict(config)}
    return msgspec.json.encode(
        {
            "name": TREE,
            "backend": "dir",
            "pool": TREE,
            "optimized": False,
            "optimized_header": False,
            "type": "custom",
            "config": {"volume": volume},
        }
    )
