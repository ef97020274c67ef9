"""Admits submissions: checks them, waits for the queue, and writes and starts their jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from orchestrator.errors import UsageError, one_error
from orchestrator.host_paths import MountRule, directories
from orchestrator.hosts import HostChoice
from orchestrator.incus import Host
from orchestrator.job.backlog import Backlog
from orchestrator.job.door import Door
from orchestrator.job.driver import Driver
from orchestrator.job.handle import JobHandle, RunHandle
from orchestrator.job.jobs import Jobs
from orchestrator.job.publisher import Publisher
from orchestrator.job.queue import Queue
from orchestrator.job.submission import (
    Judged,
    Request,
    as_sent,
    check_same,
    judge,
    rejections,
    submissions,
)
from orchestrator.job.task import STARTED_AT_ONCE
from orchestrator.journal import NotTheWriter
from orchestrator.journal.stamp import now
from orchestrator.mount_points import hidden_mounts, missing_places
from orchestrator.session.locks import submitting
from orchestrator.slow_files import look_up
from orchestrator.snapshot.snapshot import Snapshot
from states import events as ev
from states.job import fold
from states.mistakes import raise_all
from states.spec import JobSpec


class Admission:
    """Admits the submissions of one session, each completely or not at all.

    Run ids begin with the session's name. Once closed, all submissions
    raise `UsageError`.
    """

    def __init__(
        self,
        session: str,
        *,
        jobs: Jobs,
        driver: Driver,
        queue: Queue,
        backlog: Backlog,
        publisher: Publisher,
        door: Door,
        choice: Callable[[Sequence[str]], HostChoice],
        mount_rule: Callable[[Host], MountRule],
    ) -> None:
        self._session = session
        self._jobs = jobs
        self._driver = driver
        self._queue = queue
        self._backlog = backlog
        self._publisher = publisher
        self._door = door
        self._choice = choice
        self._mount_rule = mount_rule
        self._runs = 0
        self._in_progress: set[trio.CancelScope] = set()  # submissions in progress
        self._ended = trio.Event()

    async def submit_one(
        self,
        spec: JobSpec,
        *,
        name: str,
        key: str,
        snapshot: Snapshot | None,
        workspace: Path | None,
        wait: bool,
    ) -> JobHandle:
        """Submit one job. If it is refused, raise the `SpecError` once the journal has it."""

        def judge_here() -> Judged:
            tree = self._publisher.tree(workspace)
            return self._judge(Request(tree, {name: spec}, key=key, snapshot=snapshot))

        run, judged = await self._submit("the workspace", judge_here, wait, _ignore)
        for refused in judged.refused.values():
            raise refused
        (job,) = run.jobs
        return job

    async def submit(
        self, request: Request, *, wait: bool, started: Callable[[Snapshot], None]
    ) -> RunHandle:
        """Submit a request's jobs; if some are refused, return a run of just these.

        While the queue is full, `wait`, or raise `QueueFull`. `started` is called with the snapshot
        before the first job begins.
        """
        judge_here = partial(self._judge, request)
        run, _ = await self._submit(f"the workspace {request.workspace}", judge_here, wait, started)
        return run

    async def submit_judged(
        self, judged: Judged, *, wait: bool, started: Callable[[Snapshot], None]
    ) -> RunHandle:
        """Like `submit`, for a request that was judged already; checks only its mounts."""
        check = partial(self._check_mounts, judged)
        run, _ = await self._submit("the workspace", check, wait, started)
        return run

    async def publish(
        self,
        workspace: Path | None,
        *,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        git: bool = False,
    ) -> Snapshot:
        """Publish a snapshot of the workspace, for later submissions."""
        self._check_open()
        async with submitting(self._jobs.root.snapshots):
            return await self._publisher.publish(
                workspace, include=include, exclude=exclude, git=git
            )

    async def find(self, request: Request) -> RunHandle | None:
        """The run that was submitted earlier with the request's key; None if there is none.

        `KeyTaken` if that run's request was different.
        """
        if not request.key:
            return None
        sent = await look_up(f"the workspace {request.workspace}", lambda: as_sent(request))
        return await self._find(sent)

    async def close(self) -> None:
        """Refuse new jobs; return when submissions in progress are complete or undone."""
        self._driver.closed = True
        with trio.CancelScope(shield=True):
            while self._in_progress:
                for scope in self._in_progress:
                    scope.cancel()
                await self._ended.wait()

    def _check_open(self) -> None:
        if self._driver.closed:
            raise _closed()

    def judge(self, request: Request) -> Judged:
        """Judge a request for the hosts of this process. Blocks on the disk."""
        return judge(request, self._choice(request.hosts))

    def _judge(self, request: Request) -> Judged:
        return self._check_mounts(self.judge(request))

    def _check_mounts(self, judged: Judged) -> Judged:
        """Check that the mounts of accepted specs are allowed and possible. Blocks on the disk."""
        if not judged.refused:
            for name, spec in judged.request.specs.items():
                if directories(spec):
                    self._mount_rule(judged.hosts[name][0]).check(spec)
                    raise_all(missing_places(spec))
        return judged

    async def _submit(
        self,
        paths: str,
        look: Callable[[], Judged],
        wait: bool,
        started: Callable[[Snapshot], None],
    ) -> tuple[RunHandle, Judged]:
        """Submit what `look` returns, completely or not at all; `paths` says what it reads."""
        self._check_open()
        with trio.CancelScope() as scope:
            self._in_progress.add(scope)
            try:
                judged = await look_up(f"{paths}, or a directory of a job", look)
                return await self._admit(judged, wait, started), judged
            finally:
                self._in_progress.remove(scope)
                self._ended.set()
                self._ended = trio.Event()
        # `close` cancelled it before it was written.
        raise _closed()

    async def _find(self, request: Request) -> RunHandle | None:
        journal = self._jobs.journal

        def find() -> RunHandle | None:
            run = journal.run_of_key(request.key)
            if run is None:
                return None
            handle = self._jobs.run(run)
            ((_, first),) = journal.entries(handle.jobs[0].id, limit=1)
            assert isinstance(first, ev.Submitted)
            check_same(request, first, [job.job for job in handle.jobs])
            return handle

        return await self._jobs.reading.journal(find)

    async def _admit(
        self, judged: Judged, wait: bool, started: Callable[[Snapshot], None]
    ) -> RunHandle:
        """Write the jobs to the journal, and start them."""
        request = judged.request
        if request.key and (there := await self._find(request)):
            return there
        if judged.refused:
            rejected = rejections(judged, self._next_run())
            await self._jobs.journal.append(*rejected)
            return self._jobs.handles(rejected[0].run, (event.job for event in rejected))
        for spec in request.specs.values():
            self._queue.capacity.check(spec)
        run = self._next_run()
        try:
            submitted = await self._write(judged, run, wait, started)
        except NotTheWriter:
            # Another task or process may have submitted the same key first.
            if there := await self._find(request):
                return there
            raise
        # They are durable, so from here on nothing may prevent their start.
        for number, event in enumerate(submitted, start=1):
            self._driver.begin(fold([event]))
            if number % STARTED_AT_ONCE == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        return self._jobs.handles(run, (event.job for event in submitted))

    async def _write(
        self, judged: Judged, run: str, wait: bool, started: Callable[[Snapshot], None]
    ) -> list[ev.Submitted]:
        """Once the queue has room, publish the workspace and write the run's first events."""
        jobs = len(judged.request.specs)
        submitted: list[ev.Submitted] = []
        await self._backlog.reserve(jobs, wait=wait)
        try:
            async with submitting(self._jobs.root.snapshots):
                snapshot, judged = await self._prepare(judged)
                specs, warnings = judged.request.specs, judged.told
                if any(directories(spec) for spec in specs.values()):
                    look = partial(hidden_mounts, specs)
                    warnings = warnings | await look_up("the directories of a job", look)
                parts = await self._publisher.parts(judged.request, snapshot)
                for name, spec in judged.request.specs.items():
                    if spec.sources is not None:
                        lines = parts[spec.sources].warnings
                        warnings |= {f"jobs.{name}.{line}": name for line in lines}
                started(snapshot)
                events = submissions(judged, run, snapshot, parts)
                await self._jobs.journal.append(*events, *_warnings(events, warnings))
                submitted = events
        finally:
            self._backlog.release(jobs, (event.job for event in submitted))
        return submitted

    async def _prepare(self, judged: Judged) -> tuple[Snapshot, Judged]:
        """Publish the workspace, and ask the hosts for what the jobs need.

        Both happen at the same time, so that the queries cost no time.
        """
        if judged.request.snapshot is not None:
            judged = await self._door.check(judged)
            return await self._publisher.prepare(judged.request), judged
        checked: list[Judged] = []

        async def check() -> None:
            checked.append(await self._door.check(judged))

        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check)
                snapshot = await self._publisher.prepare(judged.request)
        return snapshot, checked[0]

    def _next_run(self) -> str:
        self._runs += 1
        return self._session if self._runs == 1 else f"{self._session}-{self._runs}"


def _warnings(submitted: Iterable[ev.Submitted], warnings: Mapping[str, str]) -> list[ev.Warned]:
    """The events of warnings, which are lines with names of jobs."""
    jobs = {event.name: event.job for event in submitted}
    return [ev.Warned(job=jobs[name], message=line, **now()) for line, name in warnings.items()]


def _closed() -> UsageError:
    return UsageError("the orchestrator is closed", resolution="submit in the block that opened it")


def _ignore(snapshot: Snapshot) -> None:
    """The `started` of callers that need no snapshot."""
