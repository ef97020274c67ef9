"""A request is run in this process, and watched: what `pikaci run` and `pikaci rerun` share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.cli.signals import cancel_on_signals
from orchestrator.cli.watch import Watch, open_watch, show_snapshot
from orchestrator.engine import run_jobs
from orchestrator.errors import UsageError
from orchestrator.job.context import Workbench
from orchestrator.job.submission import Request
from orchestrator.journal import open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.session.locks import RootHeld, share_root
from orchestrator.settings import default_capacity, open_incus
from orchestrator.state_root import StateRoot
from states.spec import JobSpec


def run_request(
    request: Request,
    root: StateRoot,
    output: str,
    *,
    parallel: int | None,
    keep_secs: float | None,
) -> int:
    """Run the jobs, show them as `--output` says, and return the exit code of the command.

    A service that holds the state root runs them. `UsageError` when a secret is not here; then
    nothing was touched.
    """
    if held := _held(root):
        from orchestrator.cli.run_by_service import run_by_service

        own = parallel is not None or keep_secs is not None
        return run_by_service(request, root, output, held, own=own)
    _check_secrets(request.specs)
    with open_watch(output) as watch:
        code: int = trio.run(_run, request, root, watch, parallel, keep_secs)
    return code


async def _run(
    request: Request, root: StateRoot, watch: Watch, parallel: int | None, keep_secs: float | None
) -> int:
    run = new_run_id()

    def ours(job: str) -> bool:
        # Jobs of dead processes go on meanwhile; those are not what is watched here.
        return job.startswith(f"{run}.")

    root.make()
    with open_journal(root.journal) as journal:
        bench = Workbench(
            root=root,
            journal=journal,
            incus=open_incus(),
            keep_secs=keep_secs,
            on_log=lambda job, chunk: watch.log(job, chunk) if ours(job) else None,
        )
        journal.observe(lambda entry: watch.entry(entry) if ours(entry.job) else None)

        watch.begin(run, request)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(cancel_on_signals, scope, bench.intent)
                await run_jobs(
                    bench,
                    request,
                    parallel=parallel or default_capacity().jobs,
                    run=run,
                    started=partial(show_snapshot, watch),
                )
            nursery.cancel_scope.cancel()
        jobs = [journal.job(row.id) for row in journal.jobs(run=run)]
        return watch.end(run, jobs, interrupted=scope.cancelled_caught)


def _held(root: StateRoot) -> RootHeld | None:
    """That a service has the root, where one does. Looking makes nothing."""
    if not (root.path / "lock").exists():
        return None
    try:
        with share_root(root.path):
            return None
    except RootHeld as held:
        return held


def _check_secrets(specs: Mapping[str, JobSpec]) -> None:
    """All secrets are there before anything is touched. They are read again when they are used."""
    for name, spec in specs.items():
        try:
            read_secrets(spec.secrets)
        except SecretMissing as error:
            raise UsageError(f"jobs.{name}.{error.brief}", resolution=error.resolution) from None
