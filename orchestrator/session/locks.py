"""Who owns what in a state root: locks that die with their processes.

A process that runs jobs has a session; the ids of its runs begin with the session's name. The
process holds the session's lock, and so owns all these runs. It shares the root with other such
processes. A service has the root to itself.

Functions here that are not async block on the disk, and briefly on other processes that look at a
lock: in a trio program, call them in a thread (`slow_files.in_thread`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.errors import UsageError

LOOKS = 3
LOOK_AGAIN_SECS = 0.05


def session_of(run: str) -> str:
    """The session of a run: the part of its id before the first `-`."""
    return run.partition("-")[0]


class RootHeld(UsageError):
    """A service has the state root to itself."""


@contextmanager
def share_root(root: Path) -> Iterator[None]:
    """Share the root with other processes. `RootHeld` if a service has it to itself."""
    with (root / "lock").open("a+") as file:
        if not _flock(file, fcntl.LOCK_SH):
            file.seek(0)
            raise RootHeld(
                f"{root} is in use by `pikaci serve`, process {file.read().strip() or 'unknown'}",
                resolution="the service resumes jobs of dead processes and deletes unneeded"
                " instances by itself; stop it first to do this yourself",
            )
        file.truncate(0)  # it may hold the pid of a service that was killed
        yield


@contextmanager
def hold_root(root: Path) -> Iterator[None]:
    """Have the root to this process alone. `UsageError` if another process uses it."""
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
    """Hold the lock of a run's session; the kernel releases it when the process dies.

    `UsageError` if another process holds it.
    """
    with try_hold(locks, run) as held:
        if not held:
            raise UsageError(
                f"the run {run} belongs to {holder(locks, run)}",
                resolution="wait for it, or cancel it with `pikaci cancel`",
            )
        yield


@contextmanager
def try_hold(locks: Path, run: str) -> Iterator[bool]:
    """Try to hold the lock of a run's session; False if another process holds it."""
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
            # `is_held` may hold it for a moment.
            blocked += 1
            if blocked == LOOKS:
                return None
            time.sleep(0.005)
            continue
        try:
            # The previous holder may have removed it since we opened it.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


@asynccontextmanager
async def submitting(snapshots: Path) -> AsyncIterator[None]:
    """Snapshots found or made in the block are not deleted until it ends."""
    import trio  # here: commands that only look need not load it

    # Garbage collection may hold it. Poll instead of blocking a thread: jobs need the threads.
    while (directory := await trio.to_thread.run_sync(_shared, snapshots)) is None:
        await trio.sleep(LOOK_AGAIN_SECS)
    try:
        yield
    finally:
        os.close(directory)


def _shared(directory: Path) -> int | None:
    """A descriptor with a shared lock on the directory; None if the lock is held exclusively."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    if _flock(descriptor, fcntl.LOCK_SH):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def no_submissions(snapshots: Path) -> Iterator[bool]:
    """Keep `submitting` out during the block; False if somebody is in it already."""
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
    """Whether a live process owns the run."""
    try:
        with (locks / session_of(run)).open() as file:
            return not _flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _sign(file: TextIO) -> None:
    file.truncate(0)
    with suppress(OSError):  # on a full disk the holder's pid stays unknown
        os.write(file.fileno(), f"{os.getpid()}\n".encode())


def _flock(file: TextIO | int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_pid(locks: Path, run: str) -> int | None:
    """The pid of the process that owns the run; None if it has not written it."""
    try:
        return int((locks / session_of(run)).read_text())
    except (OSError, ValueError):
        return None


def holder(locks: Path, run: str) -> str:
    """The process that owns the run, in words."""
    pid = holder_pid(locks, run)
    return "another process" if pid is None else f"process {pid}"
