"""`pikaci status`: the current state of a run or a job."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import options
from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)


@click.command("status")
@click.argument("run_or_job", required=False, shell_complete=jobs_and_runs)
@workspace_option
@state_root_option
@output_option
def command(
    run_or_job: str | None, workspace: Path | None, state_root: Path | None, output: str
) -> int:
    """Show a job, or the jobs of a run. Default: the newest run.

    QUEUED is the time in the queue, TIME the time since. `--output json` prints the document of
    `pikaci run --output json`, jsonl a line for each job.
    """
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.output import print_items
    from orchestrator.cli.run_table import print_jobs, print_tests
    from orchestrator.report import job_document, run_report
    from orchestrator.session import locks

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        jobs = [journal.look(row) for row in find_jobs(journal, run_or_job)]
    if output == "human":
        print_jobs(jobs)
        if run_or_job and len(jobs) == 1:
            print_tests(jobs[0])
        session = locks.session_of(jobs[0].run)
        if not all(job.ended for job in jobs) and not locks.is_held(root.locks, session):
            click.echo(f"the process that ran it is gone\n-> pikaci resume{options.root_flags}")
    else:
        print_items(output, [job_document(job) for job in jobs], run_report(jobs[0].run, jobs))
    return 0
