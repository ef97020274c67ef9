"""Runs jobs on the real Incus, through the same door as the command line."""

from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.engine import Request, new_run_id, run_jobs
from orchestrator.journal import open_journal
from orchestrator.plan import Deadlines
from orchestrator.settings import StateRoot, open_incus
from orchestrator.workbench import Workbench
from states.job import Job
from states.spec import JobSpec


class Runs:
    """A workspace and a state root of a test's own.

    `run` runs specs and returns the jobs, ended; afterwards no instance of theirs is left.
    """

    def __init__(self, base: Path) -> None:
        self.workspace = base / "workspace"
        self.workspace.mkdir()
        (self.workspace / "hello.txt").write_text("hello\n")
        self.root = StateRoot(base / "state")
        self.root.make()
        self.incus = open_incus()

    async def run(
        self, *, parallel: int = 4, deadlines: Deadlines | None = None, **specs: JobSpec
    ) -> dict[str, Job]:
        """Run the specs as one run; the jobs by name."""
        run = new_run_id()
        with open_journal(self.root.journal) as journal:
            bench = Workbench(
                root=self.root,
                journal=journal,
                incus=self.incus,
                deadlines=deadlines or Deadlines(),
            )
            request = Request(workspace=self.workspace, specs=specs, parallel=parallel)
            await run_jobs(bench, request, run=run, started=lambda snapshot: None)
            assert [] == journal.open_leases()
            jobs = [journal.job(row.id) for row in journal.jobs(run=run)]
        return {job.name: job for job in jobs}

    async def run_one(self, spec: JobSpec, *, deadlines: Deadlines | None = None) -> Job:
        """Run one spec."""
        return (await self.run(job=spec, deadlines=deadlines))["job"]

    async def instances(self) -> list[str]:
        """The names of the instances that this state root has in Incus."""
        with open_journal(self.root.journal) as journal:
            owner = journal.owner
        listed = await self.incus.run(
            "list", "--format", "csv", "-c", "n", f"user.pikaci.owner={owner}", deadline_secs=30
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


def with_(spec: JobSpec, **changes: object) -> JobSpec:
    """The spec with other values."""
    return msgspec.structs.replace(spec, **changes)
