"""`pikaci status`: the last run, or one run or job, as it stands."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)


@click.command("status")
@click.argument("run_or_job", required=False)
@workspace_option
@state_root_option
@output_option
def command(
    run_or_job: str | None, workspace: Path | None, state_root: Path | None, output: str
) -> int:
    """Show the jobs of the last run, or of the run or job that is named.

    `--output json` prints the document that `pikaci run --output json` prints; jsonl prints one
    job a line.
    """
    import msgspec

    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.summary import shown_verdict
    from orchestrator.report import job_report, run_report
    from orchestrator.terminal import plain

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        jobs = [journal.job(row.id) for row in find_jobs(journal, run_or_job)]
    if output == "json":
        report = run_report(jobs[0].run, jobs)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    elif output == "jsonl":
        for job in jobs:
            sys.stdout.write(msgspec.json.encode(job_report(job)).decode() + "\n")
    else:
        width = max(len(job.name) for job in jobs)
        for job in jobs:
            spent = sum(phase.duration_ms or 0 for phase in job.phases) / 1000
            failure = job.failure.message.splitlines()[0] if job.failure else ""
            click.echo(
                f"{job.id}  {job.name.ljust(width)}  {shown_verdict(job):20}"
                f"  {spent:8.2f} s  {plain(failure)}".rstrip()
            )
    return 0
