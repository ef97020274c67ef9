"""The library: jobs are submitted, watched, waited for and cancelled, in a trio program.

    async with Orchestrator.open(Settings(workspace=Path("."))) as orchestrator:
        job = await orchestrator.submit(JobSpec(command="make test"))
        async for event in job.events():
            print(event)
        result = await job.wait()

The block ends when its jobs have, like a nursery's. What goes wrong in a job is in its result,
and never an exception in the block.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from orchestrator import locks
from orchestrator.cancel import cancel_jobs
from orchestrator.errors import NotFound, UsageError, cause_of
from orchestrator.hold import listening
from orchestrator.image.store import Images
from orchestrator.incus import Incus
from orchestrator.job_handle import Arrivals, JobHandle, RunHandle
from orchestrator.job_task import JobTask
from orchestrator.journal import (
    JobRow,
    Journal,
    JournalError,
    JournalUnwritable,
    NotTheWriter,
    open_journal,
)
from orchestrator.locks import submitting
from orchestrator.publishing import Publisher
from orchestrator.queue import Capacity, Queue
from orchestrator.room import Room
from orchestrator.settings import QUEUE_JOBS, Settings, open_incus
from orchestrator.snapshot import Snapshot
from orchestrator.submission import (
    Request,
    asked_hash,
    check_form,
    check_same,
    real_path,
    refusal,
    rejections,
    submissions,
    with_real_paths,
)
from orchestrator.tending import tending
from orchestrator.workbench import Workbench
from states import events as ev
from states.ending import Intent
from states.job import Job, fold, verdict_of
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec, check

_log = logging.getLogger(__name__)
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """This process's jobs. `ended` counts verdicts since its start; ages are in seconds."""

    queued: int
    running: int
    ended: dict[Verdict, int]
    oldest_queued_secs: float


def new_run_id() -> str:
    """A short random name for a run, easy to read aloud."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


class Orchestrator:
    """The jobs of one process in a state root. Made by `open`.

    Also what dead processes left there goes on meanwhile, and instances that nobody needs go.
    """

    def __init__(
        self,
        bench: Workbench,
        capacity: Capacity,
        session: str,
        workspace: Path | None,
        queue_jobs: int,
    ) -> None:
        self.session = session
        self.queue = Queue(capacity)
        self.arrivals = Arrivals()
        self.bench = replace(bench, on_log=self._on_log)
        self._listener = bench.on_log
        self._images = Images(bench.incus)
        self._publisher = Publisher(bench.root, self._images, workspace)
        self._room = Room(queue_jobs)
        self._tasks: dict[str, JobTask] = {}
        self._nursery: trio.Nursery
        self._closed = False
        self._runs = 0
        self._ended: Counter[Verdict] = Counter()
        self._faults: dict[str, Exception] = {}
        # What upkeep could not do, by its duty; and jobs that this process lost.
        self.fault_counts: Counter[str] = Counter()
        bench.journal.observe(self._on_entry)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        incus: Incus | None = None,
        on_entry: Callable[[ev.Entry], None] | None = None,
        exclusive: bool = False,
    ) -> AsyncIterator[Orchestrator]:
        """Open a state root; the block ends when all jobs that were submitted in it have.

        An exception in the block, or a cancellation of it, ends the jobs first. `on_entry` is
        called with every entry of the journal, once it is durable; one that raises hears no
        more. `exclusive`: no other process uses the root meanwhile. `UsageError` when the root
        is in use so that this cannot be.
        """
        root = settings.root
        root.make()
        with open_journal(root.journal) as journal:
            bench = Workbench(
                root=root,
                journal=journal,
                incus=incus or open_incus(settings.host),
                host=settings.host,
                keep_secs=settings.keep_secs,
            )
            if on_entry is not None:
                journal.observe(on_entry)
            async with cls.over(
                bench,
                settings.capacity,
                exclusive=exclusive,
                workspace=settings.workspace,
                queue_jobs=settings.queue_jobs,
            ) as orchestrator:
                yield orchestrator

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        bench: Workbench,
        capacity: Capacity,
        *,
        session: str | None = None,
        exclusive: bool = False,
        workspace: Path | None = None,
        queue_jobs: int = QUEUE_JOBS,
    ) -> AsyncIterator[Orchestrator]:
        """`open`, over a journal that is open. `session` is the name of its first run."""
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            raise UsageError(
                "an orchestrator is opened in a trio program",
                resolution="from asyncio or from threads, go through a portal: see docs/embed.md",
            ) from None
        root = bench.root
        session = session or new_run_id()
        hold = locks.hold_root if exclusive else locks.share_root
        error: Exception | None = None
        with hold(root.path), locks.hold_run(root.locks, session):
            self = cls(bench, capacity, session, workspace, queue_jobs)
            async with (
                tending(self.bench, self.queue, self._tasks, self._take_up_lost, self._on_fault),
                listening(root.locks, session, self._tasks),
            ):
                async with trio.open_nursery() as self._nursery:
                    try:
                        yield self
                    except Exception as raised:
                        # By itself, not in the group that a nursery would make of it.
                        error = raised
                        self._nursery.cancel_scope.cancel()
                self._closed = True
        if error is not None:
            raise error

    # Submitting.

    async def submit(
        self,
        spec: JobSpec,
        *,
        name: str = "job",
        key: str = "",
        snapshot: Snapshot | None = None,
        workspace: Path | None = None,
    ) -> JobHandle:
        """Submit one job; it is durable when this returns.

        Waits while `Settings.queue_jobs` wait already. What was submitted under a `key` is not
        submitted again: the same job is returned. The job sees `snapshot`, or the workspace as
        it is now. Raises `SpecError` for a spec that is refused (which the journal records),
        `UsageError`, and `DaemonUnreachable` or `IncusMissing` when there is no Incus.
        """
        return await self._submit_one(spec, name, key, snapshot, workspace, wait=True)

    async def submit_nowait(
        self,
        spec: JobSpec,
        *,
        name: str = "job",
        key: str = "",
        snapshot: Snapshot | None = None,
        workspace: Path | None = None,
    ) -> JobHandle:
        """`submit`, but `QueueFull` in place of waiting for room. It waits for the disk alone."""
        return await self._submit_one(spec, name, key, snapshot, workspace, wait=False)

    async def submit_and_wait(
        self,
        spec: JobSpec,
        *,
        name: str = "job",
        snapshot: Snapshot | None = None,
        workspace: Path | None = None,
    ) -> Job:
        """Run one job to its end, and return it. A cancellation ends the job first."""
        job = await self.submit(spec, name=name, snapshot=snapshot, workspace=workspace)
        try:
            return await job.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await job.cancel(reason="its submitter was cancelled")
            raise

    async def _submit_one(
        self,
        spec: JobSpec,
        name: str,
        key: str,
        snapshot: Snapshot | None,
        workspace: Path | None,
        *,
        wait: bool,
    ) -> JobHandle:
        request = Request(self._publisher.tree(workspace), {name: spec}, key=key, snapshot=snapshot)
        run = await self.submit_run(request, wait=wait)
        (job,) = run.jobs
        if job.job.state is State.REJECTED:
            check(spec)
        return job

    async def submit_run(
        self,
        request: Request,
        *,
        wait: bool = True,
        started: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> RunHandle:
        """Submit the jobs of a request, all or none; they are durable when this returns.

        When one must be rejected, those that must are recorded so, and are all that the run has.
        `started` hears of the snapshot before the first job begins. Errors are those of `submit`.
        """
        if self._closed:
            raise UsageError(
                "the orchestrator is closed", resolution="submit in the block that opened it"
            )
        check_form(request)
        request = replace(request, workspace=real_path(request.workspace))
        asked = asked_hash(request) if request.key else ""
        if request.key and (there := self._submitted(request)):
            return there
        sent = request
        refused = any(refusal(spec) is not None for spec in request.specs.values())
        if not refused:
            real = {name: with_real_paths(spec) for name, spec in request.specs.items()}
            request = replace(request, specs=real)
        if not refused:
            for spec in request.specs.values():
                self.queue.capacity.check(spec)
        run = self._next_run()
        if rejected := rejections(request, run):
            await self.journal.append(*rejected)
            return self.run(run)
        jobs = len(request.specs)
        submitted: list[ev.Submitted] = []
        await self._room.take(jobs, wait=wait)
        try:
            async with submitting(self.bench.root.snapshots):
                snapshot = await self._publisher.prepare(request)
                started(snapshot)
                events = submissions(request, run, snapshot, asked)
                await self.journal.append(*events)
                submitted = events
        except NotTheWriter:
            # Another task or process may have been faster with the same key.
            if there := self._submitted(sent):
                return there
            raise
        finally:
            self._room.give_back(jobs, (event.job for event in submitted))
        for event in submitted:
            task = JobTask(self.bench, fold([event]), self._images, self.queue)
            self._tasks[event.job] = task
            self._nursery.start_soon(self._drive, task)
        return self.run(run)

    async def snapshot(
        self, workspace: Path | None = None, *, include: tuple[str, ...] = ()
    ) -> Snapshot:
        """Publish a workspace as it is now; many jobs can be submitted to see it."""
        return await self._publisher.publish(workspace, include=include)

    def _submitted(self, request: Request) -> RunHandle | None:
        """The run that was submitted under the request's key."""
        run = self.journal.run_of_key(request.key)
        if run is None:
            return None
        handle = self.run(run)
        ((_, first),) = self.journal.entries(handle.jobs[0].id, limit=1)
        assert isinstance(first, ev.Submitted)
        check_same(request, first, [job.job for job in handle.jobs])
        return handle

    def _next_run(self) -> str:
        self._runs += 1
        return self.session if self._runs == 1 else f"{self.session}-{self._runs}"

    # Looking at jobs, and ending them.

    @property
    def journal(self) -> Journal:
        """The journal of the state root, to read."""
        return self.bench.journal

    def job(self, id: str) -> JobHandle:
        """A job of the state root, whoever runs it. `NotFound` when there is none."""
        return JobHandle(self, self._row(id).id)

    def run(self, id: str) -> RunHandle:
        """A run of the state root. `NotFound` when there is none."""
        rows = self.journal.jobs(run=id)
        if not rows:
            raise NotFound(f"there is no run {id!r}", resolution="`pikaci list` shows them")
        return RunHandle(id, tuple(JobHandle(self, row.id) for row in rows))

    def _row(self, id: str) -> JobRow:
        row = self.journal.find(id)
        if row is None:
            raise NotFound(f"there is no job {id!r}", resolution="`pikaci list` shows them")
        return row

    async def cancel(
        self, jobs: Iterable[str], *, reason: str = "asked for", now: bool = False
    ) -> None:
        """End jobs, by id; return when they are dead. `now`: without a grace period.

        `NotFound` when there is no such job; then none is ended. Errors are also those of `wait`.
        """
        rows = [self._row(id) for id in jobs]
        alive = {row.id: row.run for row in rows if not row.ended}
        await cancel_jobs(
            self.bench,
            alive,
            tasks=self._tasks,
            reason=reason,
            hurry=now,
            fault=self.fault,
        )

    def statistics(self) -> Statistics:
        """What the jobs of this process do, in numbers."""
        waiting = self.queue.waiting
        oldest = min((place.since for place in waiting), default=None)
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        return Statistics(
            queued=len(waiting),
            running=len(self.queue.held),
            ended=dict(self._ended),
            oldest_queued_secs=max(0.0, age),
        )

    def detach(self) -> None:
        """Leave the block without ending the jobs: they go on, and are the next start's.

        Those that run do so in their guests. What the block awaits next is cancelled.
        """
        self._closed = True
        self.bench.intent.rise(Intent.DETACH)
        self._nursery.cancel_scope.cancel()

    def drives(self, job: str) -> bool:
        """Whether the job is in the hands of this process."""
        return job in self._tasks

    def fault(self, job: str) -> Exception | None:
        """Why this process could not go on with a job: its journal, or a bug."""
        return self._faults.get(job)

    # What happens.

    async def _drive(self, task: JobTask) -> None:
        # Nothing that is wrong with one job is raised in whoever runs the others.
        try:
            await task.run()
        except* Exception as group:
            cause = cause_of(group)
            assert isinstance(cause, Exception)
            self._faults[task.job.id] = cause
            self._on_fault("job", cause, job=task.job.id)
        finally:
            del self._tasks[task.job.id]
            self._room.begun(task.job.id)
            self.arrivals.tell(task.job.id)

    def _take_up_lost(self) -> None:
        """Go on with the jobs that were lost with the journal, as the next start would."""
        for id, fault in list(self._faults.items()):
            if self._closed or type(fault) not in (JournalError, JournalUnwritable):
                continue  # another start can do no more about it
            job = self.journal.job(id)
            if not job.ended:
                leases = [lease for lease in self.journal.open_leases() if lease.job == id]
                task = JobTask(
                    self.bench, job, self._images, self.queue, leases=leases, adopted=True
                )
                self._tasks[id] = task
                self._nursery.start_soon(self._drive, task)
            del self._faults[id]
            self.arrivals.tell(id)

    def _on_fault(self, duty: str, fault: BaseException, **about: str) -> None:
        """What goes no further is counted and told, and never swallowed in silence."""
        self.fault_counts[duty] += 1
        _log.warning("upkeep: %s", fault, extra={"about": {"duty": duty, **about}})

    def _on_entry(self, entry: ev.Entry) -> None:
        self.arrivals.tell(entry.job)
        if isinstance(entry, ev.Event) and not isinstance(entry, ev.Submitted):
            self._room.begun(entry.job)
            verdict = verdict_of(entry)
            if verdict is not None:
                self._ended[verdict] += 1

    def _on_log(self, job: str, chunk: bytes) -> None:
        self._listener(job, chunk)
        self.arrivals.tell_log(job)
