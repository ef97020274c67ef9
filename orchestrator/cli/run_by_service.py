"""Submits a run to the service that owns the state root, and follows it."""

from __future__ import annotations

import math
import secrets

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.cli.find import read_existing_journal
from orchestrator.cli.follow import follow
from orchestrator.cli.signals import cancel_on_signals, tell_stopping
from orchestrator.cli.watch import View, Watch, make_watch, show_snapshot
from orchestrator.engine import WATCHED_SECS
from orchestrator.errors import UsageError, leaves, one_error
from orchestrator.job.submission import Request
from orchestrator.report import RunReport, run_report
from orchestrator.service.client import (
    Client,
    RunAnswer,
    ServiceProblem,
    open_client,
    submission_of,
)
from orchestrator.service.serving import default_socket
from orchestrator.service.types import Cancel
from orchestrator.session.locks import RootHeld
from orchestrator.snapshot.snapshot import snapshot_of
from orchestrator.state_root import StateRoot
from states import events as ev
from states.ending import Intent
from states.errors import PikaciError
from states.outcome import Verdict
from states.spec import keep_secs

CANCEL_SECS = 60.0
# Between a job's end, where its stream ends, and what says whether its guest is kept.
KEPT_SECS = 5.0


def run_by_service(
    request: Request,
    root: StateRoot,
    view: View,
    held: RootHeld,
    *,
    own: bool,
) -> RunReport:
    """Run the jobs there, show them, and return the report of the run.

    Raises `held` if the service is not on its usual socket, and `UsageError` if the run has options
    of its `own` or the service refuses it.
    """
    if not default_socket(root).is_socket():
        raise held
    if own:
        raise UsageError(
            f"{held.brief}: --jobs and --keep-on-failure do not work with a service",
            resolution="remove these options, or use another --state-root",
        )
    report: RunReport = trio.run(_run, request, root, make_watch(view))
    return report


async def _run(request: Request, root: StateRoot, watch: Watch) -> RunReport:
    run: RunAnswer | None = None
    intent = IntentSwitch()
    seen = trio.Event()
    # A signal does not break off a submission: the service would run it, and nobody cancel it.
    submitting = trio.CancelScope(shield=True)

    def tell() -> None:
        if run is None:
            submitting.deadline = trio.current_time() + CANCEL_SECS
            tell_stopping()
        else:
            watch.stopping()

    async def watch_run(client: Client, run: RunAnswer) -> None:
        await _watch(client, root, run, watch)
        seen.set()

    with one_error():
        async with open_client(default_socket(root)) as client, trio.open_nursery() as nursery:
            async with trio.open_nursery() as signals:
                with trio.CancelScope() as scope:
                    await signals.start(cancel_on_signals, scope, intent, tell)
                    with submitting:
                        run = await _submit(client, request)
                        submitting.deadline = math.inf
                        _begin(watch, root, request, run)
                        await nursery.start(watch.run)
                        nursery.start_soon(watch_run, client, run)
                    await seen.wait()
                if run is None:
                    raise PikaciError(
                        "interrupted, and the service does not say whether it has the run",
                        resolution="`pikaci list` shows runs, and `pikaci cancel` cancels one",
                    )
                interrupted = scope.cancelled_caught
                if interrupted:
                    await _cancel(client, run, intent)
                    with trio.move_on_after(WATCHED_SECS):
                        await seen.wait()
                # From here on a signal ends this process: nothing is left but to print.
                signals.cancel_scope.cancel()
            with read_existing_journal(root) as journal:
                rows = (journal.find(job.id) for job in run.jobs)
                jobs = [journal.look(row) for row in rows if row is not None]
            with trio.move_on_after(WATCHED_SECS if interrupted else math.inf):
                await watch.end(run.id, jobs, interrupted=interrupted)
            nursery.cancel_scope.cancel()
    return run_report(run.id, jobs, interrupted=interrupted)


def _begin(watch: Watch, root: StateRoot, request: Request, run: RunAnswer) -> None:
    watch.begin(run.id, request)
    seen = run.jobs[0].snapshot
    if seen is not None:
        path = root.snapshots / seen.hash
        show_snapshot(watch, snapshot_of(seen, path, run.warnings))


def _is_flaky(root: StateRoot, job: str) -> bool:
    with read_existing_journal(root) as journal:
        return journal.is_flaky(job)


async def notes_of_keeping(root: StateRoot, id: str, seen: int) -> list[ev.LeaseKept | ev.Warned]:
    """What says of a job that has ended whether its guest is kept.

    `seen` is how many of the job's entries are known: only later ones are returned.
    """

    def look() -> tuple[list[ev.LeaseKept | ev.Warned], bool]:
        """The notes, and whether more may come."""
        with read_existing_journal(root) as journal:
            row = journal.find(id)
            job = journal.look(row) if row is not None else None
            if job is None or job.spec is None or keep_secs(job.spec, None) is None:
                return [], False
            if job.verdict in (Verdict.PASSED, Verdict.CANCELLED):
                return [], False
            # First: a guest that is not kept is deleted after that was said.
            may_come = any(lease.job == id for lease in journal.open_leases())
            entries = [entry for _, entry in journal.entries(id)]
            kept = any(isinstance(entry, ev.LeaseKept) for entry in entries)
            notes = [note for note in entries[seen:] if isinstance(note, ev.LeaseKept | ev.Warned)]
            return notes, may_come and not kept

    notes: list[ev.LeaseKept | ev.Warned] = []
    with trio.move_on_after(KEPT_SECS):
        while True:
            notes, may_come = await trio.to_thread.run_sync(look)
            if not may_come:
                break
            await trio.sleep(0.05)
    return notes


async def _watch(client: Client, root: StateRoot, run: RunAnswer, watch: Watch) -> None:
    async def copy_entries(job: str, known: trio.Event) -> bool:
        seen = 0
        async for entry in client.entries(job):
            watch.entry(entry)
            known.set()
            seen += 1
        for note in await notes_of_keeping(root, job, seen):
            watch.entry(note)
        return await trio.to_thread.run_sync(_is_flaky, root, job)

    jobs = [job.id for job in run.jobs]
    try:
        await follow(jobs, watch, log=client.log, until_ended=copy_entries)
    except* ServiceProblem as group:
        why = next(each.headline for each in leaves(group) if isinstance(each, ServiceProblem))
        raise PikaciError(
            f"cannot follow the run {run.id} any longer: {why}",
            resolution=f"its jobs continue: `pikaci status {run.id}` shows them",
        ) from None


async def _submit(client: Client, request: Request) -> RunAnswer:
    try:
        return await client.submit(submission_of(request), key=request.key or secrets.token_hex(16))
    except ServiceProblem as problem:
        if problem.status >= 500:
            raise
        raise UsageError(
            problem.brief, details=problem.details, resolution=problem.resolution
        ) from None


async def _cancel(client: Client, run: RunAnswer, intent: IntentSwitch) -> None:
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
