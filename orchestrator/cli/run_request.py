"""Runs a request in this process, and shows it: for `pikaci run` and `pikaci rerun`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import trio

from orchestrator.attempt.id_map import local_id_range
from orchestrator.attempt.plan import Host
from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.cli.exit_codes import ExitCodes
from orchestrator.cli.follow import follow
from orchestrator.cli.signals import cancel_on_signals
from orchestrator.cli.watch import View, Watch, make_watch, show_snapshot
from orchestrator.engine import WATCHED_SECS, run_jobs
from orchestrator.errors import UsageError, one_error
from orchestrator.job.context import Context
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Request
from orchestrator.journal import open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.report import run_report
from orchestrator.session.locks import RootHeld, share_root
from orchestrator.settings import default_capacity, open_incus
from orchestrator.state_root import StateRoot
from states.spec import JobSpec, SecretSource


def run_request(
    request: Request,
    root: StateRoot,
    view: View,
    *,
    parallel: int | None,
    keep_secs: float | None,
    codes: ExitCodes = ExitCodes.PIKACI,
) -> int:
    """Run the jobs, show them, and return the exit code of the command.

    If a service owns the state root, it runs them. `UsageError` if a secret is missing; nothing
    was touched then.
    """
    if held := _held(root):
        from orchestrator.cli.run_by_service import run_by_service

        own = parallel is not None or keep_secs is not None
        return run_by_service(request, root, view, held, own=own, codes=codes)
    _check_secrets(request.specs)
    code: int = trio.run(_run, request, root, make_watch(view), parallel, keep_secs, codes)
    return code


async def _run(
    request: Request,
    root: StateRoot,
    watch: Watch,
    parallel: int | None,
    keep_secs: float | None,
    codes: ExitCodes,
) -> int:
    run = new_run_id()

    def ours(job: str) -> bool:
        # Jobs of dead processes go on meanwhile; those are not what is watched here.
        return job.startswith(f"{run}.")

    root.make()
    with open_journal(root.journal) as journal:
        context = Context(
            root=root,
            journal=journal,
            incus=open_incus(root=root),
            ids=local_id_range(Host().remote),
            keep_secs=keep_secs,
            on_progress=watch.publishing,
        )
        journal.observe(lambda entry: watch.entry(entry) if ours(entry.job) else None)

        async def watch_run(handle: RunHandle) -> None:
            handles = {job.id: job for job in handle.jobs}
            await follow(
                handles,
                watch,
                log=lambda job: handles[job].log_pieces(),
                until_ended=lambda job: handles[job].wait(),
            )

        watch.begin(run, request)
        with one_error():
            async with trio.open_nursery() as nursery:
                await nursery.start(watch.run)
                async with trio.open_nursery() as signals:
                    with trio.CancelScope() as scope:
                        await signals.start(
                            cancel_on_signals, scope, context.intent, watch.stopping
                        )
                        try:
                            await run_jobs(
                                context,
                                request,
                                parallel=parallel or default_capacity().jobs,
                                run=run,
                                started=partial(show_snapshot, watch),
                                watch=watch_run,
                            )
                        finally:
                            watch.publishing(None)
                    # From here on a signal ends this process: nothing is left but to print.
                    signals.cancel_scope.cancel()
                interrupted = scope.cancelled_caught
                jobs = [journal.look(row) for row in journal.jobs(run=run)]
                with trio.move_on_after(WATCHED_SECS if interrupted else math.inf):
                    await watch.end(run, jobs, interrupted=interrupted)
                nursery.cancel_scope.cancel()
    return codes.of(run_report(run, jobs, interrupted=interrupted))


def _held(root: StateRoot) -> RootHeld | None:
    """`RootHeld` if a service owns the root. Creates nothing."""
    if not (root.path / "lock").exists():
        return None
    try:
        with share_root(root.path):
            return None
    except RootHeld as held:
        return held


def _check_secrets(specs: Mapping[str, JobSpec]) -> None:
    """Check all secrets before anything is touched. They are read again when they are used."""
    missing = []
    for name, spec in specs.items():
        alone = [{secret: source} for secret, source in spec.secrets.items()]
        found = [error for one in alone if (error := _missing(one, {}))]
        if not found and (error := _missing(spec.secrets, spec.env)):
            found = [error]  # all are there, and too long together
        missing += [(f"jobs.{name}.{error.brief}", error.resolution) for error in found]
    if len(missing) == 1:
        raise UsageError(missing[0][0], resolution=missing[0][1])
    if missing:
        lines = [f"{brief}; {resolution}" for brief, resolution in missing]
        raise UsageError(f"{len(missing)} secrets are missing", details="\n".join(lines))


def _missing(secrets: Mapping[str, SecretSource], env: Mapping[str, str]) -> SecretMissing | None:
    try:
        read_secrets(secrets, env)
    except SecretMissing as error:
        return error
    return None
