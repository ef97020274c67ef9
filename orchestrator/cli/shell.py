"""`pikaci shell`: a shell in the guest of a job, in the job's own world."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.state_root import StateRoot


@click.command("shell")
@click.argument("job", required=False, shell_complete=jobs_and_runs)
@click.option("--before", is_flag=True, help="Open it in a new guest, before the command runs.")
@click.option("--after", is_flag=True, help="Open it in a new guest, after the command has run.")
@workspace_option
@state_root_option
def command(
    job: str | None, before: bool, after: bool, workspace: Path | None, state_root: Path | None
) -> int:
    """Open a shell in a job's guest: next to the running command, or in a kept guest.

    The shell has the job's user, variables, secrets, directory and mounts, and sees its scratch
    copy. Default: the only job of the newest run. If the job still runs, the shell closes when the
    job ends. With --before or --after, pikaci makes a new guest from the same snapshot, image and
    inputs, and deletes it when you leave the shell.

    Exit codes: the shell's own, 2 there is no guest to enter, 4 the guest cannot be entered.
    """
    import trio

    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError(
            "a shell needs a terminal, as stdin and as stdout",
            resolution="for one command, use `pikaci run -- COMMAND`",
        )
    if before and after:
        raise UsageError("--before and --after exclude each other", resolution="choose one")
    root = state_root_of(real_workspace(workspace), state_root)
    if before or after:
        from orchestrator.cli.new_shell import shell_in_new_guest

        return shell_in_new_guest(root, job, after=after)
    return trio.run(_enter, root, job)


async def _enter(root: StateRoot, word: str | None) -> int:
    import trio

    from orchestrator.attempt.intents import IntentSwitch
    from orchestrator.cli.ending import INTERRUPTED
    from orchestrator.cli.find import existing_journal, find_job
    from orchestrator.cli.signals import cancel_on_signals

    with existing_journal(root) as journal:
        id = find_job(journal, word).id
    async with trio.open_nursery() as nursery:
        told = nursery.cancel_scope
        await nursery.start(cancel_on_signals, told, IntentSwitch(), lambda: None)
        code = await enter_job(root, id)
        told.cancel()
        return code
    return INTERRUPTED


async def enter_job(root: StateRoot, id: str, *, command: str = "") -> int:
    """Hand our terminal to a shell in the guest of this job; its exit code, when it has ended.

    `command` is for its history, by default the job's. Errors are those of `entrance` and `enter`.
    """
    from orchestrator.cli.find import existing_journal
    from orchestrator.hosts import open_hosts
    from orchestrator.session.shell import enter, entrance
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain

    def warn(text: str) -> None:
        click.echo(plain(f"pikaci: {text}"), err=True)

    with existing_journal(root) as journal:
        way = entrance(journal, id)
        async with open_hosts(open_incus(root=root)) as hosts:
            incus = hosts.at(way.lease.host).incus
            return await enter(journal, incus, way, by=_user(), warn=warn, command=command)


def _user() -> str:
    """Who we are on this machine."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
