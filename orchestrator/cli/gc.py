"""`pikaci gc`: frees what old runs hold on the disk."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

KEEP_RUNS = 20
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_POWERS = "KMGT"


def age(text: str) -> timedelta:
    """A whole number with a unit: `12h`, `30d`."""
    found = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no age; for example: 90m, 12h, 30d, 4w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def size(text: str) -> int:
    """Bytes with a unit, in powers of 1024: `500M`, `5G`, `5GiB`."""
    found = re.fullmatch(r"([0-9]{1,7})([KMGT])(iB)?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no size; for example: 500M, 5G, 5GiB")
    return int(found[1]) << 10 * (_POWERS.index(found[2]) + 1)


@click.command("gc")
@workspace_option
@state_root_option
@click.option(
    "--keep",
    type=click.IntRange(0),
    help=f"How many runs to keep; {KEEP_RUNS} when no bound is given.",
)
@click.option("--older-than", type=age, help="Delete runs that ended so long ago: 12h, 30d.")
@click.option("--max-size", type=size, help="Delete old runs until all fit into it: 500M, 5G.")
@click.option("--damaged", is_flag=True, help="Also runs with a job that cannot be read.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
def command(
    workspace: Path | None,
    state_root: Path | None,
    keep: int | None,
    older_than: timedelta | None,
    max_size: int | None,
    damaged: bool,
    dry_run: bool,
) -> int:
    """Delete logs, artifacts, journal entries and snapshots of old runs.

    A run goes when it is beyond any bound that is given. A run that is going on, or has an
    instance, and the snapshot that it uses are never touched. One with a job that cannot be read
    stays, unless --damaged is given.

    Exit code 0, or 4 when something could not be deleted.
    """
    from orchestrator.cli.find import existing_journal
    from orchestrator.session.gc import Bounds, collect_garbage
    from orchestrator.terminal import plain
    from orchestrator.units import size as shown_size
    from states.outcome import EXIT_CODES, Verdict

    if keep is None and older_than is None and max_size is None:
        keep = KEEP_RUNS
    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        bounds = Bounds(runs=keep, age=older_than, size=max_size, damaged=damaged)
        freed = collect_garbage(root, journal, bounds, dry_run=dry_run)
    for problem in freed.problems:
        click.echo(f"pikaci: {plain(problem)}", err=True)
    if freed.spared:
        click.echo(
            f"kept, as a job of theirs cannot be read: {plain(', '.join(freed.spared))}\n"
            "  -> `pikaci doctor` says why; --damaged takes them too"
        )
    would = "would delete" if dry_run else "deleted"
    click.echo(
        f"{would} {freed.runs} runs, {freed.jobs} jobs and {freed.snapshots} snapshots:"
        f" {shown_size(freed.size)}"
    )
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if freed.problems else 0
