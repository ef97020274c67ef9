"""How many bytes trees take up on the disk, where they may share files by hard links."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_BLOCK = 512  # what st_blocks counts


def disk_usage(path: Path) -> int:
    """Bytes on the disk of a file or a tree. Files that are deleted meanwhile count nothing."""
    return sum(status.st_blocks * _BLOCK for status in _statuses(path))


class SharedUsage:
    """Bytes on the disk of several trees, which may share files. Links elsewhere do not count."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._sizes: Counter[frozenset[str]] = Counter()  # by the names of all that have the file
        shared: dict[tuple[int, int], tuple[int, frozenset[str]]] = {}
        alone = frozenset[str]()
        for path in paths:
            unions: dict[frozenset[str], frozenset[str]] = {}  # one object for equal sets
            for status in _statuses(path):
                size, file = status.st_blocks * _BLOCK, (status.st_dev, status.st_ino)
                if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
                    self._sizes[unions.setdefault(alone, frozenset((path.name,)))] += size
                else:
                    _, users = shared.get(file, (size, alone))
                    shared[file] = size, unions.setdefault(users, users | {path.name})
        for size, users in shared.values():
            self._sizes[users] += size

    def of(self, names: Collection[str]) -> int:
        """The bytes that these trees take up together."""
        named = set(names)
        return sum(size for users, size in self._sizes.items() if not named.isdisjoint(users))


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """The status of everything in a tree, itself included."""
    with suppress(OSError):
        status = path.lstat()
        yield status
        trees = [os.fspath(path)] if stat.S_ISDIR(status.st_mode) else []
        while trees:
            with suppress(OSError), os.scandir(trees.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        yield status
                        if stat.S_ISDIR(status.st_mode):
                            trees.append(entry.path)
