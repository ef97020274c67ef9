"""`pikaci cancel`: cancels jobs, whichever process runs them."""

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

# Longer than a job takes to end; a process that does not answer for so long is stuck.
ASK_SECS = 60.0


@click.command("cancel")
@click.argument("run_or_job", nargs=-1, shell_complete=jobs_and_runs)
@click.option("--all", "everything", is_flag=True, help="Cancel every job that has not ended.")
@click.option("--now", is_flag=True, help="Kill the jobs at once, without a grace period.")
@workspace_option
@state_root_option
@output_option
def command(
    run_or_job: tuple[str, ...],
    everything: bool,
    now: bool,
    workspace: Path | None,
    state_root: Path | None,
    output: str,
) -> int:
    """Cancel jobs, no matter which process runs them, even if that process is dead.

    The command gets TERM, and KILL after a grace period. Then log and artifacts are collected,
    and the guest is deleted. Cancelling a job twice is harmless.

    Exit codes: 0 all of the jobs have ended, 4 some have not.
    """
    import trio

    if everything == bool(run_or_job):
        raise UsageError("no job is named", resolution="name a job or a run, or use --all")
    root = state_root_of(real_workspace(workspace), state_root)
    return trio.run(_cancel, root, run_or_job, now, output)


async def _cancel(root: StateRoot, words: tuple[str, ...], hurry: bool, output: str) -> int:
    import trio

    from orchestrator.cli.documents import CancelledJob
    from orchestrator.cli.ending import print_error
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.output import print_items
    from orchestrator.hosts import open_hosts
    from orchestrator.incus import LOCAL
    from orchestrator.job.context import Context
    from orchestrator.session.away import HostAway
    from orchestrator.session.cancel import cancel_jobs
    from orchestrator.session.control import REASON
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from orchestrator.words import job_word
    from states.outcome import EXIT_CODES, Verdict

    with existing_journal(root) as journal:
        named = [row for word in words for row in find_jobs(journal, word)]
        rows = list({row.id: row for row in named}.values()) if words else journal.unfinished()
        alive = {row.id: row for row in rows if not row.ended}
        unreadable = journal.unreadable(alive)
        jobs = {row.id: row.run for row in alive.values() if row.id not in unreadable}
        async with open_hosts(open_incus(root=root)) as hosts:
            context = Context.on(hosts, LOCAL, root=root, journal=journal)
            away: HostAway | None = None
            with trio.move_on_after(ASK_SECS):
                try:
                    await cancel_jobs(context, jobs, tasks=None, reason=REASON, hurry=hurry)
                except HostAway as fault:
                    away = fault
        jobs_now = [(row, journal.look(row)) for row in rows]
        stuck = any(not (job.ended or job.damage) for _, job in jobs_now)
        documents = [
            CancelledJob(
                id=row.id,
                run=row.run,
                name=row.name,
                state=job.state,
                verdict=job.verdict,
                had_ended=row.ended,
                damaged=bool(job.damage),
            )
            for row, job in jobs_now
        ]
        if not print_items(output, documents):
            for row, job in jobs_now:
                had = "had already ended: " if row.ended else ""
                click.echo(f"{row.id}  {plain(row.name)}  {had}{job_word(job)}")
            if not rows:
                click.echo("no job is running or queued")
        for id in unreadable:
            click.echo(
                f"{id} cannot be read, so pikaci does not know what to cancel\n"
                "  -> `pikaci doctor` says why; its instances are deleted at their deadlines",
                err=True,
            )
        if away is not None:
            print_error(away)
        elif stuck:
            click.echo(
                "some jobs may still be running\n"
                "  -> `pikaci doctor` checks the daemon; then run `pikaci cancel` again",
                err=True,
            )
        return EXIT_CODES[Verdict.INFRASTRUCTURE] if stuck or unreadable else 0
