"""The library: a trio program submits, watches, awaits and cancels jobs.

    async with Orchestrator.open(Settings(workspace=Path("."))) as orchestrator:
        job = await orchestrator.submit(JobSpec(command="make test"))
        async for event in job.events():
            print(event)
        result = await job.wait()

Like a nursery, the block ends when its jobs have ended. A failure of a job is in its result, and
never an exception in the block.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import trio

from orchestrator.attempt.id_map import IdRange, local_id_range
from orchestrator.capacity import Capacity, WarmGuests
from orchestrator.errors import UsageError
from orchestrator.hosts import open_hosts
from orchestrator.incus import LOCAL, Host, Incus
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.backlog import Backlog
from orchestrator.job.context import Context
from orchestrator.job.door import Door
from orchestrator.job.driver import Driver, Statistics
from orchestrator.job.handle import JobHandle, RunHandle
from orchestrator.job.jobs import Jobs
from orchestrator.job.pool import Pool
from orchestrator.job.publisher import Publisher
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.job.submission import Judged, Request
from orchestrator.journal import Journal, open_journal
from orchestrator.session import locks
from orchestrator.session.admission import Admission
from orchestrator.session.cancel import cancel_by_id
from orchestrator.session.control import listening
from orchestrator.session.upkeep import upkeep
from orchestrator.settings import QUEUE_JOBS, Settings, open_incus
from orchestrator.slow_files import in_thread, look_up
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from states import events as ev
from states.ending import Intent
from states.job import Job
from states.spec import JobSpec

# The embedding program decides where the log goes, and so does `pikaci serve`.
logging.getLogger("orchestrator").addHandler(logging.NullHandler())

__all__ = ["Orchestrator", "Statistics", "new_run_id"]

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_run_id() -> str:
    """A short random name for a run, easy to read aloud."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def _check_trio() -> None:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise UsageError(
            "an orchestrator can only be opened in a trio program",
            resolution="from asyncio use orchestrator.aio, from threads orchestrator.blocking: see"
            " docs/embed.md",
        ) from None


class Orchestrator:
    """Runs jobs in a state root; made by `open`.

    It also resumes jobs that dead processes left there, and deletes instances that nobody needs.
    `session` is the name of its first run.
    """

    def __init__(
        self,
        context: Context,
        capacity: Capacity,
        session: str,
        workspace: Path | None,
        queue_jobs: int,
        allow_mounts: tuple[Path, ...] | None,
        warm: WarmGuests | None,
    ) -> None:
        self.session = session
        self.queue = queue = Queue(capacity, context.limit)
        self.arrivals = arrivals = Arrivals()
        self.reading = reading = Reading()

        def on_log(job: str, chunk: bytes) -> None:
            context.on_log(job, chunk)
            arrivals.tell_log(job)

        def on_fault(fault: BaseException) -> None:
            self._driver.on_fault("warm", fault)

        pool = Pool(context, queue, warm, session, on_fault) if warm is not None else None
        self._context = replace(context, on_log=on_log, allow_mounts=allow_mounts, pool=pool)
        backlog = Backlog(queue_jobs)
        self._driver = Driver(self._context, queue, backlog, arrivals, reading)
        self._jobs = Jobs(
            context.root,
            context.journal,
            driver=self._driver,
            queue=queue,
            arrivals=arrivals,
            reading=reading,
            cancel=self.cancel,
        )
        self._admission = Admission(
            session,
            jobs=self._jobs,
            driver=self._driver,
            queue=queue,
            backlog=backlog,
            publisher=Publisher(context.root, workspace, context.on_progress),
            door=Door(self._context),
            choice=self._context.choice,
            mount_rule=self._context.mount_rule,
        )

    def __repr__(self) -> str:
        return f"<Orchestrator {self.root.path}>"

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
        """Open a state root; the block ends when all jobs submitted in it have ended.

        An exception in the block, or its cancellation, cancels the jobs first. `on_entry` is
        called with every entry of the journal, once it is durable; if it raises, it is not
        called any more. `exclusive` reserves the root for this process. `UsageError` if the
        root is reserved, or if it is to be reserved but is in use.
        """
        _check_trio()

        def prepare() -> tuple[StateRoot, Incus, IdRange | None]:
            root = settings.root
            root.make()
            if incus is not None:
                return root, incus, None
            # A host of the user's settings has a way of its own: this is then the local one's.
            local = settings.host if settings.host.name == LOCAL and not settings.hosts else Host()
            return root, open_incus(local, root), local_id_range(local.remote)

        root, client, ids = await look_up(f"the state root of {settings.workspace}", prepare)
        async with (
            open_hosts(client) as hosts,
            in_thread(open_journal(root.journal)) as journal,
        ):
            host = settings.host
            first, *others = dict.fromkeys(settings.hosts or [host.name])
            if first != LOCAL:
                there = hosts.at(first)
                client, host = there.incus, there.host
            context = Context(
                root=root,
                journal=journal,
                incus=client,
                host=host,
                hosts=hosts,
                others=tuple(hosts.at(name).host.name for name in others),
                ids=ids,
                keep_secs=settings.keep_secs,
            )
            if on_entry is not None:
                journal.observe(on_entry)
            async with cls.over(
                context,
                settings.capacity,
                exclusive=exclusive,
                workspace=settings.workspace,
                queue_jobs=settings.queue_jobs,
                allow_mounts=settings.allow_mounts,
                warm=settings.warm,
            ) as orchestrator:
                yield orchestrator

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        context: Context,
        capacity: Capacity,
        *,
        session: str | None = None,
        exclusive: bool = False,
        workspace: Path | None = None,
        queue_jobs: int = QUEUE_JOBS,
        allow_mounts: tuple[Path, ...] | None = None,
        warm: WarmGuests | None = None,
    ) -> AsyncIterator[Orchestrator]:
        """Like `open`, for a journal that is open already. `session` names the first run."""
        _check_trio()
        root = context.root
        session = session or new_run_id()
        hold = locks.hold_root if exclusive else locks.share_root
        error: Exception | None = None
        async with in_thread(hold(root.path)), in_thread(locks.hold_run(root.locks, session)):
            self = cls(context, capacity, session, workspace, queue_jobs, allow_mounts, warm)
            pool = self._context.pool
            try:
                async with (
                    nullcontext() if pool is None else pool.running(),
                    upkeep(self._context, self.queue, self._driver, session),
                    listening(root.locks, session, self._driver.tasks),
                    self._driver.running(),
                ):
                    try:
                        yield self
                    except Exception as raised:
                        # Raised below, so that the nursery does not wrap it in a group.
                        error = raised
                        self._driver.cancel()
                    finally:
                        await self._admission.close()
            finally:
                with trio.CancelScope(shield=True):
                    await self.reading.aclose()
        if error is not None:
            raise error

    # Submit jobs.

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

        Waits while the queue holds `Settings.queue_jobs` jobs. A `key` is submitted once: the
        same job is returned again. The job sees `snapshot`, or the workspace as it is now. Raises
        `SpecError` if the spec is refused (which the journal records), `UsageError`, and
        `DaemonUnreachable` or `IncusMissing` if there is no Incus.
        """
        return await self._admission.submit_one(
            spec, name=name, key=key, snapshot=snapshot, workspace=workspace, wait=True
        )

    async def submit_nowait(
        self,
        spec: JobSpec,
        *,
        name: str = "job",
        key: str = "",
        snapshot: Snapshot | None = None,
        workspace: Path | None = None,
    ) -> JobHandle:
        """Like `submit`, but raises `QueueFull` instead of waiting. Still waits for the disk."""
        return await self._admission.submit_one(
            spec, name=name, key=key, snapshot=snapshot, workspace=workspace, wait=False
        )

    async def submit_and_wait(
        self,
        spec: JobSpec,
        *,
        name: str = "job",
        key: str = "",
        snapshot: Snapshot | None = None,
        workspace: Path | None = None,
    ) -> Job:
        """Submit a job, and return it when it has ended. A cancellation cancels the job first.

        So it does for all who submitted it with this key.
        """
        job = await self.submit(spec, name=name, key=key, snapshot=snapshot, workspace=workspace)
        try:
            return await job.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await job.cancel(reason="its submitter was cancelled")
            raise

    async def submit_run(
        self,
        request: Request,
        *,
        wait: bool = True,
        started: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> RunHandle:
        """Submit the jobs of a request, all or none; they are durable when this returns.

        If some specs are refused, the run consists of just these jobs, recorded as rejected.
        `started` is called with the snapshot before the first job begins. Other errors are those
        of `submit`.
        """
        return await self._admission.submit(request, wait=wait, started=started)

    async def submit_judged(
        self,
        judged: Judged,
        *,
        wait: bool = True,
        started: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> RunHandle:
        """Like `submit_run`, for a request that was judged already."""
        return await self._admission.submit_judged(judged, wait=wait, started=started)

    async def snapshot(
        self,
        workspace: Path | None = None,
        *,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        git: bool = False,
    ) -> Snapshot:
        """Publish a snapshot of a workspace; many jobs can then use it.

        `include` are globs of git-ignored files to add, `exclude` of files to leave out. With
        `git`, it has a `.git` made by pikaci, at the workspace's commit; `UsageError` if there is
        none.
        """
        return await self._admission.publish(workspace, include=include, exclude=exclude, git=git)

    async def find_submitted(self, request: Request) -> RunHandle | None:
        """The run that was submitted earlier with the request's key; None if there is none.

        `KeyTaken` if that run's request was different. The files of the workspace may differ.
        """
        return await self._admission.find(request)

    # Read and cancel jobs.

    @property
    def journal(self) -> Journal:
        """The journal of the state root, for reading."""
        return self._context.journal

    @property
    def root(self) -> StateRoot:
        """The paths of the state root."""
        return self._context.root

    @property
    def incus(self) -> Incus:
        """The client of the Incus that runs the guests."""
        return self._context.incus

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts of new jobs that name none, in the order of preference."""
        return self._context.choice().hosts

    def client(self, host: str) -> Incus:
        """The client of the Incus of the host with this name."""
        return self._context.at(host).incus

    def judge(self, request: Request) -> Judged:
        """Check the specs of a request, for `submit_judged`. Blocks on the disk."""
        return self._admission.judge(request)

    def job(self, id: str) -> JobHandle:
        """A job of the state root, whichever process runs it. `NotFound` if there is none.

        This and `run` read the journal at once, and block the loop meanwhile; `find_job` and
        `find_run` do not.
        """
        return self._jobs.job(id)

    async def find_job(self, id: str) -> JobHandle:
        """`job`, without blocking the loop."""
        return await self._jobs.find_job(id)

    async def find_run(self, id: str) -> RunHandle:
        """`run`, without blocking the loop."""
        return await self._jobs.find_run(id)

    async def fetch_jobs(self, ids: Sequence[str]) -> list[Job]:
        """The current jobs with these ids. One that cannot be read says why in `damage`.

        Jobs that `pikaci gc` has deleted are left out.
        """
        return await self._jobs.fetch(ids)

    def run(self, id: str) -> RunHandle:
        """A run of the state root, by its id or its number. `NotFound` if there is none."""
        return self._jobs.run(id)

    async def cancel(
        self, jobs: Iterable[str], *, reason: str = "asked for", now: bool = False
    ) -> None:
        """Cancel jobs, by id; return when they are dead. `now` skips the grace period.

        `NotFound` if one does not exist; then none is cancelled. Also raises what
        `JobHandle.wait` raises. A job that cannot be read is not cancelled; `JobUnreadable` is
        raised for it when the others are dead.
        """
        await cancel_by_id(self._context, self._jobs, jobs, reason=reason, hurry=now)

    def statistics(self) -> Statistics:
        """Numbers of this process's queued, running and ended jobs."""
        return self._driver.statistics()

    def detach(self) -> None:
        """Leave the block without cancelling the jobs; the next start resumes them.

        Running jobs continue in their guests. The block is cancelled at its next checkpoint.
        """
        self._driver.closed = True
        self._context.intent.rise(Intent.DETACH)
        self._driver.cancel()

    def drives(self, job: str) -> bool:
        """Whether this process drives the job."""
        return self._driver.drives(job)

    def known(self, job: str) -> Job | None:
        """The current job, without reading the journal; None if this process does not drive it."""
        return self._driver.known(job)

    @property
    def preparing(self) -> list[str]:
        """The jobs of this process that wait for jobs that they need, or for their output."""
        return [id for id, task in self._driver.tasks.items() if task.is_preparing]

    def waits_for(self, job: str) -> str:
        """What a job waits for before it can start, in words; empty if nothing."""
        return self._jobs.waits_for(job)

    def fault(self, job: str) -> Exception | None:
        """The error that made this process lose a job (of the journal, or a bug), or None."""
        return self._driver.fault(job)

    @property
    def fault_counts(self) -> Counter[str]:
        """Failures of upkeep, by duty; and lost jobs, under "job"."""
        return self._driver.fault_counts
