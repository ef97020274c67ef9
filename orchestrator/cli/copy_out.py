"""Copies a job's artifacts into a directory. Nothing outside it is written, whatever the names."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.attempt.archive import CollectedFile
from orchestrator.errors import UsageError
from orchestrator.service.artifacts import open_artifact
from states.errors import PikaciError

CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_NAMED = 10


def copy_out(source: Path, files: Sequence[CollectedFile], into: Path, *, force: bool) -> None:
    """Copy the files below `source` into a directory, which is created if it does not exist.

    Their exec bits are kept. Without `force` an existing file is a `UsageError`, and nothing is
    copied; with it, files are replaced. No link in the directory is followed. `PikaciError` if a
    file cannot be written, or is not as it was collected; files before it stay.
    """
    existing = [file.path for file in files if os.path.lexists(into / file.path)]
    if existing and not force:
        more = f" and {len(existing) - _MOST_NAMED} more" if len(existing) > _MOST_NAMED else ""
        raise UsageError(
            f"{into} already has {', '.join(existing[:_MOST_NAMED])}{more}",
            resolution="name another directory, or replace files with --force",
        )
    try:
        into.mkdir(parents=True, exist_ok=True)
        base = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--to {into} cannot be used: {getattr(error, 'strerror', None) or error}",
            resolution="name a directory that you can write to",
        ) from None
    try:
        for file in files:
            try:
                _copy(source, file, base, force=force)
            except OSError as error:
                raise PikaciError(
                    f"{into / file.path} cannot be written: {error.strerror}",
                    resolution="copy again into an empty directory",
                ) from None
    finally:
        os.close(base)


def _copy(source: Path, file: CollectedFile, base: int, *, force: bool) -> None:
    *parents, name = file.path.split("/")
    opened = open_artifact(source, file.path)
    try:
        executable = os.fstat(opened).st_mode & 0o100
        with _below(base, parents) as directory:
            new = f".pikaci-{secrets.token_hex(8)}" if force else name
            target = os.open(new, _NEW, 0o777 if executable else 0o666, dir_fd=directory)
            try:
                try:
                    _pump(opened, target, file)
                finally:
                    os.close(target)
                if force:
                    os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=directory)
                raise
    finally:
        os.close(opened)


@contextmanager
def _below(base: int, parents: Sequence[str]) -> Iterator[int]:
    """The directory below `base`, which is created if it does not exist. No link is followed."""
    here = os.dup(base)
    try:
        for part in parents:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
            there = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)


def _pump(source: int, target: int, file: CollectedFile) -> None:
    digest, left = hashlib.sha256(), file.size
    while left and (chunk := os.read(source, min(CHUNK, left))):
        left -= len(chunk)
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
    if left or os.read(source, 1) or digest.hexdigest() != file.sha256:
        raise PikaciError(
            f"{file.path!r} was changed after it was collected",
            resolution="run the job again",
        )
