"""One job at a time makes the output with a key, in whichever process it is.

The others wait, and then find it. When the job that makes it is cancelled, or its process dies, the
next one makes it. Within a process nobody polls; between processes the kernel's file locks decide,
and end with their holders.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

LOCK = ".lock-"
# Between two looks at a lock that another process holds. No thread is kept waiting: jobs need them.
LOOK_AGAIN_SECS = 0.5


class Building:
    """Grants the keys of the outputs in one directory to the jobs of this process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks: dict[str, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """No other job makes the output with this key during the block. Waits for that."""
        lock, users = self._locks.get(key, (trio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                path = self._directory / f"{LOCK}{key}"
                while (held := await trio.to_thread.run_sync(try_lock, path)) is None:
                    await trio.sleep(LOOK_AGAIN_SECS)
                try:
                    yield
                finally:
                    os.close(held)
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of a key; None if somebody else holds it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Garbage collection may have deleted the file since it was opened.
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return held
        except BlockingIOError:
            os.close(held)
            return None
        except FileNotFoundError:
            pass
        os.close(held)
