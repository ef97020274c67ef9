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

    QUEUED is the time in the queue, and TIME the time since then. `--output json` prints the same
    document as `pikaci run --output json`, and jsonl one line per job.
    """
    from orchestrator.cli.find import find_jobs, read_existing_journal
    from orchestrator.cli.run_table import print_flakes, print_jobs, print_tests, print_usage
    from orchestrator.session import locks

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        rows = find_jobs(journal, run_or_job)
        jobs = [journal.look(row) for row in rows]
    if output == "human":
        print_jobs(jobs)
        print_flakes(jobs)
        if run_or_job and len(jobs) == 1:
            print_tests(jobs[0])
            print_usage(jobs[0])
        session = locks.session_of(jobs[0].run)
        if not all(job.ended for job in jobs) and not locks.is_held(root.locks, session):
            click.echo(f"the process that ran it is gone\n-> pikaci resume{options.root_flags}")
    else:
        from orchestrator.cli.last_lines import with_log_ends
        from orchestrator.cli.output import print_items
        from orchestrator.report import run_report

        report = with_log_ends(run_report(jobs[0].run, jobs, number=rows[0].number), jobs)
        print_items(output, report.jobs, report)
    return 0
