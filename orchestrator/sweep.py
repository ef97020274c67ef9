"""What dead processes left in a state root is brought to an end, before new jobs begin.

Only what the journal has a lease for is touched, so only instances that this root made: their
names are hashes over the root's owner key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator import locks
from orchestrator.incus_errors import IncusError, InstanceNotFound
from orchestrator.job_task import UNANSWERED_CREATE_SECS
from orchestrator.journal import Lease
from orchestrator.workbench import Workbench, now
from states import events as ev
from states.outcome import Failure, FailureKind

DELETE_SECS = 60.0


async def sweep(bench: Workbench) -> None:
    """End the jobs that no living process holds, and delete the instances of ended leases."""
    journal = bench.journal
    held: dict[str, bool] = {}

    def is_held(run: str) -> bool:
        if run not in held:
            held[run] = locks.is_held(bench.root.locks, run)
        return held[run]

    for row in journal.unfinished():
        if not is_held(row.run):
            job = journal.job(row.id)
            failure = Failure(
                kind=FailureKind.INFRASTRUCTURE,
                phase=job.state,
                message="the pikaci process that ran this job died",
                resolution="run the job again",
            )
            end: ev.Event = ev.Failed(job=job.id, seq=job.seq + 1, failure=failure, **now())
            if job.state == "cancelling":
                end = ev.Cancelled(job=job.id, seq=job.seq + 1, failure=failure, **now())
            await journal.append(end)  # type: ignore[arg-type]
    runs = {row.id: row.run for row in journal.jobs()}
    for lease in journal.open_leases():
        if lease.kept:
            if lease.deadline > datetime.now(UTC):
                continue
        elif is_held(runs[lease.job]):
            continue
        await _end_lease(bench, lease)


async def _end_lease(bench: Workbench, lease: Lease) -> None:
    incus = bench.incus
    try:
        await incus.run(
            "delete", "--quiet", "--force", incus.name(lease.instance), deadline_secs=DELETE_SECS
        )
    except InstanceNotFound:
        # Its create may still be going on, if it was never answered.
        young = timedelta(seconds=UNANSWERED_CREATE_SECS)
        if datetime.now(UTC) - lease.opened_at < young:
            return
    except IncusError as error:
        await bench.journal.append(
            ev.Warned(
                job=lease.job,
                message=f"{lease.instance} could not be deleted: {error.brief}",
                **now(),
            )
        )
        return
    await bench.journal.append(ev.LeaseEnded(job=lease.job, instance=lease.instance, **now()))
