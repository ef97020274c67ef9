"""`pikaci gc`: frees the disk space of old runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from orchestrator.image.store import Image
    from orchestrator.journal.reader import JournalReader
    from orchestrator.state_root import StateRoot

KEEP_RUNS = 20
# For guests that are being deleted, or whose host does not answer.
LEASES_SECS = 5.0
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_POWERS = "KMGT"


def age(text: str) -> timedelta:
    """A whole number with a unit: `12h`, `30d`."""
    found = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a valid age: write 90m, 12h, 30d or 4w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def size(text: str) -> int:
    """Bytes with a unit, in powers of 1024: `500M`, `5G`, `5GiB`."""
    found = re.fullmatch(r"([0-9]{1,7})([KMGT])(iB)?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a valid size: write 500M, 5G or 5GiB")
    return int(found[1]) << 10 * (_POWERS.index(found[2]) + 1)


@click.command("gc")
@workspace_option
@state_root_option
@click.option(
    "--keep",
    type=click.IntRange(0),
    metavar="N",
    help=f"Keep at most N runs. Default: {KEEP_RUNS}, if no other limit is given.",
)
@click.option(
    "--older-than", type=age, metavar="AGE", help="Delete runs that ended longer ago, such as 30d."
)
@click.option(
    "--max-size",
    type=size,
    metavar="SIZE",
    help="Delete the oldest runs until the rest fits into SIZE, such as 500M or 5G.",
)
@click.option("--damaged", is_flag=True, help="Also delete runs with a job that cannot be read.")
@click.option("-n", "--dry-run", is_flag=True, help="List what would be deleted. Delete nothing.")
@output_option
def command(
    workspace: Path | None,
    state_root: Path | None,
    keep: int | None,
    older_than: timedelta | None,
    max_size: int | None,
    damaged: bool,
    dry_run: bool,
    output: str,
) -> int:
    """Delete logs, artifacts, journal entries, snapshots and outputs of old runs.

    A run is deleted if it exceeds any of the given limits. A run that has not ended, or still has
    an instance, is kept with its snapshot. An output is deleted with the last run that made or used
    it; deleting an image needs an Incus daemon. On other hosts, trees are deleted if no job needed
    them for a day, or for the time given with --older-than. A run with a job that cannot be read is
    kept, unless --damaged is given.

    Exit codes: 0 done, 4 something could not be deleted.
    """
    from orchestrator.cli.documents import GcReport
    from orchestrator.cli.find import read_existing_journal
    from orchestrator.cli.output import print_items
    from orchestrator.session.gc import Bounds, collect_garbage
    from orchestrator.terminal import plain
    from orchestrator.units import counted
    from orchestrator.units import size as shown_size
    from states.outcome import EXIT_CODES, Verdict

    if keep is None and older_than is None and max_size is None:
        keep = KEEP_RUNS
    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        bounds = Bounds(runs=keep, age=older_than, size=max_size, damaged=damaged)
        hosts = [name for name in journal.hosts() if name]  # of runs that go, too
        ending = _end_leases(root, dry_run) if journal.open_leases() else []
        freed = collect_garbage(root, journal, bounds, dry_run=dry_run, ending=ending)
        images, left = _collect_images(root, journal, freed.output_names, dry_run=dry_run)
        trees, kept = _collect_trees(hosts, older_than, dry_run)
    problems = (*freed.problems, *left, *kept)
    for problem in problems:
        click.echo(f"pikaci: {plain(problem)}", err=True)
    report = GcReport(
        dry_run=dry_run,
        runs=freed.runs,
        jobs=freed.jobs,
        snapshots=freed.snapshots,
        size=freed.size,
        problems=problems,
        spared=freed.spared,
        outputs=freed.outputs,
        images=len(images),
        trees=trees,
    )
    if not print_items(output, [report], report):
        if freed.spared:
            click.echo(
                f"kept, because a job cannot be read: {plain(', '.join(freed.spared))}\n"
                "  -> `pikaci doctor` says why; --damaged deletes these runs too"
            )
        would = "would delete" if dry_run else "deleted"
        what = (
            f"{counted(freed.runs, 'run')}, {counted(freed.jobs, 'job')},"
            f" {counted(freed.snapshots, 'snapshot')} and {counted(freed.outputs, 'output')}"
        )
        click.echo(f"{would} {what}: {shown_size(freed.size)}")
        if images:
            total = shown_size(sum(image.size for image in images))
            click.echo(f"{would} {counted(len(images), 'image')}: {total} of Incus's own disk")
        if trees:
            click.echo(f"{would} {counted(trees, 'tree')} on other hosts")
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if problems else 0


def _end_leases(root: StateRoot, dry_run: bool) -> list[str]:
    """End the leases of guests that Incus deletes by itself, so that gc can delete their runs.

    As far as that is possible now: an open lease keeps its run. A dry run only returns the
    instances whose leases would end.
    """
    from contextlib import suppress

    import trio

    from orchestrator.hosts import open_hosts
    from orchestrator.incus import LOCAL
    from orchestrator.job.context import Context
    from orchestrator.job.queue import Queue
    from orchestrator.journal import open_journal
    from orchestrator.session.locks import share_root
    from orchestrator.session.recovery import leases_to_end, recover
    from orchestrator.settings import default_capacity, open_incus
    from states.errors import PikaciError

    async def main() -> list[str]:
        async with open_hosts(open_incus(root=root)) as hosts:
            with open_journal(root.journal) as journal, share_root(root.path):
                context = Context.on(hosts, LOCAL, root=root, journal=journal)
                if dry_run:
                    leases = await leases_to_end(context, within_secs=LEASES_SECS)
                    return [lease.instance for lease in leases]
                with trio.move_on_after(LEASES_SECS):
                    await recover(context, Queue(default_capacity()), only=())
        return []

    with suppress(PikaciError, OSError):  # a root that cannot be written to, for example
        return trio.run(main)
    return []


def _collect_trees(
    names: list[str], older_than: timedelta | None, dry_run: bool
) -> tuple[int, list[str]]:
    """How many trees were, or would be, deleted on other hosts; and why others are left."""
    if not names:
        return 0, []
    import trio

    from orchestrator.hosts import open_hosts
    from orchestrator.session.gc_trees import IDLE_SECS, collect_trees
    from orchestrator.settings import open_incus

    idle_secs = IDLE_SECS if older_than is None else older_than.total_seconds()

    async def main() -> tuple[int, list[str]]:
        async with open_hosts(open_incus()) as hosts:
            return await collect_trees(hosts, names, idle_secs=idle_secs, dry_run=dry_run)

    return trio.run(main)


def _collect_images(
    root: StateRoot, journal: JournalReader, without: Collection[str], *, dry_run: bool
) -> tuple[list[Image], list[str]]:
    """The images that were, or would be, deleted; and why others are left."""
    from orchestrator.outputs.store import OutputStore

    names = OutputStore(root.outputs).hosts_of_images()
    if not names:
        return [], []  # no daemon is needed
    import trio

    from orchestrator.hosts import open_hosts
    from orchestrator.session.gc_images import collect_images_on
    from orchestrator.settings import open_incus

    async def main() -> tuple[list[Image], list[str]]:
        async with open_hosts(open_incus()) as hosts:
            return await collect_images_on(
                hosts, names, root, journal, dry_run=dry_run, without=without
            )

    return trio.run(main)
