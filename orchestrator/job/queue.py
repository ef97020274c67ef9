"""Which job starts next: the slots of this host, and the jobs queued for them.

The job with the highest priority goes first; among equals, a job of the run with the fewest running
jobs; among those, the one that came first. No job overtakes the first one while that does not fit
yet, so small jobs cannot starve a big one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import trio

from orchestrator.capacity import Capacity
from orchestrator.job.ranking import Ranking
from orchestrator.units import size
from states.job import Job
from states.spec import size_in_bytes


@dataclass(eq=False)
class Slot:
    """A job's claim to a slot; the job has the slot once `begin` is set."""

    job: str
    run: str
    priority: int
    cpus: int
    memory: int
    since: datetime
    begin: trio.Event = field(default_factory=trio.Event)
    after: str = ""  # the job that freed the slot


class _Line:
    """The queued jobs of one priority, by run, in order of arrival."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Slot]] = {}
        self._arrivals: dict[str, int] = {}
        self._numbers = count()
        self._order: Ranking[tuple[int, int]] = Ranking()  # runs, by running jobs and arrival

    def add(self, slot: Slot, running: int) -> None:
        """Add a job; `running` is how many jobs of its run are running."""
        if slot.run not in self.runs:
            self.runs[slot.run] = {}
            self._arrivals[slot.run] = next(self._numbers)
            self.rank(slot.run, running)
        self.runs[slot.run][slot.job] = slot

    def remove(self, slot: Slot) -> None:
        """Remove a job."""
        del self.runs[slot.run][slot.job]
        if not self.runs[slot.run]:
            del self.runs[slot.run], self._arrivals[slot.run]
            self._order.remove(slot.run)

    def rank(self, run: str, running: int) -> None:
        """Set how many jobs of this queued run are running."""
        self._order.put(run, (running, self._arrivals[run]))

    def first(self) -> Slot:
        """The job that starts next."""
        run = self._order.first()
        assert run is not None
        return next(iter(self.runs[run].values()))


class Queue:
    """The slots of one process. A job waits for its slot in `slot()`, and holds it in the block.

    No operation gets much slower when many jobs are queued, except `waiting`.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._lines: dict[int, _Line] = {}  # by priority
        self._queued: dict[str, Slot] = {}  # of queued jobs, by job
        self._ages: Ranking[datetime] = Ranking()  # of queued jobs
        self._held: dict[str, Slot] = {}
        self._cpus = self._memory = 0  # used by jobs that have a slot
        self._running: Counter[str] = Counter()  # by run

    def slot(
        self, job: Job, *, waited: Callable[[str], None] = lambda after: None
    ) -> AbstractAsyncContextManager[None]:
        """Queue a job now. The returned block, which must be entered, waits for and holds its slot.

        Jobs of one run and one priority get their slots in the order of these calls.

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
        self._lines.setdefault(slot.priority, _Line()).add(slot, self._running[slot.run])
        self._queued[slot.job] = slot
        self._ages.put(slot.job, slot.since)
        self._admit()
        return self._hold(slot, waited)

    @asynccontextmanager
    async def _hold(self, slot: Slot, waited: Callable[[str], None]) -> AsyncIterator[None]:
        try:
            if not slot.begin.is_set():
                try:
                    await slot.begin.wait()
                finally:
                    waited(slot.after)
            yield
        finally:
            self._leave(slot)

    def __contains__(self, job: str) -> bool:
        return job in self._queued or job in self._held

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
        """The queued jobs, highest priority first. Consume it at once: the queue may change."""
        for priority in sorted(self._lines, reverse=True):
            for slots in self._lines[priority].runs.values():
                yield from slots.values()

    @property
    def held(self) -> list[Slot]:
        """The jobs that have a slot."""
        return list(self._held.values())

    def waits_for(self, job: str) -> str:
        """What a job waits for, in words; empty if it is not queued."""
        slot = self._queued.get(job)
        if slot is None:
            return ""
        first = self._first()
        assert first is not None
        if first is not slot:
            return f"its turn; {first.job} is next, and waits for {self._lacking(first)}"
        return self._lacking(slot)

    def _leave(self, slot: Slot) -> None:
        if slot.job in self._held:
            self._take(slot, -1)
            del self._held[slot.job]
        else:
            self._remove(slot)
        self._admit(after=slot.job)

    def _remove(self, slot: Slot) -> None:
        del self._queued[slot.job]
        self._ages.remove(slot.job)
        line = self._lines[slot.priority]
        line.remove(slot)
        if not line.runs:
            del self._lines[slot.priority]

    def _admit(self, *, after: str = "") -> None:
        while len(self._held) < self.capacity.jobs:
            first = self._first()
            if first is None or self._lacking(first):
                return
            self._remove(first)
            self._held[first.job] = first
            self._take(first, 1)
            first.after = after
            first.begin.set()

    def _take(self, slot: Slot, sign: int) -> None:
        """Count a job's resources: `sign` is 1 when it starts, -1 when it leaves."""
        self._cpus += sign * slot.cpus
        self._memory += sign * slot.memory
        self._running[slot.run] += sign
        running = self._running[slot.run]
        if not running:
            del self._running[slot.run]
        for line in self._lines.values():
            if slot.run in line.runs:
                line.rank(slot.run, running)

    def _first(self) -> Slot | None:
        return self._lines[max(self._lines)].first() if self._lines else None

    def _lacking(self, slot: Slot) -> str:
        """What this job lacks to start, in words; empty if nothing."""
        if not self._held:
            return ""  # any job may run alone: it was accepted when submitted
        if len(self._held) >= self.capacity.jobs:
            return f"a slot: {len(self._held)} of {self.capacity.jobs} are taken"
        limits = self.capacity
        if limits.cpus is not None and self._cpus + slot.cpus > limits.cpus:
            return f"{slot.cpus} cpus: {self._cpus} of {limits.cpus} are taken"
        if limits.memory is not None and self._memory + slot.memory > limits.memory:
            asked, used, limit = map(size, (slot.memory, self._memory, limits.memory))
            return f"{asked} of memory: {used} of {limit} are taken"
        return ""
