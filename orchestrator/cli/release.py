"""`pikaci release`: deletes kept guests before their time is over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.state_root import StateRoot


@click.command("release")
@click.argument("run_or_job", nargs=-1, shell_complete=jobs_and_runs)
@click.option("--all", "everything", is_flag=True, help="Delete every kept guest.")
@workspace_option
@state_root_option
@output_option
def command(
    run_or_job: tuple[str, ...],
    everything: bool,
    workspace: Path | None,
    state_root: Path | None,
    output: str,
) -> int:
    """Delete the kept guests of jobs or runs now. This closes the shells in them.

    Exit codes: 0 they are gone, 2 a job has no kept guest, 4 a guest could not be deleted.
    """
    import trio

    if everything == bool(run_or_job):
        raise UsageError("no job is named", resolution="name a job or a run, or use --all")
    root = state_root_of(real_workspace(workspace), state_root)
    return trio.run(_release, root, run_or_job, output)


async def _release(root: StateRoot, words: tuple[str, ...], output: str) -> int:
    from orchestrator.cli.documents import ReleasedGuest
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.output import print_items
    from orchestrator.hosts import open_hosts
    from orchestrator.incus import LOCAL
    from orchestrator.job.context import Context
    from orchestrator.session.recovery import end_lease
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from states.outcome import EXIT_CODES, Verdict

    with existing_journal(root) as journal:
        kept = journal.kept_leases()
        if words:
            kept_jobs = {lease.job for lease in kept}
            named: set[str] = set()
            for word in words:
                ids = {row.id for row in find_jobs(journal, word)} & kept_jobs
                if not ids:
                    raise UsageError(
                        f"no guest of {word} is kept",
                        resolution="`pikaci kept` lists those that are",
                    )
                named |= ids
            kept = [lease for lease in kept if lease.job in named]
        async with open_hosts(open_incus(root=root)) as hosts:
            context = Context.on(hosts, LOCAL, root=root, journal=journal)
            for lease in kept:
                await end_lease(context, lease)
        left = {lease.instance for lease in journal.open_leases()}
    guests = [
        ReleasedGuest(job=one.job, instance=one.instance, deleted=one.instance not in left)
        for one in kept
    ]
    told = print_items(output, guests)
    for guest in guests:
        if not guest.deleted:
            click.echo(f"pikaci: {guest.job}: its guest could not be deleted", err=True)
            click.echo("  -> `pikaci doctor` checks the daemon", err=True)
        elif not told:
            click.echo(plain(f"{guest.job}: its guest is deleted"))
    if not told and not guests:
        click.echo("no guest is kept")
    return 0 if all(one.deleted for one in guests) else EXIT_CODES[Verdict.INFRASTRUCTURE]
