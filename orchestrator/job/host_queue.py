"""Which job starts next on one host: its slots, and the jobs queued for them.

The job with the highest priority goes first; among equals, a job of the run with the fewest running
jobs; among those, the one that came first. No job overtakes the first one while that does not fit
yet, so small jobs cannot starve a big one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import trio

from orchestrator.capacity import Capacity
from orchestrator.job.ranking import Ranking
from orchestrator.units import size


@dataclass(eq=False)
class Slot:
    """A job's claim to a slot; the job has the slot, on `host`, once `begin` is set.

    Until then it is in the queues of `hosts`, by name.
    """

    job: str
    run: str
    priority: int
    cpus: int
    memory: int
    since: datetime
    begin: trio.Event = field(default_factory=trio.Event)
    after: str = ""  # the job that freed the slot
    hosts: list[str] = field(default_factory=list)
    host: str = ""


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


class HostQueue:
    """The slots of one host, which runs at most `jobs()` jobs of ours at once, None for no limit.

    What `capacity` says holds, too. No operation gets much slower when many jobs are queued, except
    `waiting`.
    """

    def __init__(self, capacity: Capacity, jobs: Callable[[], int | None]) -> None:
        self._capacity = capacity
        self._jobs = jobs
        self._lines: dict[int, _Line] = {}  # by priority
        self._held: dict[str, Slot] = {}
        self._cpus = self._memory = 0  # used by jobs that have a slot
        self._running: Counter[str] = Counter()  # by run

    def add(self, slot: Slot) -> None:
        """Put a job at the end of its line."""
        self._lines.setdefault(slot.priority, _Line()).add(slot, self._running[slot.run])

    def remove(self, slot: Slot) -> None:
        """Take a job out of its line."""
        line = self._lines[slot.priority]
        line.remove(slot)
        if not line.runs:
            del self._lines[slot.priority]

    def free(self, slot: Slot) -> None:
        """Take back the slot of a job."""
        self._take(slot, -1)
        del self._held[slot.job]

    def admit(self) -> list[Slot]:
        """The jobs that get a slot now, which then are in no line here."""
        begun: list[Slot] = []
        while len(self._held) < self.slots:
            first = self.first()
            if first is None or self._lacking(first):
                break
            self.remove(first)
            self._held[first.job] = first
            self._take(first, 1)
            begun.append(first)
        return begun

    def first(self) -> Slot | None:
        """The job that starts next; None if none is queued."""
        return self._lines[max(self._lines)].first() if self._lines else None

    def waiting(self) -> Iterator[Slot]:
        """The queued jobs, highest priority first. Consume it at once: the queue may change."""
        for priority in sorted(self._lines, reverse=True):
            for slots in self._lines[priority].runs.values():
                yield from slots.values()

    @property
    def held(self) -> list[Slot]:
        """The jobs that have a slot."""
        return list(self._held.values())

    def has_room(self, sizes: Sequence[tuple[int, int]]) -> bool:
        """Whether guests with these cpus and bytes of memory fit beside the jobs with a slot."""
        limits = self._capacity
        cpus, memory = (sum(each) for each in zip((0, 0), *sizes, strict=True))
        return (
            len(self._held) + len(sizes) <= self.slots
            and (limits.cpus is None or self._cpus + cpus <= limits.cpus)
            and (limits.memory is None or self._memory + memory <= limits.memory)
        )

    def waits_for(self, slot: Slot) -> str:
        """What a queued job waits for, in words."""
        first = self.first()
        assert first is not None
        if first is not slot:
            return f"jobs ahead of it; {first.job} is next, and waits for {self._lacking(first)}"
        return self._lacking(slot)

    @property
    def slots(self) -> int:
        """How many jobs can have a slot at once."""
        jobs = self._jobs()
        return self._capacity.jobs if jobs is None else min(jobs, self._capacity.jobs)

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

    def _lacking(self, slot: Slot) -> str:
        """What this job lacks to start, in words; empty if nothing."""
        if not self._held:
            return ""  # any job may run alone: it was accepted when submitted
        if len(self._held) >= self.slots:
            return f"a slot: {len(self._held)} of {self.slots} are taken"
        limits = self._capacity
        if limits.cpus is not None and self._cpus + slot.cpus > limits.cpus:
            return f"{slot.cpus} cpus: {self._cpus} of {limits.cpus} are taken"
        if limits.memory is not None and self._memory + slot.memory > limits.memory:
            asked, used, limit = map(size, (slot.memory, self._memory, limits.memory))
            return f"{asked} of memory: {used} of {limit} are taken"
        return ""
