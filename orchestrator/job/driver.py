"""The jobs that this process drives, each in its own task, and their current states."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from weakref import WeakKeyDictionary

import msgspec
import trio

from orchestrator.errors import cause_of
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.backlog import Backlog
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.job.task import JobTask
from orchestrator.journal import JobUnreadable, JournalError, JournalUnwritable, Lease
from states import events as ev
from states.job import Job, step, verdict_of
from states.outcome import Verdict

_log = logging.getLogger(__name__)


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of this process's jobs. `ended` counts verdicts since its start.

    `queued` jobs wait for a slot, `waiting` ones for jobs that they need, or for their output.
    `warm` guests can be claimed by jobs of their kind now, `booting` ones soon.
    """

    queued: int
    running: int
    ended: dict[Verdict, int]
    oldest_queued_secs: float
    waiting: int = 0
    warm: int = 0
    booting: int = 0


class Driver:
    """Drives jobs, and knows their current states without reading the journal.

    An error of one job is its `fault`, and affects no other job. `tasks` holds the jobs by id;
    upkeep adds those that it takes over from dead processes. Once `closed` is set, no new job may
    begin. `fault_counts` counts failures of upkeep, by duty, and lost jobs, under "job".
    """

    def __init__(
        self,
        context: Context,
        queue: Queue,
        backlog: Backlog,
        arrivals: Arrivals,
        reading: Reading,
    ) -> None:
        self.tasks: dict[str, JobTask] = {}
        self.closed = False
        self.fault_counts: Counter[str] = Counter()
        self._context = context
        self._queue = queue
        self._backlog = backlog
        self._arrivals = arrivals
        self._reading = reading
        self._nursery: trio.Nursery
        # The current job of each task, from the entries that were written.
        self._jobs: WeakKeyDictionary[JobTask, Job] = WeakKeyDictionary()
        self._faults: dict[str, Exception] = {}
        self._ended: Counter[Verdict] = Counter()
        context.journal.observe(self._on_entry)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Jobs may `begin` in the block, which ends when all of them have ended."""
        async with trio.open_nursery() as self._nursery:
            yield

    def cancel(self) -> None:
        """Cancel the block of `running`, and so every job. The intent decides how each ends."""
        self._nursery.cancel_scope.cancel()

    def begin(self, job: Job, *, leases: Sequence[Lease] = (), adopted: bool = False) -> None:
        """Drive the job to its end, from its current state. `JobTask` explains the options."""
        task = JobTask(self._context, job, self._queue, leases=leases, adopted=adopted)
        self.tasks[job.id] = task
        task.enqueue()
        self._nursery.start_soon(self._drive, task)

    def drives(self, job: str) -> bool:
        """Whether this process drives the job."""
        return job in self.tasks

    def known(self, job: str) -> Job | None:
        """The current job; None if this process does not drive it."""
        task = self.tasks.get(job)
        return None if task is None else self._jobs.get(task, task.job)

    def going(self, job: str) -> Job | None:
        """`known` before the job's end: after it, only the journal knows warnings and its flake."""
        known = self.known(job)
        return None if known is None or known.ended else known

    def fault(self, job: str) -> Exception | None:
        """The error that made this process lose a job (of the journal, or a bug), or None."""
        return self._faults.get(job)

    def statistics(self) -> Statistics:
        """Numbers of this process's queued, running and ended jobs."""
        oldest = self._queue.oldest
        age = (datetime.now(UTC) - oldest.since).total_seconds() if oldest else 0.0
        pool = self._context.pool
        return Statistics(
            queued=self._queue.queued,
            running=len(self._queue.held),
            ended=dict(self._ended),
            oldest_queued_secs=max(0.0, age),
            waiting=sum(task.is_preparing for task in self.tasks.values()),
            warm=0 if pool is None else pool.warm,
            booting=0 if pool is None else pool.booting,
        )

    async def take_up_lost(self) -> None:
        """Resume jobs that were lost because the journal could not be used, if it can be now."""

        def read(id: str) -> tuple[Job, list[Lease]]:
            journal = self._context.journal
            leases = [lease for lease in journal.open_leases() if lease.job == id]
            return journal.job(id), leases

        for id, fault in list(self._faults.items()):
            if type(fault) not in (JournalError, JournalUnwritable):
                continue  # retrying cannot help
            try:
                job, leases = await self._reading.journal(partial(read, id))
            except JobUnreadable as error:
                self._faults[id] = error
                self._arrivals.tell(id)
                continue
            if self.closed:
                return
            if not job.ended:
                self.begin(job, leases=leases, adopted=True)
            del self._faults[id]
            self._arrivals.tell(id)

    def on_fault(self, duty: str, fault: BaseException, **about: str) -> None:
        """Count and log a failure of a duty of upkeep, or a lost job."""
        self.fault_counts[duty] += 1
        _log.warning("upkeep: %s", fault, extra={"about": {"duty": duty, **about}})

    async def _drive(self, task: JobTask) -> None:
        try:
            await task.run()
        except* Exception as group:
            cause = cause_of(group)
            assert isinstance(cause, Exception)
            self._faults[task.job.id] = cause
            self.on_fault("job", cause, job=task.job.id)
        finally:
            del self.tasks[task.job.id]
            self._backlog.remove(task.job.id)
            self._arrivals.tell(task.job.id)

    def _on_entry(self, entry: ev.Entry) -> None:
        task = self.tasks.get(entry.job)
        if task is not None and isinstance(entry, ev.Event):
            before = self._jobs.get(task, task.job)
            if entry.seq == before.seq + 1:
                self._jobs[task] = step(before, entry)
        self._arrivals.tell(entry.job)
        if isinstance(entry, ev.Event) and not isinstance(entry, ev.Submitted):
            self._backlog.remove(entry.job)
            verdict = verdict_of(entry)
            if verdict is not None:
                self._ended[verdict] += 1
