"""Running jobs of an earlier run again: which ones, and the request for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.job.submission import Request
from orchestrator.journal import JobRow, JournalReader
from orchestrator.snapshot.snapshot import Snapshot, snapshot_of
from orchestrator.state_root import StateRoot
from states.events import SnapshotRef
from states.graph import with_needed
from states.job import Job
from states.outcome import Verdict


def jobs_to_rerun(journal: JournalReader, rows: Sequence[JobRow], *, failed: bool) -> list[Job]:
    """The jobs of the rows, of one run, and all that they need.

    With `failed`, only those that ended and did not pass; there may be none. `JobUnreadable` if one
    cannot be read.
    """
    jobs = [journal.job(row.id) for row in rows]
    every = {job.name: job for job in jobs}
    if jobs and any(job.needs for job in jobs):
        # A job that is run again needs the others again; what they left is reused.
        others = journal.jobs(run=jobs[0].run)
        every = {job.name: job for job in (journal.job(row.id) for row in others)}
    if failed:
        jobs = [job for job in jobs if job.ended and job.verdict is not Verdict.PASSED]
    specs = {name: job.spec for name, job in every.items() if job.spec is not None}
    return [every[name] for name in with_needed(specs, [job.name for job in jobs])]


def rerun_request(root: StateRoot, jobs: Sequence[Job], *, key: str = "") -> Request:
    """The request for jobs of an earlier run, on the same snapshot, under an idempotency key.

    `UsageError` if the run was rejected, or its snapshot deleted.
    """
    snapshot = earlier_snapshot(root, [job.snapshot for job in jobs])
    if snapshot is None:
        raise UsageError(
            f"the run {jobs[0].run} was rejected, so it has no snapshot",
            resolution="correct the job file, then use `pikaci run`",
        )
    if not snapshot.path.is_dir():
        raise UsageError(
            f"the snapshot of the run {jobs[0].run} was deleted",
            resolution="`pikaci run` uses the current workspace",
        )
    return Request(
        workspace=Path(jobs[0].workspace),
        specs={job.name: job.spec for job in jobs if job.spec is not None},
        fail_fast=any(job.fail_fast for job in jobs),
        snapshot=snapshot,
        key=key,
    )


def earlier_snapshot(root: StateRoot, seen: Iterable[SnapshotRef | None]) -> Snapshot | None:
    """The whole snapshot behind what the jobs of a run saw; None for a run that was rejected.

    Its directory may be gone.
    """
    # Each job sees all of the workspace's snapshot, or its part of it.
    known = [snapshot for snapshot in seen if snapshot is not None]
    first = min(known, key=lambda snapshot: bool(snapshot.whole), default=None)
    if first is None:
        return None
    return snapshot_of(first, root.snapshots / (first.whole or first.hash))
