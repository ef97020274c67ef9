"""`pikaci cancel`: ends jobs, whoever runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.state_root import StateRoot

# Longer than a job takes to die; a process that neither answers nor lets go is stuck.
ASK_SECS = 60.0


@click.command("cancel")
@click.argument("run_or_job", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every job that has not ended.")
@click.option("--now", is_flag=True, help="Without a grace period.")
@workspace_option
@state_root_option
def command(
    run_or_job: tuple[str, ...],
    everything: bool,
    now: bool,
    workspace: Path | None,
    state_root: Path | None,
) -> int:
    """End jobs: TERM, a grace period, KILL; then log and artifacts, and the guest goes.

    Also those of a run whose process is dead. Asking twice is harmless. Exit code 0 when none
    of the jobs is alive any more, else 4.
    """
    import trio

    if everything == bool(run_or_job):
        raise UsageError(
            "say which jobs to cancel", resolution="name a job or a run, or give --all"
        )
    root = state_root_of(real_workspace(workspace), state_root)
    return trio.run(_cancel, root, run_or_job, now)


async def _cancel(root: StateRoot, words: tuple[str, ...], hurry: bool) -> int:
    import trio

    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.job.context import Context
    from orchestrator.session.cancel import cancel_jobs
    from orchestrator.session.control import REASON
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from orchestrator.words import job_word
    from states.outcome import EXIT_CODES, Verdict

    with existing_journal(root) as journal:
        rows = [row for word in words for row in find_jobs(journal, word)]
        rows = rows if words else journal.unfinished()
        for row in rows:
            if row.ended:
                verdict = job_word(journal.look(row))
                click.echo(f"{row.id}  {plain(row.name)}  had ended: {verdict}")
        alive = {row.id: row for row in rows if not row.ended}
        unreadable = journal.unreadable(alive)
        jobs = {row.id: row.run for row in alive.values() if row.id not in unreadable}
        bench = Context(root=root, journal=journal, incus=open_incus())

        with trio.move_on_after(ASK_SECS):
            await cancel_jobs(bench, jobs, tasks=None, reason=REASON, hurry=hurry)
        stuck = False
        for row in alive.values():
            job = journal.look(row)
            stuck = stuck or not (job.ended or job.damage)
            click.echo(f"{row.id}  {plain(row.name)}  {job_word(job)}")
        for id in unreadable:
            click.echo(
                f"{id} cannot be read, so it is not known what there is to be ended\n"
                "  -> `pikaci doctor` says why; what it has in Incus goes at its deadline",
                err=True,
            )
        if stuck:
            click.echo(
                "  -> not known to be dead: is the daemon there? `pikaci doctor` says, and"
                " `pikaci cancel` can be asked again",
                err=True,
            )
        elif not rows:
            click.echo("no job is alive")
        return EXIT_CODES[Verdict.INFRASTRUCTURE] if stuck or unreadable else 0
