"""The globs of `[snapshot]`: ignored files to add, and files to leave out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.globs import GlobSet


def included(workspace: Path, glob: str) -> Iterator[bytes]:
    """The files and links that a glob of `include` matches; of a directory, all below it.

    No link is followed. Raises `UsageError` for what is no glob below the workspace.
    """
    _check("include", glob)
    try:
        found = list(workspace.glob(glob))
    except (ValueError, IndexError, NotImplementedError):
        raise UsageError(
            f"snapshot.include: {glob!r} is not a valid glob",
            resolution="for example `dist/**` or `generated/*.py`",
        ) from None
    for path in found:
        if any((workspace / one).is_symlink() for one in path.relative_to(workspace).parents[:-1]):
            continue  # a path through a link may lead anywhere
        below = path.rglob("*") if path.is_dir() and not path.is_symlink() else (path,)
        for one in below:
            if one.is_symlink() or one.is_file():
                yield os.fsencode(one.relative_to(workspace))


class Exclusion:
    """The globs of `exclude`. They match as globs of artifacts do, whatever the names are."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._sets: dict[str, GlobSet] = {}
        for glob in globs:
            _check("exclude", glob)
            self._sets[glob] = GlobSet((glob.rstrip("/"),))
        self.unused = set(self._sets)

    def takes(self, name: bytes) -> bool:
        """Whether a glob matches a name, or a directory above it."""
        if not self._sets:
            return False
        path = os.fsdecode(name)
        found = [glob for glob, one in self._sets.items() if one.takes(path)]
        self.unused.difference_update(found)
        return bool(found)


def _check(key: str, glob: str) -> None:
    if not glob or glob.startswith("/") or ".." in glob.split("/"):
        raise UsageError(
            f"snapshot.{key}: {glob!r} leaves the workspace",
            resolution="globs are relative to the workspace, without `..`",
        )
