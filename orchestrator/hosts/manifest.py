"""What is in a tree, and how it differs from another tree of this machine.

Trees are compared without reading their files: a file that two of them share is one file with two
names (see `orchestrator.snapshot.snapshot`), and published files never change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from states.errors import PikaciError


class Entry(NamedTuple):
    """A directory, file or link: the type and mode, and what tells whether it is the same.

    That is a file's device and inode, a link's target, and nothing for a directory.
    """

    mode: int
    same: tuple[int, int] | bytes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Manifest = Mapping[bytes, Entry]


@dataclass(frozen=True)
class Difference:
    """What makes one tree of another: names to `remove`, and then names to `send`, parents first.

    Whatever is sent is removed before. Directories that only have a change below them are sent too,
    for their modes.
    """

    remove: tuple[bytes, ...]
    send: tuple[bytes, ...]


def read_manifest(root: Path) -> Manifest:
    """The entries below a directory, by name, parents first. Blocks on the disk.

    Raises `OSError`, or `PikaciError` for what cannot be sent.
    """
    return {name: _entry(entry) for name, entry in walk(root)}


def walk(root: Path) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """What is below a directory, by name, depth first. Blocks on the disk; raises `OSError`.

    tar sets the times of a directory when it is past what is in it.
    """
    base = os.fsencode(root)
    waiting = _last_first(base)
    while waiting:
        entry = waiting.pop()
        yield entry.path[len(base) + 1 :], entry
        if entry.is_dir(follow_symlinks=False):
            waiting += _last_first(entry.path)


def _last_first(directory: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name, reverse=True)


def _entry(entry: os.DirEntry[bytes]) -> Entry:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Entry(status.st_mode, os.readlink(entry.path))
    if stat.S_ISDIR(status.st_mode):
        return Entry(status.st_mode, b"")
    if stat.S_ISREG(status.st_mode):
        return Entry(status.st_mode, (status.st_dev, status.st_ino))
    path = os.fsdecode(entry.path)
    raise PikaciError(f"{path} is not a file, directory or link, and cannot be sent to a host")


def difference(new: Manifest, base: Manifest) -> Difference:
    """How the tree `new` differs from the tree `base`. Pure."""
    changed = {name for name, entry in new.items() if base.get(name) != entry}
    remove = {name for name in base if name not in new}
    for name in changed:
        there, entry = base.get(name), new[name]
        if there is not None and not (there.is_directory and entry.is_directory):
            remove.add(name)
    above = {parent for name in changed | remove for parent in _parents(name) if parent in new}
    send = tuple(name for name in new if name in changed or name in above)
    # What is below a directory that goes, goes with it.
    tops = (name for name in base if name in remove and not remove.intersection(_parents(name)))
    return Difference(tuple(tops), send)


def _parents(name: bytes) -> list[bytes]:
    parts = name.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]
