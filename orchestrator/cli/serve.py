"""`pikaci serve`: has a state root for itself, and brings to an end what is in it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from orchestrator.settings import StateRoot


@click.command("serve")
@workspace_option
@state_root_option
@click.option("--jobs", "parallel", type=click.IntRange(1), help="How many jobs at once.")
def command(workspace: Path | None, state_root: Path | None, parallel: int | None) -> int:
    """Hold a state root: jobs of dead processes go on, and what nobody needs is deleted.

    TERM or Ctrl-C end it, with exit code 0: jobs go on in their guests, and are taken over at its
    next start.
    """
    import trio

    root = state_root_of(real_workspace(workspace), state_root)
    return trio.run(_serve, root, parallel or min(os.cpu_count() or 1, 4))


async def _serve(root: StateRoot, parallel: int) -> int:
    import trio

    from orchestrator.cli.summary import shown_verdict
    from orchestrator.journal import open_journal
    from orchestrator.locks import hold_root
    from orchestrator.settings import open_incus
    from orchestrator.tending import tending
    from orchestrator.workbench import Workbench
    from states import events as ev

    root.make()
    with open_journal(root.journal) as journal:
        bench = Workbench(root=root, journal=journal, incus=open_incus())

        def show(entry: ev.Entry) -> None:
            if isinstance(entry, ev.Event):
                job = journal.job(entry.job)
                click.echo(f"  {job.id}  {job.name}  {shown_verdict(job)}")

        journal.observe(show)
        with (
            hold_root(root.path),
            trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received,
        ):
            async with tending(bench, parallel):
                click.echo(f"serving {root.path} as process {os.getpid()}; TERM ends it")
                await anext(received)
        for row in journal.unfinished():
            click.echo(f"  {row.id}  {row.name}  goes on in its guest")
    return 0
