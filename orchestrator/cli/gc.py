"""`pikaci gc`: frees what old runs hold on the disk."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)


@click.command("gc")
@workspace_option
@state_root_option
@click.option("--keep", type=click.IntRange(0), default=20, show_default=True, help="Runs to keep.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
def command(workspace: Path | None, state_root: Path | None, keep: int, dry_run: bool) -> int:
    """Delete logs, artifacts, journal entries and snapshots of all but the newest runs.

    A run that is going on, and the snapshot that it uses, are never touched.
    """
    from orchestrator.cli.find import existing_journal
    from orchestrator.gc import collect_garbage

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root) as journal:
        freed = collect_garbage(root, journal, keep=keep, dry_run=dry_run)
    would = "would delete" if dry_run else "deleted"
    click.echo(f"{would} {freed.runs} runs, {freed.jobs} jobs and {freed.snapshots} snapshots")
    return 0
