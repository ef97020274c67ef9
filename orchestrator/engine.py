"""Runs the jobs of one request in this process, from specs to verdicts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio

from orchestrator.capacity import Capacity
from orchestrator.job.context import Context
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Request, judge, rejections
from orchestrator.orchestrator import Orchestrator
from orchestrator.snapshot.snapshot import Snapshot

# After cancelled jobs have ended, `watch` gets this long to finish.
WATCHED_SECS = 5.0
LOOK_SECS = 0.05


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
    """Run the jobs, at most `parallel` at once, until all have ended; results are in the journal.

    If some specs are refused, these are recorded as rejected, and nothing else happens. `started`
    is called with the snapshot before the first job begins. `watch` gets the submitted run, and
    returns when it has seen all jobs end; an error of it cancels them. A cancellation first cancels
    all jobs, while `watch` still runs. Without a daemon at the start, raises `DaemonUnreachable` or
    `IncusMissing`, and nothing was submitted; a daemon that disappears later is waited for. With
    the key of an earlier request it is that run which is watched, and cancelled.
    """
    judged = judge(request, context.choice(request.hosts))
    if judged.refused:
        await context.journal.append(*rejections(judged, run))
        return
    async with Orchestrator.over(context, Capacity(jobs=parallel), session=run) as orchestrator:
        submitted = await orchestrator.submit_judged(judged, started=started)
        theirs = [job.id for job in submitted.jobs] if submitted.id != run else []
        await _watch_to_the_end(submitted, watch, partial(_cancel, orchestrator, theirs))
        while any(orchestrator.drives(job) for job in theirs):
            # Taken up from a dead process: its guest is still being deleted.
            await trio.sleep(LOOK_SECS)
    for job in submitted.jobs:
        if (fault := orchestrator.fault(job.id)) is not None:
            raise fault


async def _cancel(orchestrator: Orchestrator, jobs: Sequence[str]) -> None:
    if jobs:
        await orchestrator.cancel(jobs, reason="interrupted")


async def _watch_to_the_end(
    run: RunHandle,
    watch: Callable[[RunHandle], Awaitable[None]],
    cancel_theirs: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> None:
    """Keep watching while jobs are being cancelled, but cancel a watch that does not finish."""
    watching, waiting = trio.CancelScope(shield=True), trio.CancelScope(shield=True)

    async def give_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with waiting:
                await cancel_theirs()
                for job in run.jobs:
                    # A job that was lost ends here too, by whatever error.
                    with suppress(Exception):
                        await job.wait()
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
