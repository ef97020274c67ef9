"""Reads of the journal and of logs, in worker threads: a slow disk holds up its reader alone.

The threads are the readers' own: however many read, the jobs' incus commands find theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from orchestrator.journal import JournalError

_T = TypeVar("_T")

THREADS = 4


class Reading:
    """The reads of one orchestrator.

    The journal is read by one thread at a time, as it has one connection for reading.
    """

    def __init__(self) -> None:
        self._journal = trio.CapacityLimiter(1)
        self._others = trio.CapacityLimiter(THREADS)
        self._closed = False

    async def journal(self, call: Callable[[], _T]) -> _T:
        """What `call` reads from the journal. `JournalError` once this is closed."""

        def read() -> _T:
            if self._closed:
                raise JournalError(
                    "the journal is not open",
                    resolution="ask in the block that opened it; jobs that it left are the next"
                    " start's",
                )
            return call()

        return await trio.to_thread.run_sync(read, limiter=self._journal)

    async def apart(self, call: Callable[[], _T]) -> _T:
        """What `call` reads from a job's files, or makes of what was read."""
        return await trio.to_thread.run_sync(call, limiter=self._others)

    async def aclose(self) -> None:
        """Wait for the read that is going on, and refuse all others."""
        async with self._journal:
            self._closed = True
