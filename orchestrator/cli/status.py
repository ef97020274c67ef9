"""`pikaci status`: the current state of a run or a job."""

from __future__ import annotations

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
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.output import print_json
    from orchestrator.report import job_document, run_report
    from orchestrator.terminal import first_line, plain
    from orchestrator.units import duration
    from orchestrator.words import job_word

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        jobs = [journal.look(row) for row in find_jobs(journal, run_or_job)]
    if output == "json":
        report = run_report(jobs[0].run, jobs)
        print_json(report, indent=True)
    elif output == "jsonl":
        for job in jobs:
            print_json(job_document(job))
    else:
        width = max(len(plain(job.name)) for job in jobs)
        for job in jobs:
            message = job.damage or (job.failure.message if job.failure else "")
            failure = first_line(message)
            click.echo(
                f"{job.id}  {plain(job.name).ljust(width)}  {job_word(job):20}"
                f"  {duration(job.run_ms / 1000):>11}  {failure}".rstrip()
            )
    return 0
