"""Limits how many jobs may be queued: more submissions wait, or are refused."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from orchestrator.units import counted
from states.errors import PikaciError


class QueueFull(PikaciError):
    """The queue is full; nothing was submitted."""


class Backlog:
    """Holds at most `limit` queued jobs. Waiting submitters are served in order of arrival.

    A run with more jobs than `limit` is accepted when no other job is queued.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0  # by submissions in progress
        self._waiting: set[str] = set()  # jobs that are submitted but have not begun
        self._turn = trio.Lock()
        self._left = trio.Event()

    async def reserve(self, jobs: int, *, wait: bool) -> None:
        """Reserve room for this many jobs; without `wait`, `QueueFull` if there is none."""
        if wait:
            async with self._turn:
                while not self._has(jobs):
                    await self._left.wait()
                self._taken += jobs
            return
        if self._turn.locked() or not self._has(jobs):
            raise QueueFull(
                f"the queue is full: it has {counted(self._used, 'job')}, and the limit is"
                f" {self._limit}",
                resolution="submit again when some of them have started",
            )
        self._taken += jobs

    def release(self, jobs: int, waiting: Iterable[str] = ()) -> None:
        """Free a reservation, except for its submitted jobs, which are `waiting`."""
        self._taken -= jobs
        self._waiting.update(waiting)
        self._tell()

    def remove(self, job: str) -> None:
        """The job has begun: it is no longer queued, if it was."""
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
