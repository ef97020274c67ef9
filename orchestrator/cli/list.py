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
    "-n",
    "--last",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="List the newest N runs.",
)
@output_option
def command(workspace: Path | None, state_root: Path | None, last: int, output: str) -> int:
    """List the runs of a workspace with their jobs, the newest first."""

    from orchestrator.cli.find import existing_journal
    from orchestrator.cli.output import print_json
    from orchestrator.report import run_report
    from orchestrator.terminal import plain
    from orchestrator.words import DAMAGED, job_word

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        runs = {run: journal.jobs(run=run) for _, run in journal.newest_runs(limit=last)}
        if output == "human":
            unreadable = journal.unreadable(row.id for rows in runs.values() for row in rows)
        else:
            reports = [
                run_report(run, [journal.look(row) for row in rows]) for run, rows in runs.items()
            ]
    if output == "json":
        print_json(reports, indent=True)
    elif output == "jsonl":
        for report in reports:
            print_json(report)
    else:
        for run, rows in runs.items():
            began = rows[0].submitted
            when = f"{began.astimezone():%Y-%m-%d %H:%M:%S}" if began else "at an unknown time"
            click.echo(f"{plain(run)}  {when}")
            for row in rows:
                word = DAMAGED if row.id in unreadable else job_word(row)
                click.echo(f"  {plain(row.id)}  {plain(row.name)}  {word}")
    return 0
