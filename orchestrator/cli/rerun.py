"""`pikaci rerun`: runs jobs of an earlier run again, on the same snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    jobs_option,
    output_option,
    quiet_option,
    real_workspace,
    state_root_of,
    state_root_option,
    verbose_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.job.submission import Request
    from orchestrator.state_root import StateRoot
    from states.job import Job


@click.command("rerun")
@click.argument("run_or_job", required=False, shell_complete=jobs_and_runs)
@click.option("--failed", is_flag=True, help="Run only the jobs that ended and did not pass.")
@workspace_option
@state_root_option
@jobs_option
@output_option
@quiet_option
@verbose_option
def command(
    run_or_job: str | None,
    failed: bool,
    workspace: Path | None,
    state_root: Path | None,
    parallel: int | None,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run jobs of an earlier run again, with the same specs and the same snapshot.

    By default, the jobs of the newest run. This makes a new run; the exit codes are those of
    `run`.
    """
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.run_request import run_request
    from orchestrator.cli.watch import View
    from states.graph import with_needed
    from states.outcome import Verdict

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root) as journal:
        jobs = [journal.job(row.id) for row in find_jobs(journal, run_or_job)]
        every = {job.name: job for job in jobs}
        if jobs and any(job.needs for job in jobs):
            # A job that is run again needs the others again; what they left is reused.
            rows = journal.jobs(run=jobs[0].run)
            every = {job.name: job for job in (journal.job(row.id) for row in rows)}
    if failed:
        jobs = [job for job in jobs if job.ended and job.verdict is not Verdict.PASSED]
        if not jobs:
            # A program that reads stdout finds the number of jobs that were run: none.
            click.echo("no job of this run failed: nothing to rerun", err=output != "human")
            if output == "json":
                click.echo("null")
            return 0
    view = View(output=output, quiet=quiet, verbose=verbose)
    specs = {name: job.spec for name, job in every.items() if job.spec is not None}
    jobs = [every[name] for name in with_needed(specs, [job.name for job in jobs])]
    return run_request(_request(root, jobs), root, view, parallel=parallel, keep_secs=None)


def _request(root: StateRoot, jobs: Sequence[Job]) -> Request:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.snapshot import Snapshot

    seen = [job.snapshot for job in jobs if job.snapshot is not None]
    # Each job sees all of the workspace's snapshot, or its part of it.
    first = min(seen, key=lambda snapshot: bool(snapshot.whole), default=None)
    if first is None:
        raise UsageError(
            f"the run {jobs[0].run} was rejected, so it has no snapshot",
            resolution="correct the job file, then use `pikaci run`",
        )
    path = root.snapshots / (first.whole or first.hash)
    if not path.is_dir():
        raise UsageError(
            f"the snapshot of the run {jobs[0].run} was deleted",
            resolution="`pikaci run` uses the current workspace",
        )
    return Request(
        workspace=Path(jobs[0].workspace),
        specs={job.name: job.spec for job in jobs if job.spec is not None},
        snapshot=Snapshot(path.name, path, first.commit, first.dirty),
    )
