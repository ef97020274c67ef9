"""`pikaci kept`: the guests that were kept for debugging, and until when."""

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


@click.command("kept")
@workspace_option
@state_root_option
@output_option
def command(workspace: Path | None, state_root: Path | None, output: str) -> int:
    """List the guests that are kept for debugging, and until when.

    `pikaci shell JOB` opens a shell in one, `pikaci release JOB` deletes it.
    """
    from orchestrator.cli.documents import KeptGuest
    from orchestrator.cli.find import read_existing_journal
    from orchestrator.cli.output import print_items
    from orchestrator.terminal import plain
    from orchestrator.words import job_word

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        leases = journal.kept_leases()
        rows = [(lease, row) for lease in leases if (row := journal.find(lease.job))]
    guests = [
        KeptGuest(
            job=lease.job,
            name=row.name,
            verdict=row.verdict,
            instance=lease.instance,
            host=lease.host or "local",
            until=lease.deadline,
        )
        for lease, row in rows
    ]
    if not print_items(output, guests):
        for guest, (_, row) in zip(guests, rows, strict=True):
            until = f"until {guest.until.astimezone():%H:%M}"
            where = "" if guest.host == "local" else f"  on {guest.host}"
            click.echo(plain(f"{guest.job}  {guest.name}  {job_word(row)}  {until}{where}"))
        if not guests:
            click.echo("no guest is kept")
    return 0
