"""Files that a job left, for who asks by a path. Nothing outside of their directory is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import NotFound
from orchestrator.service.types import Artifact

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def list_artifacts(directory: Path) -> list[Artifact]:
    """The regular files below the directory, by path; links are not followed."""
    found = []
    for path, _, names in os.walk(directory):
        for name in names:
            file = os.path.join(path, name)
            try:
                status = os.lstat(file)
            except FileNotFoundError:
                continue  # `pikaci gc` has taken it
            if stat.S_ISREG(status.st_mode):
                relative = os.fsencode(os.path.relpath(file, directory))
                found.append(
                    Artifact(path=relative.decode("utf-8", "replace"), size=status.st_size)
                )
    return sorted(found, key=lambda artifact: artifact.path)


def open_artifact(directory: Path, path: str) -> int:
    """A descriptor of the regular file `path` below the directory, the caller's to close.

    `NotFound` for all that is not one, a link on the way there among it.
    """
    try:
        *parents, name = path.split("/")
        if any(part in ("", ".", "..") for part in (*parents, name)):
            raise OSError
        with _opened(directory, parents) as parent:
            file = os.open(name, _FLAGS, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError
    except (OSError, ValueError):
        raise NotFound(
            f"the job left no file {path!r}", resolution="the list of artifacts has those that are"
        ) from None
    return file


@contextmanager
def _opened(directory: Path, parents: list[str]) -> Iterator[int]:
    here = os.open(directory, _FLAGS | os.O_DIRECTORY)
    try:
        for part in parents:
            there = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)
