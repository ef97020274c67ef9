"""Runs jobs on the real Incus, through the same door as the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import trio

from orchestrator.attempt.id_map import local_id_range
from orchestrator.capacity import Capacity
from orchestrator.engine import run_jobs
from orchestrator.hosts import OpenHost
from orchestrator.incus import Completed, Host, Incus, spawn_process
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request
from orchestrator.journal import Journal, open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.session.recovery import recover
from orchestrator.settings import open_incus
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.outcome import FailureKind
from states.spec import JobSpec
from tests.calls import call

# Before what a job leaves in its image: most of a guest is compilers, and an image without them is
# made in a third of the time. For tests that do not ask what else is in it.
SLIM = (
    "rm -rf /usr/share /usr/include /usr/lib/{file,gcc,git-core,python3} /usr/lib/*/*.a"
    " /usr/lib/*/{gconv,gprofng,perl} /usr/lib/python3.*/{ensurepip,idlelib,lib2to3,unittest}"
    " /var/lib/dpkg/info"
    " /usr/bin/*-linux-gnu-* /usr/bin/{cmake,cpack,ctest}"
    " /usr/lib/*/lib{asan,icudata,lsan,tsan,ubsan}.so*; "
)


class Runs:
    """A workspace and a state root of a test's own.

    `run` runs specs and returns the jobs, ended; afterwards no instance of theirs is left. They run
    `there`, None for this machine. Without `waits_for_delete` Incus deletes the last guest by itself.
    """

    def __init__(self, base: Path, there: OpenHost | None = None) -> None:
        self.workspace = base / "workspace"
        self.workspace.mkdir()
        (self.workspace / "hello.txt").write_text("hello\n")
        self.root = StateRoot(base / "state")
        self.root.make()
        self.there = there
        self.waits_for_delete = True
        self.incus = there.incus if there is not None else open_incus()

    async def run(
        self,
        specs: dict[str, JobSpec],
        *,
        change: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None,
        on_running: Callable[[ev.Entry], Awaitable[None]] | None = None,
        settled: bool = True,
        parallel: int = 4,
        fail_fast: bool = False,
    ) -> dict[str, Job]:
        """Run the specs as one run; the jobs by name.

        `change` may bend a command before it starts; `on_running` is awaited, beside the run,
        when a job's command has started. `settled`: no other run's lease may be open at the end.
        """
        run = new_run_id()
        with open_journal(self.root.journal) as journal:
            context = self._context(journal, self.incus if change is None else self._bent(change))
            request = Request(workspace=self.workspace, specs=specs, fail_fast=fail_fast)
            async with trio.open_nursery() as nursery:
                if on_running is not None:
                    start = partial(nursery.start_soon, on_running)
                    journal.observe(lambda e: start(e) if isinstance(e, ev.Running) else None)
                await run_jobs(context, request, parallel=parallel, run=run)
            assert [] == journal.open_leases() or not settled
            jobs = [journal.job(row.id) for row in journal.jobs(run=run)]
        return {job.name: job for job in jobs}

    async def run_one(self, spec: JobSpec, **options: Any) -> Job:
        """Run one spec."""
        return (await self.run({"job": spec}, **options))["job"]

    async def logged(self, job: str, words: bytes) -> None:
        """Return when the host's copy of a job's log has the words."""
        log = self.root.attempt_dir(job, 1) / "guest.log"
        with trio.fail_after(60):
            while words not in log.read_bytes():
                await trio.sleep(0.02)

    async def recover(self) -> None:
        """Go on with what earlier runs left, to its end."""
        with open_journal(self.root.journal) as journal:
            context = self._context(journal, self.incus)
            await recover(context, Queue(Capacity(jobs=4)))
            assert [] == journal.open_leases()

    def _bent(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Incus:
        async def spawn(argv: Sequence[str], **options: Any) -> Completed:
            return await spawn_process(change(tuple(argv)), **options)

        bent = copy(self.incus)
        bent._spawn = spawn
        return bent

    def _context(self, journal: Journal, incus: Incus) -> Context:
        host = self.there.host if self.there is not None else Host()
        return Context(
            root=self.root,
            journal=journal,
            incus=incus,
            host=host,
            hosts=self if self.there is not None else None,  # type: ignore[arg-type]
            ids=local_id_range("local"),
            waits_for_delete=self.waits_for_delete,
        )

    def at(self, name: str) -> OpenHost:
        """The one host that there is, as `Hosts` has it."""
        assert self.there is not None
        return self.there

    async def instances(self) -> list[str]:
        """The names of the instances that this state root has in Incus."""
        with open_journal(self.root.journal) as journal:
            owner = journal.owner
        listed = await call(
            self.incus,
            "list",
            self.incus.name(""),
            "--format",
            "csv",
            "-c",
            "n",
            f"user.pikaci.owner={owner}",
            deadline_secs=30,
        )
        return listed.stdout.decode().split()


def log_of(job: Job) -> bytes:
    """The job's whole log as it lies on the host."""
    assert job.artifacts is not None
    return (Path(job.artifacts) / "guest.log").read_bytes()


def output_of(job: Job) -> bytes:
    """The log without its header line."""
    return log_of(job).split(b"\n", 1)[1]


def artifact(job: Job, name: str) -> bytes:
    """A collected artifact."""
    assert job.artifacts is not None
    return (Path(job.artifacts) / "artifacts" / name).read_bytes()


def infrastructure(job: Job, *words: str) -> bool:
    """The job's verdict is no word about its command, and the message has the words."""
    assert (State.FAILED, None) == (job.state, job.outcome)
    assert job.failure is not None
    assert FailureKind.INFRASTRUCTURE == job.failure.kind
    assert [] == [word for word in words if word not in job.failure.message], job.failure
    return True
