"""Reads the journal and logs in worker threads: a slow disk delays only the reader.

Readers have their own thread limit, so that they never take the threads of jobs' incus commands.
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

    One thread at a time reads the journal, because it has one connection for reading.
    """

    def __init__(self) -> None:
        self._journal = trio.CapacityLimiter(1)
        self._others = trio.CapacityLimiter(THREADS)
        self._closed = False

    async def journal(self, call: Callable[[], _T]) -> _T:
        """Run `call`, which reads from the journal. `JournalError` once this is closed."""

        def read() -> _T:
            if self._closed:
                raise JournalError(
                    "the journal is not open",
                    resolution="read it inside the block that opened it; the next start resumes"
                    " unfinished jobs",
                )
            return call()

        return await trio.to_thread.run_sync(read, limiter=self._journal)

    async def apart(self, call: Callable[[], _T]) -> _T:
        """Run `call`, which reads a job's files, or processes what was read."""
        return await trio.to_thread.run_sync(call, limiter=self._others)

    async def aclose(self) -> None:
        """Wait for the current read, and refuse all later ones."""
        async with self._journal:
            self._closed = True
