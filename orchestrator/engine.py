"""One run in its own process: jobs of one workspace, from specs to verdicts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from orchestrator.capacity import Capacity
from orchestrator.job.context import Context
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Request, judge, rejections
from orchestrator.orchestrator import Orchestrator
from orchestrator.snapshot.snapshot import Snapshot
from states.errors import PikaciError

# Jobs that were cancelled are watched for so long after they ended.
WATCHED_SECS = 5.0


async def _nobody_watches(run: RunHandle) -> None:
    pass


async def run_jobs(
    context: Context,
    request: Request,
    *,
    parallel: int,
    run: str,
    started: Callable[[Snapshot], None] = lambda snapshot: None,
    watch: Callable[[RunHandle], Awaitable[None]] = _nobody_watches,
) -> None:
    """Run the jobs to their ends, `parallel` at once; the journal says how they ended.

    When one of them must be rejected, the rejected ones are recorded and nothing is touched.
    `started` gets the snapshot before the first job begins. `watch` gets the run once it is
    submitted, and returns when it has seen the end of all jobs; what it raises ends them. When
    cancelled, every job is ended, and `watch` can see that, before this raises. Without a daemon
    to begin with, `DaemonUnreachable` or `IncusMissing`, and nothing was submitted. (One that goes
    away later is waited for.)
    """
    judged = judge(request)
    if judged.refused:
        await context.journal.append(*rejections(judged, run))
        return
    async with Orchestrator.over(context, Capacity(jobs=parallel), session=run) as orchestrator:
        submitted = await orchestrator.submit_judged(judged, started=started)
        await _watch_to_the_end(submitted, watch)
    for job in submitted.jobs:
        if (fault := orchestrator.fault(job.id)) is not None:
            raise fault


async def _watch_to_the_end(run: RunHandle, watch: Callable[[RunHandle], Awaitable[None]]) -> None:
    """Watch also jobs that are being cancelled, but give up a watch that is stuck then."""
    watching, waiting = trio.CancelScope(shield=True), trio.CancelScope(shield=True)

    async def give_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with waiting:
                with suppress(PikaciError):
                    await run.wait()
                await trio.sleep(WATCHED_SECS)
                watching.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        try:
            with watching:
                await watch(run)
        finally:
            waiting.cancel()
            nursery.cancel_scope.cancel()
