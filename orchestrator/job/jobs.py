"""Finds and reads the jobs of a state root, whichever process drives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from orchestrator.errors import NotFound
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.driver import Driver
from orchestrator.job.handle import JobHandle, RunHandle
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.journal import JobRow, Journal
from orchestrator.state_root import StateRoot
from states.job import Job
from states.lifecycle import State

# Other readers run after each batch of this many jobs.
READ_AT_ONCE = 20


class Cancel(Protocol):
    """Cancels jobs, by id, and returns when they are dead; `now` skips the grace period."""

    async def __call__(
        self, jobs: Iterable[str], *, reason: str = ..., now: bool = ...
    ) -> None: ...


class Jobs:
    """What a `JobHandle` reads from: the journal, the directories, and the driver.

    Raises `NotFound` if a job or run does not exist.
    """

    def __init__(
        self,
        root: StateRoot,
        journal: Journal,
        *,
        driver: Driver,
        queue: Queue,
        arrivals: Arrivals,
        reading: Reading,
        cancel: Cancel,
    ) -> None:
        self.root = root
        self.journal = journal
        self.driver = driver
        self.queue = queue
        self.arrivals = arrivals
        self.reading = reading
        self.cancel = cancel

    def row(self, id: str) -> JobRow:
        """A job's row. Blocks the loop."""
        row = self.journal.find(id)
        if row is None:
            raise NotFound(f"there is no job {id!r}", resolution="`pikaci list` shows them")
        return row

    def job(self, id: str) -> JobHandle:
        """A job. Blocks the loop."""
        return JobHandle(self, self.row(id).id)

    def run(self, id: str) -> RunHandle:
        """A run, by its id or its number. Blocks the loop."""
        rows = self.journal.jobs(run=id)
        if not rows and (run := self.journal.run_of_number(id)) is not None:
            rows, id = self.journal.jobs(run=run), run
        if not rows:
            raise NotFound(f"there is no run {id!r}", resolution="`pikaci list` shows them")
        return self.handles(id, (row.id for row in rows))

    def handles(self, run: str, jobs: Iterable[str]) -> RunHandle:
        """The handle of a run whose jobs are known."""
        return RunHandle(run, tuple(JobHandle(self, job) for job in jobs))

    def waits_for(self, id: str) -> str:
        """What a job of this process waits for before it can start, in words; empty if nothing."""
        job = self.driver.known(id)
        if job is None or job.state is not State.SUBMITTED:
            return ""
        rest = [name for name, needed in job.needs.items() if self.driver.drives(needed)]
        if rest and id not in self.queue:
            return f"the job{'s' if len(rest) > 1 else ''} {', '.join(rest)}"
        return self.queue.waits_for(id)

    async def find_job(self, id: str) -> JobHandle:
        """`job`, without blocking the loop."""
        if self.driver.drives(id):
            return JobHandle(self, id)
        return await self.reading.journal(lambda: self.job(id))

    async def find_run(self, id: str) -> RunHandle:
        """`run`, without blocking the loop."""
        return await self.reading.journal(lambda: self.run(id))

    async def fetch(self, ids: Sequence[str]) -> list[Job]:
        """The current jobs with these ids. One that cannot be read says why in `damage`.

        Jobs that `pikaci gc` has deleted are left out.
        """

        def read(some: Sequence[str]) -> list[Job]:
            rows = [row for id in some if (row := self.journal.find(id)) is not None]
            return [self.journal.look(row) for row in rows]

        found = {id: job for id in ids if (job := self.driver.going(id)) is not None}
        unknown = [id for id in ids if id not in found]
        for start in range(0, len(unknown), READ_AT_ONCE):
            some = unknown[start : start + READ_AT_ONCE]
            jobs = await self.reading.journal(partial(read, some))
            found.update((job.id, job) for job in jobs)
        return [found[id] for id in ids if id in found]
