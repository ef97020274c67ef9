"""Whether the service accepts jobs: it is not stopping, Incus answers, and the disk has space."""

from __future__ import annotations

import os

import trio

from orchestrator.incus import Deadline
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.problems import Problem
from orchestrator.units import size

ASK_SECS = 5.0
# However often clients ask, there is at most one incus command in this time.
REMEMBERED_SECS = 5.0
# Free space on the state root's disk: with less, the journal is almost out of space.
LEAST_BYTES = 16 << 20


class Readiness:
    """Checks on request, and remembers an answer of the daemon for `REMEMBERED_SECS`."""

    def __init__(self, orchestrator: Orchestrator, stopping: trio.Event) -> None:
        self._orchestrator = orchestrator
        self._stopping = stopping
        self._one_asks = trio.Lock()
        self._answered = -REMEMBERED_SECS

    async def check(self) -> None:
        """Return if the service accepts jobs. Raises a `Problem` with 503, or an `IncusError`."""
        if self._stopping.is_set():
            raise Problem(503, "the service is stopping")
        disk = await trio.to_thread.run_sync(os.statvfs, self._orchestrator.root.path)
        if disk.f_bavail * disk.f_frsize < LEAST_BYTES:
            raise Problem(
                503,
                f"{self._orchestrator.root.path} has less than {size(LEAST_BYTES)} free",
                resolution="free some space, for example with `pikaci gc`",
            )
        async with self._one_asks:
            if trio.current_time() - self._answered < REMEMBERED_SECS:
                return
            deadline = Deadline(ASK_SECS)
            await self._orchestrator.incus.query("/1.0", dict, deadline=deadline, in_project=False)
            self._answered = trio.current_time()
