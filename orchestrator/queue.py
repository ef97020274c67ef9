"""Which job begins next: places on this host, and who waits for one.

The job of the highest priority goes first; among equals, one of the run that has the fewest
jobs running; among those, the one that came first. Nobody overtakes who is first and does not
fit yet: so a big job is not starved by small ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

import msgspec
import trio

from states.errors import SpecError
from states.job import Job
from states.spec import JobSpec, size_in_bytes


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs may take of a host at once: their number, their `cpus`, and `memory` in bytes.

    None is no limit. A job counts with what its spec asks for.
    """

    jobs: int
    cpus: int | None = None
    memory: int | None = None

    def check(self, spec: JobSpec) -> None:
        """Raise `SpecError` when the job could never begin here."""
        memory = size_in_bytes(spec.memory)
        if self.cpus is not None and spec.cpus > self.cpus:
            self._refuse("cpus", str(spec.cpus), str(self.cpus))
        if self.memory is not None and memory > self.memory:
            self._refuse("memory", shown_size(memory), shown_size(self.memory))

    def _refuse(self, key: str, asked: str, limit: str) -> NoReturn:
        raise SpecError(key, f"{asked} is more than jobs may have here", allowed=f"at most {limit}")


def shown_size(size: int) -> str:
    """Bytes as a person says them: 8 GiB, 1.5 GiB, 512 MiB."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{round(size / unit, 1):g} {name}"
    return f"{size} bytes"


@dataclass(eq=False)
class Place:
    """A job that waits for its turn, or has it (when `begin` is set)."""

    job: str
    run: str
    priority: int
    cpus: int
    memory: int
    since: datetime
    begin: trio.Event = field(default_factory=trio.Event)
    after: str = ""  # the job that made way


class Queue:
    """The places of one process. A job waits in `place()`, and has its place until it leaves."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._waiting: dict[int, dict[str, dict[str, Place]]] = {}  # by priority, run and job
        self._places: dict[str, Place] = {}  # of those that wait, by job
        self._held: dict[str, Place] = {}
        self._running: Counter[str] = Counter()  # by run

    @asynccontextmanager
    async def place(
        self, job: Job, *, waited: Callable[[str], None] = lambda after: None
    ) -> AsyncIterator[None]:
        """Have a place in the block.

        `waited` is called when the waiting for it is over, in whatever way, with the job that made
        way, if one did.
        """
        assert job.spec is not None
        spec = job.spec
        place = Place(
            job.id,
            job.run,
            spec.priority,
            spec.cpus,
            size_in_bytes(spec.memory),
            job.phases[-1].entered_at,
        )
        runs = self._waiting.setdefault(place.priority, {})
        runs.setdefault(place.run, {})[place.job] = place
        self._places[place.job] = place
        self._admit()
        try:
            if not place.begin.is_set():
                try:
                    await place.begin.wait()
                finally:
                    waited(place.after)
            yield
        finally:
            self._leave(place)

    @property
    def waiting(self) -> list[Place]:
        """Who waits, those of the highest priority first."""
        return [
            place
            for priority in sorted(self._waiting, reverse=True)
            for places in self._waiting[priority].values()
            for place in places.values()
        ]

    @property
    def held(self) -> list[Place]:
        """Who has a place."""
        return list(self._held.values())

    def waits_for(self, job: str) -> str:
        """What a job waits for, in words; empty when it does not wait."""
        place = self._places.get(job)
        if place is None:
            return ""
        first = self._first()
        assert first is not None
        if first is not place:
            return f"its turn; {first.job} is next, and waits for {self._lacking(first)}"
        return self._lacking(place)

    def _leave(self, place: Place) -> None:
        if self._held.pop(place.job, None) is not None:
            self._running[place.run] -= 1
            if not self._running[place.run]:
                del self._running[place.run]
        else:
            self._remove(place)
        self._admit(after=place.job)

    def _remove(self, place: Place) -> None:
        del self._places[place.job]
        runs = self._waiting[place.priority]
        del runs[place.run][place.job]
        if not runs[place.run]:
            del runs[place.run]
        if not runs:
            del self._waiting[place.priority]

    def _admit(self, *, after: str = "") -> None:
        while len(self._held) < self.capacity.jobs:
            first = self._first()
            if first is None or self._lacking(first):
                return
            self._remove(first)
            self._held[first.job] = first
            self._running[first.run] += 1
            first.after = after
            first.begin.set()

    def _first(self) -> Place | None:
        if not self._waiting:
            return None
        runs = self._waiting[max(self._waiting)]
        # A run came before another when it stands before it: dictionaries keep that order.
        run = min(runs, key=lambda run: self._running[run])
        return next(iter(runs[run].values()))

    def _lacking(self, place: Place) -> str:
        """What there is too little of for this job to begin, in words."""
        if not self._held:
            return ""  # alone, a job that an earlier start took on has its place
        if len(self._held) >= self.capacity.jobs:
            return f"a place: {len(self._held)} of {self.capacity.jobs} jobs run"
        taken = sum(other.cpus for other in self._held.values())
        if self.capacity.cpus is not None and taken + place.cpus > self.capacity.cpus:
            return f"{place.cpus} cpus: {taken} of {self.capacity.cpus} are taken"
        taken = sum(other.memory for other in self._held.values())
        if self.capacity.memory is not None and taken + place.memory > self.capacity.memory:
            asked, used, limit = map(shown_size, (place.memory, taken, self.capacity.memory))
            return f"{asked} of memory: {used} of {limit} are taken"
        return ""
