"""A run in a process of its own: some jobs of one workspace, from their specs to their verdicts."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.capacity import Capacity
from orchestrator.job.context import Workbench
from orchestrator.job.submission import Request, judge, rejections
from orchestrator.orchestrator import Orchestrator
from orchestrator.snapshot.snapshot import Snapshot


async def run_jobs(
    bench: Workbench,
    request: Request,
    *,
    parallel: int,
    run: str,
    started: Callable[[Snapshot], None] = lambda snapshot: None,
) -> None:
    """Run the jobs, `parallel` at once, to their ends; the journal says how they ended.

    When one of them must be rejected, the rejected ones are recorded and nothing is touched.
    `started` hears of the snapshot before the first job begins. When cancelled, every job is
    ended before this raises. Without a daemon to begin with, `DaemonUnreachable` or
    `IncusMissing`, and nothing was submitted. (One that goes away later is waited for.)
    """
    judged = judge(request)
    if judged.refused:
        await bench.journal.append(*rejections(judged, run))
        return
    async with Orchestrator.over(bench, Capacity(jobs=parallel), session=run) as orchestrator:
        submitted = await orchestrator.submit_judged(judged, started=started)
    for job in submitted.jobs:
        if (fault := orchestrator.fault(job.id)) is not None:
            raise fault
