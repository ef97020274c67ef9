"""Whether the service accepts jobs: it is not stopping, Incus answers, and the disk has space."""

from __future__ import annotations

import os

import trio

from orchestrator.incus import Deadline
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.problems import Problem
from orchestrator.units import size
from states.errors import PikaciError

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
        self._away: dict[str, PikaciError] = {}

    async def check(self) -> list[str]:
        """Return if the service accepts jobs, with a line for each of its hosts that is away.

        Raises a `Problem` with 503, or if no host answers an `IncusError`.
        """
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
            if trio.current_time() - self._answered >= REMEMBERED_SECS:
                self._away = await self._ask()
                self._answered = trio.current_time()
            return [
                f"without the host {name}: {each.headline}" for name, each in self._away.items()
            ]

    async def _ask(self) -> dict[str, PikaciError]:
        """Why hosts do not answer, by name. Raises it if none does."""
        away: dict[str, PikaciError] = {}

        async def ask(host: str) -> None:
            incus = self._orchestrator.client(host)
            try:
                # A query has its deadline once the way to the host is open, which takes longer.
                with trio.move_on_after(ASK_SECS + 1) as scope:
                    deadline = Deadline(ASK_SECS)
                    await incus.query("/1.0", dict, deadline=deadline, in_project=False)
                if scope.cancelled_caught:
                    away[host] = Problem(503, f"the way to the host {host} is not open")
            except PikaciError as fault:
                away[host] = fault

        hosts = [host.name for host in self._orchestrator.hosts]
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(ask, host)
        if len(away) == len(hosts):
            raise away[hosts[0]]
        return away
