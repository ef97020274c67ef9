"""Who owns what in a state root: by locks that die with their processes.

A process that runs jobs holds each run, and shares the root with others that do. A service has
the root for itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.errors import UsageError

LOOKS = 3


@contextmanager
def share_root(root: Path) -> Iterator[None]:
    """Use the root beside others. `UsageError` when a service has it for itself."""
    with (root / "lock").open("a+") as file:
        if not _flock(file, fcntl.LOCK_SH):
            file.seek(0)
            raise UsageError(
                f"{root} is held by `pikaci serve`, process {file.read().strip() or 'unknown'}",
                resolution="end that first, or name another root with --state-root",
            )
        file.truncate(0)  # of a service that was killed
        yield


@contextmanager
def hold_root(root: Path) -> Iterator[None]:
    """Have the root alone. `UsageError` when another process uses it."""
    with (root / "lock").open("a+") as file:
        if not _flock(file, fcntl.LOCK_EX):
            file.seek(0)
            service = file.read().strip()
            users = [f"`pikaci serve`, process {service}"] if service else _users(root / "locks")
            raise UsageError(
                f"{root} is in use: {', '.join(users) or 'by another pikaci'}",
                resolution="wait for it, or name another root with --state-root",
            )
        _sign(file)
        try:
            yield
        finally:
            file.truncate(0)


def _users(locks: Path) -> list[str]:
    runs = sorted(path.name for path in locks.iterdir() if path.suffix != ".sock")
    return [f"the run {run} by {holder(locks, run)}" for run in runs if is_held(locks, run)]


@contextmanager
def hold_run(locks: Path, run: str) -> Iterator[None]:
    """Hold the lock of a run; the kernel lets go of it when the process dies.

    `UsageError` when another process has it.
    """
    with try_hold(locks, run) as held:
        if not held:
            raise UsageError(
                f"the run {run} is held by {holder(locks, run)}",
                resolution="wait for it, or end it with `pikaci cancel`",
            )
        yield


@contextmanager
def try_hold(locks: Path, run: str) -> Iterator[bool]:
    """Hold the lock of a run, or say that another process does."""
    path = locks / run
    file = _lock(path)
    if file is None:
        yield False
        return
    with file:
        _sign(file)
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> TextIO | None:
    blocked = 0
    while True:
        file = path.open("a")
        if not _flock(file, fcntl.LOCK_EX):
            file.close()
            # `is_held` has it for a moment.
            blocked += 1
            if blocked == LOOKS:
                return None
            time.sleep(0.005)
            continue
        try:
            # Who held it before may have removed it since we opened it.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


def is_held(locks: Path, run: str) -> bool:
    """Whether a living process holds the run."""
    try:
        with (locks / run).open() as file:
            return not _flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _sign(file: TextIO) -> None:
    file.truncate(0)
    with suppress(OSError):  # on a full disk the holder has no name
        os.write(file.fileno(), f"{os.getpid()}\n".encode())


def _flock(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(locks: Path, run: str) -> str:
    """The process that holds the run, in words."""
    try:
        return f"process {int((locks / run).read_text())}"
    except (OSError, ValueError):
        return "another process"
