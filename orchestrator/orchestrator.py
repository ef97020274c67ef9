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
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec
import trio

from orchestrator.capacity import Capacity
from orchestrator.errors import NotFound, UsageError, cause_of
from orchestrator.host_paths import MountRule, directories
from orchestrator.image.store import Images
from orchestrator.incus import Incus
from orchestrator.job.backlog import Room
from orchestrator.job.context import Workbench
from orchestrator.job.handle import Arrivals, JobHandle, RunHandle
from orchestrator.job.publisher import Publisher
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.job.submission import (
    Judged,
    Request,
    as_sent,
    check_same,
    judge,
    rejections,
    submissions,
)
from orchestrator.job.task import JobTask
from orchestrator.journal import (
    JobRow,
    JobUnreadable,
    Journal,
    JournalError,
    JournalUnwritable,
    Lease,
    NotTheWriter,
    open_journal,
)
from orchestrator.session import locks
from orchestrator.session.cancel import cancel_jobs
from orchestrator.session.control import listening
from orchestrator.session.locks import submitting
from orchestrator.session.upkeep import upkeep
from orchestrator.settings import QUEUE_JOBS, Settings, open_incus
from orchestrator.slow_files import in_thread, look_up
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from states import events as ev
from states.ending import Intent
from states.job import Job, fold, step, verdict_of
from states.outcome import Verdict
from states.spec import JobSpec

_log = logging.getLogger(__name__)
# The other tasks have their turn when so many jobs of a run have been started.
STARTED_AT_ONCE = 20
# Other readers have theirs when so many jobs have been read.
READ_AT_ONCE = 20
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


def _check_trio() -> None:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise UsageError(
            "an orchestrator is opened in a trio program",
            resolution="from asyncio or from threads, go through a portal: see docs/embed.md",
        ) from None


def _closed() -> UsageError:
    return UsageError("the orchestrator is closed", resolution="submit in the block that opened it")


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
        allow_mounts: tuple[Path, ...] | None,
    ) -> None:
        self.session = session
        self.queue = Queue(capacity)
        self.arrivals = Arrivals()
        self.bench = replace(bench, on_log=self._on_log)
        self._listener = bench.on_log
        self._images = Images(bench.incus)
        self._publisher = Publisher(bench.root, self._images, workspace)
        self.reading = Reading()
        self._room = Room(queue_jobs)
        self._mount_rule = MountRule((bench.root.path,), allow_mounts)
        self._tasks: dict[str, JobTask] = {}
        # The jobs of these tasks, as the entries that were told of make them.
        self._jobs: WeakKeyDictionary[JobTask, Job] = WeakKeyDictionary()
        self._nursery: trio.Nursery
        self._closed = False
        self._submissions: set[trio.CancelScope] = set()  # those that are being made
        self._submission_ended = trio.Event()
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
        _check_trio()

        def prepare() -> tuple[StateRoot, Incus]:
            root = settings.root
            root.make()
            return root, incus or open_incus(settings.host)

        root, client = await look_up(f"the state root of {settings.workspace}", prepare)
        async with in_thread(open_journal(root.journal)) as journal:
            bench = Workbench(
                root=root,
                journal=journal,
                incus=client,
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
                allow_mounts=settings.allow_mounts,
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
        allow_mounts: tuple[Path, ...] | None = None,
    ) -> AsyncIterator[Orchestrator]:
        """`open`, over a journal that is open. `session` is the name of its first run."""
        _check_trio()
        root = bench.root
        session = session or new_run_id()
        hold = locks.hold_root if exclusive else locks.share_root
        error: Exception | None = None
        async with in_thread(hold(root.path)), in_thread(locks.hold_run(root.locks, session)):
            self = cls(bench, capacity, session, workspace, queue_jobs, allow_mounts)
            try:
                async with (
                    upkeep(self.bench, self.queue, self._tasks, self._take_up_lost, self._on_fault),
                    listening(root.locks, session, self._tasks),
                    trio.open_nursery() as self._nursery,
                ):
                    try:
                        yield self
                    except Exception as raised:
                        # By itself, not in the group that a nursery would make of it.
                        error = raised
                        self._nursery.cancel_scope.cancel()
                    finally:
                        await self._close()
            finally:
                with trio.CancelScope(shield=True):
                    await self.reading.aclose()
        if error is not None:
            raise error

    async def _close(self) -> None:
        """Take no more jobs. Submissions that are being made end first, whole or not at all."""
        self._closed = True
        with trio.CancelScope(shield=True):
            while self._submissions:
                for scope in self._submissions:
                    scope.cancel()
                await self._submission_ended.wait()

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
        def judge_here() -> Judged:
            tree = self._publisher.tree(workspace)
            return self._judge(Request(tree, {name: spec}, key=key, snapshot=snapshot))

        run, judged = await self._submit("the workspace", judge_here, wait=wait)
        for refused in judged.refused.values():
            raise refused
        (job,) = run.jobs
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
        paths = f"the workspace {request.workspace}"
        judge_here = partial(self._judge, request)
        run, _ = await self._submit(paths, judge_here, wait=wait, started=started)
        return run

    async def submit_judged(
        self,
        judged: Judged,
        *,
        wait: bool = True,
        started: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> RunHandle:
        """`submit_run`, of what came through the door already."""
        check = partial(self._check_mounts, judged)
        run, _ = await self._submit("the workspace", check, wait=wait, started=started)
        return run

    async def _submit(
        self,
        paths: str,
        judge: Callable[[], Judged],
        *,
        wait: bool,
        started: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> tuple[RunHandle, Judged]:
        """Submit what `judge` returns, which looks at `paths`, whole or not at all."""
        self._check_open()
        with trio.CancelScope() as scope:
            self._submissions.add(scope)
            try:
                judged = await look_up(f"{paths}, or a directory of a job", judge)
                run = await self._submit_judged(judged, wait=wait, started=started)
                return run, judged
            finally:
                self._submissions.remove(scope)
                self._submission_ended.set()
                self._submission_ended = trio.Event()
        # By `_close`, before it was written.
        raise _closed()

    async def _submit_judged(
        self, judged: Judged, *, wait: bool, started: Callable[[Snapshot], None]
    ) -> RunHandle:
        request = judged.request
        if request.key and (there := await self._submitted_before(request)):
            return there
        if judged.refused:
            rejected = rejections(judged, self._next_run())
            await self.journal.append(*rejected)
            return self._handle(rejected[0].run, rejected)
        for spec in request.specs.values():
            self.queue.capacity.check(spec)
        run = self._next_run()
        jobs = len(request.specs)
        submitted: list[ev.Submitted] = []
        await self._room.take(jobs, wait=wait)
        try:
            async with submitting(self.bench.root.snapshots):
                snapshot = await self._publisher.prepare(request)
                started(snapshot)
                events = submissions(judged, run, snapshot)
                await self.journal.append(*events)
                submitted = events
        except NotTheWriter:
            # Another task or process may have been faster with the same key.
            if there := await self._submitted_before(request):
                return there
            raise
        finally:
            self._room.give_back(jobs, (event.job for event in submitted))
        # They are durable: from here on nothing may keep them from beginning.
        for number, event in enumerate(submitted, start=1):
            task = JobTask(self.bench, fold([event]), self._images, self.queue)
            self._tasks[event.job] = task
            self._nursery.start_soon(self._drive, task)
            if number % STARTED_AT_ONCE == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        return self._handle(run, submitted)

    def _judge(self, request: Request) -> Judged:
        """Let a request in, or not. It waits for the disk."""
        return self._check_mounts(judge(request))

    def _check_mounts(self, judged: Judged) -> Judged:
        """What was let in, unless the operator forbids a mount of it. It waits for the disk."""
        if not judged.refused:
            for spec in filter(directories, judged.request.specs.values()):
                self._mount_rule.check(spec)
        return judged

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def _handle(self, run: str, events: Sequence[ev.Event]) -> RunHandle:
        return RunHandle(run, tuple(JobHandle(self, event.job) for event in events))

    async def snapshot(
        self, workspace: Path | None = None, *, include: tuple[str, ...] = ()
    ) -> Snapshot:
        """Publish a workspace as it is now; many jobs can be submitted to see it."""
        self._check_open()
        return await self._publisher.publish(workspace, include=include)

    async def find_submitted(self, request: Request) -> RunHandle | None:
        """The run that was submitted before under the request's key; None when there is none.

        `KeyTaken` when it was another one. The host's directories may have changed meanwhile.
        """
        if not request.key:
            return None
        sent = await look_up(f"the workspace {request.workspace}", lambda: as_sent(request))
        return await self._submitted_before(sent)

    async def _submitted_before(self, request: Request) -> RunHandle | None:
        """The run that was submitted under the request's key."""

        def find() -> RunHandle | None:
            run = self.journal.run_of_key(request.key)
            if run is None:
                return None
            handle = self.run(run)
            ((_, first),) = self.journal.entries(handle.jobs[0].id, limit=1)
            assert isinstance(first, ev.Submitted)
            check_same(request, first, [job.job for job in handle.jobs])
            return handle

        return await self.reading.journal(find)

    def _next_run(self) -> str:
        self._runs += 1
        return self.session if self._runs == 1 else f"{self.session}-{self._runs}"

    # Looking at jobs, and ending them.

    @property
    def journal(self) -> Journal:
        """The journal of the state root, to read."""
        return self.bench.journal

    def job(self, id: str) -> JobHandle:
        """A job of the state root, whoever runs it. `NotFound` when there is none.

        It reads the journal at once, as `run` does; `find_job` and `find_run` do not hold up the
        loop meanwhile.
        """
        return JobHandle(self, self._row(id).id)

    async def find_job(self, id: str) -> JobHandle:
        """`job`, without holding up the loop."""
        if id in self._tasks:
            return JobHandle(self, id)
        return await self.reading.journal(lambda: self.job(id))

    async def find_run(self, id: str) -> RunHandle:
        """`run`, without holding up the loop."""
        return await self.reading.journal(lambda: self.run(id))

    async def fetch_jobs(self, ids: Sequence[str]) -> list[Job]:
        """Jobs by their ids, as they stand, with the `damage` of those that cannot be read.

        One that `pikaci gc` has just taken is left out.
        """

        def read(some: Sequence[str]) -> list[Job]:
            rows = [row for id in some if (row := self.journal.find(id)) is not None]
            return [self.journal.look(row) for row in rows]

        found = {id: job for id in ids if (job := self.known(id)) is not None}
        unknown = [id for id in ids if id not in found]
        for start in range(0, len(unknown), READ_AT_ONCE):
            some = unknown[start : start + READ_AT_ONCE]
            jobs = await self.reading.journal(partial(read, some))
            found.update((job.id, job) for job in jobs)
        return [found[id] for id in ids if id in found]

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

        `NotFound` when there is no such job; then none is ended. Errors are also those of `wait`;
        a job that cannot be read is left, and said to be so when the others are dead.
        """
        ids = list(jobs)
        rows = await self.reading.journal(lambda: [self._row(id) for id in ids])
        alive = {row.id: row.run for row in rows if not row.ended}
        foreign = alive.keys() - self._tasks.keys()
        unreadable = await self.reading.journal(lambda: self.journal.unreadable(foreign))
        await cancel_jobs(
            self.bench,
            {id: run for id, run in alive.items() if id not in unreadable},
            tasks=self._tasks,
            reason=reason,
            hurry=now,
            fault=self.fault,
        )
        for id in unreadable:
            await self.reading.journal(partial(self.journal.job, id))  # which says why

    def statistics(self) -> Statistics:
        """What the jobs of this process do, in numbers."""
        oldest = self.queue.oldest
        age = (datetime.now(UTC) - oldest.since).total_seconds() if oldest else 0.0
        return Statistics(
            queued=self.queue.queued,
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

    def known(self, job: str) -> Job | None:
        """The job as it stands, when it is in the hands of this process: it need not be read."""
        task = self._tasks.get(job)
        return None if task is None else self._jobs.get(task, task.job)

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

    async def _take_up_lost(self) -> None:
        """Go on with the jobs that were lost with the journal, as the next start would."""

        def read(id: str) -> tuple[Job, list[Lease]]:
            leases = [lease for lease in self.journal.open_leases() if lease.job == id]
            return self.journal.job(id), leases

        for id, fault in list(self._faults.items()):
            if type(fault) not in (JournalError, JournalUnwritable):
                continue  # another start can do no more about it
            try:
                job, leases = await self.reading.journal(partial(read, id))
            except JobUnreadable as error:
                self._faults[id] = error
                self.arrivals.tell(id)
                continue
            if self._closed:
                return
            if not job.ended:
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
        task = self._tasks.get(entry.job)
        if task is not None and isinstance(entry, ev.Event):
            before = self._jobs.get(task, task.job)
            if entry.seq == before.seq + 1:
                self._jobs[task] = step(before, entry)
        self.arrivals.tell(entry.job)
        if isinstance(entry, ev.Event) and not isinstance(entry, ev.Submitted):
            self._room.begun(entry.job)
            verdict = verdict_of(entry)
            if verdict is not None:
                self._ended[verdict] += 1

    def _on_log(self, job: str, chunk: bytes) -> None:
        self._listener(job, chunk)
        self.arrivals.tell_log(job)
