"""How many jobs may wait to begin: submitters have room for theirs, wait for it, or are told."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from states.errors import PikaciError


class QueueFull(PikaciError):
    """As many jobs wait as may; nothing was submitted."""


class Room:
    """Room for `limit` jobs that have not begun. Who waits for some gets it in the order of coming.

    A run with more jobs than that has room when no other job waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0  # by submissions that are being made
        self._waiting: set[str] = set()  # jobs that are submitted, and have not begun
        self._turn = trio.Lock()
        self._left = trio.Event()

    async def take(self, jobs: int, *, wait: bool) -> None:
        """Have room for so many jobs, until it is given back; `QueueFull` if not to `wait`."""
        if wait:
            async with self._turn:
                while not self._has(jobs):
                    await self._left.wait()
                self._taken += jobs
            return
        if self._turn.locked() or not self._has(jobs):
            raise QueueFull(
                f"{self._used} jobs wait, and {self._limit} may",
                resolution="submit it again when some have begun",
            )
        self._taken += jobs

    def give_back(self, jobs: int, waiting: Iterable[str] = ()) -> None:
        """What was taken is free again, but for the jobs that came of it and are `waiting`."""
        self._taken -= jobs
        self._waiting.update(waiting)
        self._tell()

    def begun(self, job: str) -> None:
        """The job does not wait any more, if it did."""
        self._waiting.discard(job)
        self._tell()

    @property
    def _used(self) -> int:
        return self._taken + len(self._waiting)

    def _has(self, jobs: int) -> bool:
        return self._used == 0 or self._used + jobs <= self._limit

    def _tell(self) -> None:
        self._left.set()
        self._left = trio.Event()
