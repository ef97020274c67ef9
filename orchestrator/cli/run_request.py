"""Runs a request in this process, and shows it: for `pikaci run` and `pikaci rerun`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.cli.follow import follow
from orchestrator.cli.signals import cancel_on_signals, tell_stopping
from orchestrator.cli.watch import View, Watch, make_watch, show_snapshot
from orchestrator.engine import WATCHED_SECS, run_jobs
from orchestrator.errors import UsageError, one_error
from orchestrator.hosts import open_hosts
from orchestrator.incus import LOCAL
from orchestrator.job.context import Context
from orchestrator.job.handle import RunHandle
from orchestrator.job.submission import Request
from orchestrator.journal import open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.report import RunReport, run_report
from orchestrator.session.locks import RootHeld, share_root
from orchestrator.settings import default_capacity, open_incus
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from states import events as ev
from states.spec import JobSpec, SecretSource


def run_request(
    request: Request,
    root: StateRoot,
    view: View,
    *,
    parallel: int | None,
    keep_secs: float | None,
    wait_deleted: bool,
) -> RunReport:
    """Run the jobs, show them, and return the report of the run.

    They run on the request's hosts, by default on this machine. If a service owns the
    state root, it runs them. Without `wait_deleted` the last guest may still be there.
    `UsageError` if a secret is missing; nothing was touched then.
    """
    if held := root_held(root):
        from orchestrator.cli.run_by_service import run_by_service

        own = parallel is not None or keep_secs is not None
        return run_by_service(request, root, view, held, own=own)
    check_secrets(request.specs)
    report: RunReport = trio.run(
        _run, request, root, make_watch(view), parallel, keep_secs, wait_deleted
    )
    return report


class Opening:
    """Tells which run is shown, once that is known.

    The run with the request's key may be another process's. `pikaci` may learn that only when it
    submits its own, whose id is then none.
    """

    def __init__(self, watch: Watch, request: Request, run: str) -> None:
        self.shown = run
        self._own = run
        self._watch = watch
        self._request = request
        self._snapshot: Snapshot | None = None
        self._told = False

    def tell(self, run: str) -> None:
        """Show this run, and what its jobs see; nothing if a run is shown already."""
        if self._told:
            return
        self._told = True
        self.shown = run
        self._watch.begin(run, self._request)
        if self._snapshot is not None and run == self._own:
            show_snapshot(self._watch, self._snapshot)

    def snapshot(self, snapshot: Snapshot) -> None:
        """What the jobs of this process's run will see, if there will be such a run."""
        self._snapshot = snapshot
        if self._told and self.shown == self._own:
            show_snapshot(self._watch, snapshot)

    def stopping(self) -> None:
        """Tell that a signal stops the jobs; how many is known only of a run that is shown."""
        if self._told:
            self._watch.stopping()
        else:
            tell_stopping()


async def _run(
    request: Request,
    root: StateRoot,
    watch: Watch,
    parallel: int | None,
    keep_secs: float | None,
    wait_deleted: bool,
) -> RunReport:
    run = new_run_id()
    opening = Opening(watch, request, run)

    def entry(entry: ev.Entry) -> None:
        # Jobs of dead processes go on meanwhile; those are not what is watched here.
        if entry.job.startswith(f"{run}."):
            opening.tell(run)
            watch.entry(entry)

    root.make()
    async with open_hosts(open_incus(root=root)) as hosts:
        with open_journal(root.journal) as journal:
            context = Context.on(
                hosts,
                *(request.hosts or (LOCAL,)),
                root=root,
                journal=journal,
                keep_secs=keep_secs,
                waits_for_delete=wait_deleted,
                on_progress=watch.publishing,
            )
            journal.observe(entry)

            async def watch_run(handle: RunHandle) -> None:
                opening.tell(handle.id)
                handles = {job.id: job for job in handle.jobs}

                async def until_ended(job: str, known: trio.Event) -> bool:
                    if handle.id != run:  # another process submitted it, with the same key
                        async for _, entry in handles[job].entries():
                            watch.entry(entry)
                            known.set()
                    known.set()
                    await handles[job].wait()
                    return await trio.to_thread.run_sync(journal.is_flaky, job)

                await follow(
                    handles,
                    watch,
                    log=lambda job: handles[job].log_pieces(),
                    until_ended=until_ended,
                )

            if not request.key:
                opening.tell(run)
            with one_error():
                async with trio.open_nursery() as nursery:
                    await nursery.start(watch.run)
                    async with trio.open_nursery() as signals:
                        with trio.CancelScope() as scope:
                            await signals.start(
                                cancel_on_signals, scope, context.intent, opening.stopping
                            )
                            try:
                                await run_jobs(
                                    context,
                                    request,
                                    parallel=parallel or default_capacity().jobs,
                                    run=run,
                                    started=opening.snapshot,
                                    watch=watch_run,
                                )
                            finally:
                                watch.publishing(None)
                        # From here on a signal ends this process: nothing is left but to print.
                        signals.cancel_scope.cancel()
                    interrupted = scope.cancelled_caught
                    jobs = [journal.look(row) for row in journal.jobs(run=opening.shown)]
                    with trio.move_on_after(WATCHED_SECS if interrupted else math.inf):
                        await watch.end(opening.shown, jobs, interrupted=interrupted)
                    nursery.cancel_scope.cancel()
    return run_report(opening.shown, jobs, interrupted=interrupted)


def root_held(root: StateRoot) -> RootHeld | None:
    """`RootHeld` if a service owns the root. Creates nothing."""
    if not (root.path / "lock").exists():
        return None
    try:
        with share_root(root.path):
            return None
    except RootHeld as held:
        return held


def check_secrets(specs: Mapping[str, JobSpec]) -> None:
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
