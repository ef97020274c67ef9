"""Hosts that are away: what is there is left as it is, because its jobs may be well.

A job of a dead process may run on for days on a host that this machine cannot reach now. Whoever
takes it up asks the host first, and leaves the job to the next start if there is no answer. Once a
job is taken up, it waits for its host as `deadlines.daemon_secs` says. The local host is not asked:
while its daemon is down, no guest of it can be reached by anybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import trio

from orchestrator.errors import UsageError
from orchestrator.incus import LOCAL, Deadline
from orchestrator.incus.errors import (
    DaemonUnreachable,
    DeadlinePassed,
    IncusError,
    OutcomeUnknown,
)
from orchestrator.incus.retries import retrying
from orchestrator.job.context import Context
from orchestrator.job.silent_hosts import ASK_SECS
from states.errors import PikaciError
from states.job import Job

# A connection that has just broken may be made anew.
WAIT_SECS = 30.0
_AGAIN = (DaemonUnreachable, OutcomeUnknown, DeadlinePassed)


class HostAway(PikaciError):
    """A host cannot be reached, or does not let us in: nothing that is there was touched."""

    def __init__(self, host: str, fault: PikaciError) -> None:
        then = f"`pikaci resume` continues them when the host {host} answers"
        super().__init__(
            f"{fault.brief}; its jobs are left as they are",
            resolution="; ".join(filter(None, (fault.resolution, then))),
        )
        self.host = host


def once_a_host(faults: Iterable[BaseException]) -> list[BaseException]:
    """The faults, without what was found out about a host before."""
    first: dict[object, BaseException] = {}
    for fault in faults:
        first.setdefault(fault.host if isinstance(fault, HostAway) else fault, fault)
    return list(first.values())


async def ask(context: Context, name: str) -> None:
    """Return if the host with this name answers, and lets us in; jobs with a choice learn of it.

    Raises an `IncusError` if not, and a `UsageError` if the settings cannot be used.
    """
    incus = context.at(name).incus
    # Anybody may ask for "/1.0" alone.
    path = f"/1.0/projects/{incus.project}"
    async with context.silent.asking(name):
        deadline = Deadline(ASK_SECS)
        await incus.query(path, dict[str, Any], deadline=deadline, in_project=False)


class Answering:
    """Finds out which hosts answer, and calls `report` for those that do not. Each is asked once.

    One that cannot be reached is asked again for `wait_secs`.
    """

    def __init__(
        self,
        context: Context,
        report: Callable[[HostAway], None],
        *,
        wait_secs: float = WAIT_SECS,
    ) -> None:
        self._context = context
        self._report = report
        self._wait_secs = wait_secs
        self._found: dict[str, bool] = {}
        self._asking: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    async def answers(self, *names: str) -> bool:
        """Whether one of these hosts answers, "" for the local one: no checkpoint for that."""
        for name in names:
            if name in ("", LOCAL) or await self._answers(name):
                return True
        return False

    async def _answers(self, name: str) -> bool:
        async with self._asking[name]:
            if name not in self._found:
                self._found[name] = await self._ask(name)
        return self._found[name]

    async def _ask(self, name: str) -> bool:
        try:
            await retrying(partial(ask, self._context, name), on=_AGAIN, secs=self._wait_secs)
        except (IncusError, UsageError) as fault:
            self._report(HostAway(name, fault))
            return False
        return True


def hosts_of(jobs: Sequence[Job]) -> dict[str, set[tuple[str, ...]]]:
    """By job, of which hosts one has to answer: of its own, and of those of each job it needs."""
    by_id = {job.id: job for job in jobs}
    found: dict[str, set[tuple[str, ...]]] = {}
    for job in jobs:
        waiting, seen = [job.id], set[str]()
        while waiting:
            id = waiting.pop()
            if id in by_id and id not in seen:
                seen.add(id)
                waiting += by_id[id].needs.values()
        found[job.id] = {by_id[id].hosts or (by_id[id].host,) for id in seen}
    return found
