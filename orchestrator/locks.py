"""Who owns what in a state root: a run holds a lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold_run(locks: Path, run: str) -> Iterator[None]:
    """Hold the lock of a run; the kernel lets go of it when the process dies."""
    path = locks / run
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(locks: Path, run: str) -> bool:
    """Whether a living process holds the run."""
    try:
        with (locks / run).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
