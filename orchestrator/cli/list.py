"""`pikaci list`: runs and their jobs, the newest first."""

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


@click.command("list")
@workspace_option
@state_root_option
@click.option(
    "--last", type=click.IntRange(1), default=20, show_default=True, help="How many runs."
)
@output_option
def command(workspace: Path | None, state_root: Path | None, last: int, output: str) -> int:
    """List the runs of a workspace with their jobs, the newest first."""

    from orchestrator.cli.find import existing_journal
    from orchestrator.cli.output import print_json
    from orchestrator.cli.summary import shown_verdict
    from orchestrator.report import run_report
    from orchestrator.terminal import plain

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        newest = [
            [journal.job(row.id) for row in journal.jobs(run=run)]
            for _, run in journal.newest_runs(limit=last)
        ]
    reports = [run_report(jobs[0].run, jobs) for jobs in newest]
    if output == "json":
        print_json(reports, indent=True)
    elif output == "jsonl":
        for report in reports:
            print_json(report)
    else:
        for jobs in newest:
            began = jobs[0].phases[0].entered_at.astimezone()
            click.echo(f"{jobs[0].run}  {began:%Y-%m-%d %H:%M:%S}")
            for job in jobs:
                click.echo(f"  {job.id}  {plain(job.name)}  {shown_verdict(job)}")
    return 0
