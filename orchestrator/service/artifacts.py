"""Lists and opens artifacts. Never opens anything outside of their directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.attempt.archive import read_manifest
from orchestrator.errors import NotFound
from orchestrator.service.types import Artifact

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def list_artifacts(directory: Path) -> list[Artifact]:
    """The files in the manifest beside the directory, sorted by path.

    Empty if nothing was collected yet, or the manifest cannot be read.
    """
    try:
        collected = read_manifest(directory.parent).files
    except (FileNotFoundError, msgspec.MsgspecError):
        return []
    return sorted(
        (Artifact(path=file.path, size=file.size, sha256=file.sha256) for file in collected),
        key=lambda artifact: artifact.path,
    )


def open_artifact(directory: Path, path: str) -> int:
    """A descriptor of the regular file `path` below the directory, for the caller to close.

    `NotFound` for anything else, including paths that go through a link.
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
            f"the job has no artifact {path!r}", resolution="the list of artifacts has their paths"
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
