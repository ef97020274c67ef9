"""`pikaci rerun`: runs jobs of an earlier run again, on the same snapshot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    hosts_option,
    jobs_option,
    keep_option,
    log_option,
    log_to,
    output_option,
    quiet_option,
    real_workspace,
    state_root_of,
    state_root_option,
    verbose_option,
    wait_deleted_option,
    workspace_option,
)


@click.command("rerun")
@click.argument("run_or_job", required=False, shell_complete=jobs_and_runs)
@click.option("--failed", is_flag=True, help="Rerun only the jobs that ended and did not pass.")
@workspace_option
@state_root_option
@hosts_option
@jobs_option
@keep_option
@wait_deleted_option
@output_option
@log_option
@quiet_option
@verbose_option
def command(
    run_or_job: str | None,
    failed: bool,
    workspace: Path | None,
    state_root: Path | None,
    hosts: tuple[str, ...],
    parallel: int | None,
    keep_secs: float | None,
    wait_deleted: bool,
    output: str,
    log: str | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Rerun jobs of an earlier run, with the same specs and the same snapshot.

    Default: the jobs of the newest run. They become a new run, which stops at its first failure if
    the earlier one had --fail-fast. The exit codes are those of `run`.
    """
    from orchestrator.cli.find import find_jobs, read_existing_journal
    from orchestrator.cli.run_request import run_request
    from orchestrator.cli.watch import View
    from orchestrator.job.rerun import jobs_to_rerun, rerun_request

    where = log_to(log, output, quiet=quiet)
    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        jobs = jobs_to_rerun(journal, find_jobs(journal, run_or_job), failed=failed)
    if not jobs:
        # A program that reads stdout finds the number of jobs that were run: none.
        click.echo("no job of this run failed: nothing to rerun", err=output != "human")
        if output == "json":
            click.echo("null")
        return 0
    view = View(output=output, log=where, quiet=quiet, verbose=verbose)
    request = replace(rerun_request(root, jobs), hosts=hosts)
    report = run_request(
        request, root, view, parallel=parallel, keep_secs=keep_secs, wait_deleted=wait_deleted
    )
    return report.exit_code
