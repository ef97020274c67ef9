"""A run is given to the service that holds the state root, and watched from here."""

from __future__ import annotations

import secrets

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.cli.find import existing_journal
from orchestrator.cli.signals import cancel_on_signals
from orchestrator.cli.watch import Watch, open_watch, show_snapshot
from orchestrator.errors import UsageError, cause_of
from orchestrator.job.submission import Request
from orchestrator.service.client import Client, RunAnswer, ServiceProblem, open_client
from orchestrator.service.serving import default_socket
from orchestrator.service.types import Cancel, SubmitRun
from orchestrator.session.locks import RootHeld
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from states import events as ev
from states.ending import Intent
from states.errors import PikaciError

CANCEL_SECS = 60.0


def run_by_service(
    request: Request, root: StateRoot, output: str, held: RootHeld, *, own: bool
) -> int:
    """Run the jobs there, show them as `--output` says, and return the exit code.

    `held` is raised when the service is not found on its usual socket. `UsageError` when the run
    is to have ways of its `own`, or the service refuses it.
    """
    if not default_socket(root).is_socket():
        raise held
    if own:
        raise UsageError(
            f"{held.brief}, which has its own number of jobs at once, and keeps no guests",
            resolution="leave out --jobs and --keep-on-failure, or name another --state-root",
        )
    with open_watch(output) as watch:
        code: int = trio.run(_run, request, root, watch)
    return code


async def _run(request: Request, root: StateRoot, watch: Watch) -> int:
    async with open_client(default_socket(root)) as client:
        run = await _submit(client, request)
        watch.begin(run.id, request)
        snapshot = run.jobs[0].snapshot
        if snapshot is not None:
            path = root.snapshots / snapshot.hash
            show_snapshot(
                watch,
                Snapshot(snapshot.hash, path, snapshot.commit, snapshot.dirty, run.warnings),
            )
        intent = IntentSwitch()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(cancel_on_signals, scope, intent)
                await _watch(client, run, watch)
            if scope.cancelled_caught:
                await _cancel(client, run, watch, intent)
            nursery.cancel_scope.cancel()
    with existing_journal(root, only_reading=True) as journal:
        jobs = [journal.job(job.id) for job in run.jobs]
    return watch.end(run.id, jobs, interrupted=scope.cancelled_caught)


async def _submit(client: Client, request: Request) -> RunAnswer:
    there = request.snapshot
    asked = SubmitRun(
        workspace=str(request.workspace),
        jobs=dict(request.specs),
        include=request.include,
        snapshot=ev.SnapshotRef(hash=there.hash, commit=there.commit, dirty=there.dirty)
        if there is not None
        else None,
    )
    try:
        return await client.submit(asked, key=secrets.token_hex(16))
    except ServiceProblem as problem:
        if problem.status >= 500:
            raise
        raise UsageError(
            problem.brief, details=problem.details, resolution=problem.resolution
        ) from None


async def _watch(client: Client, run: RunAnswer, watch: Watch) -> None:
    async def entries(job: str) -> None:
        async for entry in client.entries(job):
            watch.entry(entry)

    async def log(job: str) -> None:
        async for chunk in client.log(job):
            watch.log(job, chunk)

    try:
        async with trio.open_nursery() as nursery:
            for job in run.jobs:
                nursery.start_soon(entries, job.id)
                nursery.start_soon(log, job.id)
    except* ServiceProblem as group:
        problem = cause_of(group.exceptions[0])
        raise PikaciError(
            f"the run {run.id} cannot be watched any more: {problem}",
            resolution=f"its jobs go on: `pikaci status {run.id}` shows them",
        ) from None


async def _cancel(client: Client, run: RunAnswer, watch: Watch, intent: IntentSwitch) -> None:
    """Cancel the run's jobs; at a second signal without a grace period."""

    async def end(*, now: bool) -> None:
        async with trio.open_nursery() as nursery:
            for job in run.jobs:
                nursery.start_soon(client.cancel, job.id, Cancel(now=now, reason="interrupted"))

    async def sooner() -> None:
        await intent.reaches(Intent.CANCEL_NOW, within_secs=float("inf"))
        await end(now=True)

    with trio.move_on_after(CANCEL_SECS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sooner)
            await end(now=False)
            nursery.cancel_scope.cancel()
