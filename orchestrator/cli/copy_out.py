"""Copies a job's artifacts into a directory. Nothing outside it is written, whatever the names."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.attempt.archive import CollectedFile, read_artifacts
from orchestrator.errors import UsageError
from orchestrator.service.artifacts import open_artifact
from states.errors import PikaciError

if TYPE_CHECKING:
    from orchestrator.report import RunReport

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
            f"{into} cannot be used: {getattr(error, 'strerror', None) or error}",
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


def new_directory(into: Path) -> None:
    """Create a directory, or find it empty, so that all that it has later is of one run.

    `UsageError` if it has something in it, or cannot be used.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        with os.scandir(into) as entries:
            found = next(entries, None)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{into} cannot be used: {getattr(error, 'strerror', None) or error}",
            resolution="name a directory that you can write to",
        ) from None
    if found is not None:
        raise UsageError(f"{into} is not empty", resolution="name a new or an empty directory")


def copy_run(report: RunReport, into: Path) -> None:
    """Copy what a run's jobs left into a directory: several jobs' each into one of its name.

    `PikaciError` if a file cannot be written.
    """
    for job in report.jobs:
        if job.artifacts is None:
            continue
        source = Path(job.artifacts)
        try:
            files = read_artifacts(source.parent).files
            if files:
                own = into if len(report.jobs) == 1 else into / job.name
                copy_out(source, files, own, force=False)
        except PikaciError as error:
            # The run has gone on and ended meanwhile: this is no mistake in what was asked for.
            raise PikaciError(
                f"the artifacts of {job.id} are not in {into}: {error.headline}",
                resolution=f"they are in {source}",
            ) from None


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
