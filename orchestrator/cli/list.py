"""`pikaci list`: the runs of a workspace, newest first."""

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
    "-n",
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="List the newest N runs.",
)
@click.option("--jobs", "with_jobs", is_flag=True, help="List the jobs of each run below it.")
@output_option
def command(
    workspace: Path | None, state_root: Path | None, last: int, with_jobs: bool, output: str
) -> int:
    """List the runs of a workspace, newest first: when, how long, and how their jobs ended.

    The last line counts the warm guests, booted or booting. The JSON forms always include the
    jobs, and have no such line.
    """
    from orchestrator.cli.find import read_existing_journal
    from orchestrator.cli.run_table import print_runs, print_warm
    from orchestrator.session import locks

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        runs = {run: journal.jobs(run=run) for _, run in journal.newest_runs(limit=last)}
        if output == "human":
            unreadable = journal.unreadable(row.id for rows in runs.values() for row in rows)
            far = [row for rows in runs.values() for row in rows if with_jobs and row.host]
            members = {row.id: journal.look(row).member for row in far}
            print_runs(runs, unreadable, with_jobs=with_jobs, members=members)
            # Those of a process that is gone are deleted by the next: no job gets them.
            leases = [lease for lease in journal.open_leases() if not lease.job]
            print_warm([one.host for one in leases if locks.is_held(root.locks, one.run)])
        else:
            from orchestrator.cli.output import print_items
            from orchestrator.report import run_report

            reports = [
                run_report(run, [journal.look(row) for row in rows], number=rows[0].number)
                for run, rows in runs.items()
            ]
            print_items(output, reports)
    return 0
