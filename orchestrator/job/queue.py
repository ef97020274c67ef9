"""The slots of all hosts, and the jobs queued for them.

Each host has its own slots, limits and queue (`HostQueue`). A job that may run on several hosts is
in the queue of each: it takes the first free slot, and leaves the other queues.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial

import trio

from orchestrator.capacity import Capacity
from orchestrator.incus import LOCAL
from orchestrator.job.host_queue import HostQueue, Slot
from orchestrator.job.ranking import Ranking
from states.job import Job
from states.spec import size_in_bytes

# A host that was left out is looked at again so often.
LOOK_AGAIN_SECS = 10.0


def _no_limit(host: str) -> int | None:
    return None


class Queue:
    """The slots of one process, on each host as many as `capacity` says.

    `limit` is how many jobs a host runs at most, by its name, None for no limit of its own. A job
    waits for its slot in `slot()`, and holds it in the block.
    """

    def __init__(self, capacity: Capacity, limit: Callable[[str], int | None] = _no_limit) -> None:
        self.capacity = capacity
        self._limit = limit
        self._lines: dict[str, HostQueue] = {}  # by host
        self._queued: dict[str, Slot] = {}  # of queued jobs, by job
        self._ages: Ranking[datetime] = Ranking()  # of queued jobs
        self._on_free: list[Callable[[], None]] = []

    def slot(
        self,
        job: Job,
        *,
        waited: Callable[[str], None] = lambda after: None,
        hosts: Callable[[], Sequence[str]] | None = None,
    ) -> AbstractAsyncContextManager[str]:
        """Queue a job now. The returned block, which must be entered, waits for and holds its slot.

        The block gets the name of the host that has the slot. `hosts` returns those that the job
        may run on now, in the order in which it prefers them, and at least one; it is asked again
        while the job waits. By default it is the job's own host. Jobs of one run and one priority
        get their slots in the order of these calls.

        If the job had to wait, `waited` is called at the end of the wait, also of a cancelled one,
        with the id of the job that freed the slot, or "".
        """
        assert job.spec is not None
        spec = job.spec
        slot = Slot(
            job.id,
            job.run,
            spec.priority,
            spec.cpus,
            size_in_bytes(spec.memory),
            job.phases[-1].entered_at,
        )
        self._queued[slot.job] = slot
        self._ages.put(slot.job, slot.since)
        self._join(slot, hosts() if hosts is not None else [job.host])
        return self._hold(slot, waited, hosts)

    @asynccontextmanager
    async def _hold(
        self,
        slot: Slot,
        waited: Callable[[str], None],
        hosts: Callable[[], Sequence[str]] | None,
    ) -> AsyncIterator[str]:
        try:
            if not slot.begin.is_set():
                try:
                    await self._wait(slot, hosts)
                finally:
                    waited(slot.after)
            yield slot.host
        finally:
            self._leave(slot)

    async def _wait(self, slot: Slot, hosts: Callable[[], Sequence[str]] | None) -> None:
        secs = math.inf if hosts is None else LOOK_AGAIN_SECS
        while not slot.begin.is_set():
            with trio.move_on_after(secs):
                await slot.begin.wait()
            if hosts is not None and not slot.begin.is_set():
                self._join(slot, hosts())

    def __contains__(self, job: str) -> bool:
        return job in self._queued or any(
            job == slot.job for line in self._lines.values() for slot in line.held
        )

    @property
    def queued(self) -> int:
        """How many jobs are queued."""
        return len(self._queued)

    @property
    def oldest(self) -> Slot | None:
        """The job that has been queued longest; None if none is."""
        job = self._ages.first()
        return None if job is None else self._queued[job]

    def waiting(self) -> Iterator[Slot]:
        """The queued jobs, of each host by priority. Consume it at once: the queue may change."""
        for name, line in self._lines.items():
            yield from (slot for slot in line.waiting() if slot.hosts[0] == name)

    @property
    def held(self) -> list[Slot]:
        """The jobs that have a slot."""
        return [slot for line in self._lines.values() for slot in line.held]

    def slots(self, hosts: Iterable[str]) -> int:
        """How many jobs can run at once, on these hosts and those of earlier jobs."""
        return sum(self._line(host).slots for host in {*hosts, *self._lines})

    def is_wanted(self, host: str) -> bool:
        """Whether a job is queued for this host."""
        return self._line(host).first() is not None

    def has_room(self, host: str, sizes: Sequence[tuple[int, int]]) -> bool:
        """Whether the host has slots for guests of these cpus and bytes of memory beside its jobs.

        They do not wait for a slot, and hold none: the jobs come first.
        """
        return self._line(host).has_room(sizes)

    def watch(self, on_free: Callable[[], None]) -> None:
        """Call this whenever a job has left its slot, or the queue."""
        self._on_free.append(on_free)

    def waits_for(self, job: str) -> str:
        """What a job waits for, in words; empty if it is not queued."""
        slot = self._queued.get(job)
        if slot is None:
            return ""
        words = {host: self._lines[host].waits_for(slot) for host in slot.hosts}
        if len(words) == 1:
            return next(iter(words.values()))
        return "; ".join(f"on {host}: {what}" for host, what in words.items())

    def _line(self, host: str) -> HostQueue:
        if host not in self._lines:
            self._lines[host] = HostQueue(self.capacity, partial(self._limit, host))
        return self._lines[host]

    def _join(self, slot: Slot, hosts: Sequence[str]) -> None:
        """Put a job into the lines of these hosts in which it is not yet, until it has a slot."""
        for host in hosts:
            host = host or LOCAL
            if host not in slot.hosts:
                self._line(host).add(slot)
                slot.hosts.append(host)
                self._admit(host)
                if slot.begin.is_set():
                    return

    def _leave(self, slot: Slot) -> None:
        if slot.begin.is_set():
            self._lines[slot.host].free(slot)
            self._admit(slot.host, after=slot.job)
        else:
            self._forget(slot)
            for host in slot.hosts:
                self._lines[host].remove(slot)
            for host in slot.hosts:
                self._admit(host, after=slot.job)
        for call in self._on_free:
            call()

    def _forget(self, slot: Slot) -> None:
        del self._queued[slot.job]
        self._ages.remove(slot.job)

    def _admit(self, host: str, *, after: str = "") -> None:
        changed = [host]
        while changed:
            host = changed.pop()
            for slot in self._lines[host].admit():
                slot.host, slot.after = host, after
                self._forget(slot)
                for other in slot.hosts:
                    if other != host:
                        self._lines[other].remove(slot)
                        changed.append(other)
                slot.begin.set()
