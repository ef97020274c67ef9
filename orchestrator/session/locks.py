"""Who owns what in a state root: by locks that die with their processes.

A process that runs jobs has a session, by whose name the ids of its runs begin. It holds the
session's lock, and with it all these runs, and shares the root with others that do the same. A
service has the root for itself.

What is not awaited here waits for the disk, and for another process that looks at a lock just now:
in a trio program it belongs in a thread (`slow_files.in_thread`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

import trio

from orchestrator.errors import UsageError

LOOKS = 3
LOOK_AGAIN_SECS = 0.05


def session_of(run: str) -> str:
    """The session that a run was submitted in: its own id, to the first `-`."""
    return run.partition("-")[0]


class RootHeld(UsageError):
    """A service has the state root for itself."""


@contextmanager
def share_root(root: Path) -> Iterator[None]:
    """Use the root beside others. `RootHeld` when a service has it for itself."""
    with (root / "lock").open("a+") as file:
        if not _flock(file, fcntl.LOCK_SH):
            file.seek(0)
            raise RootHeld(
                f"{root} is held by `pikaci serve`, process {file.read().strip() or 'unknown'}",
                resolution="it goes on with what dead processes left, and deletes instances that"
                " nobody needs, by itself; to do more, end it first",
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
    """Hold the session of a run; the kernel lets go of it when the process dies.

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
    """Hold the session of a run, or say that another process does."""
    path = locks / session_of(run)
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


@asynccontextmanager
async def submitting(snapshots: Path) -> AsyncIterator[None]:
    """A snapshot that is found or made in the block is not deleted before its end."""
    # Who deletes snapshots has it meanwhile. No thread waits for that: jobs want them all.
    while (directory := await trio.to_thread.run_sync(_shared, snapshots)) is None:
        await trio.sleep(LOOK_AGAIN_SECS)
    try:
        yield
    finally:
        os.close(directory)


def _shared(directory: Path) -> int | None:
    """A descriptor that shares the lock of the directory; None when somebody has it alone."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    if _flock(descriptor, fcntl.LOCK_SH):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def no_submissions(snapshots: Path) -> Iterator[bool]:
    """Nobody is `submitting` in the block; False when somebody is."""
    with _opened(snapshots) as directory:
        yield _flock(directory, fcntl.LOCK_EX)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(locks: Path, run: str) -> bool:
    """Whether a living process holds the run."""
    try:
        with (locks / session_of(run)).open() as file:
            return not _flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _sign(file: TextIO) -> None:
    file.truncate(0)
    with suppress(OSError):  # on a full disk the holder has no name
        os.write(file.fileno(), f"{os.getpid()}\n".encode())


def _flock(file: TextIO | int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_pid(locks: Path, run: str) -> int | None:
    """The process that holds the run; None when it has not written its id."""
    try:
        return int((locks / session_of(run)).read_text())
    except (OSError, ValueError):
        return None


def holder(locks: Path, run: str) -> str:
    """The process that holds the run, in words."""
    pid = holder_pid(locks, run)
    return "another process" if pid is None else f"process {pid}"
