"""`pikaci trace`: what happened to a job, and when."""

from __future__ import annotations

import shlex
import sys
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
    from states.events import Entry


@click.command("trace")
@click.argument("job", required=False)
@workspace_option
@state_root_option
@click.option("--json", "as_json", is_flag=True, help="Print the trace itself, as JSON lines.")
def command(job: str | None, workspace: Path | None, state_root: Path | None, as_json: bool) -> int:
    """Show every state that a job passed, every incus command, and the time of each.

    JOB is a job's id or name; the newest run's only job when not given.
    """
    from orchestrator.cli.find import existing_journal, find_job
    from states import trace

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        row = find_job(journal, job)
        entries = [entry for _, entry in journal.entries(row.id)]
    if as_json:
        sys.stdout.buffer.write(trace.encode(row.id, entries))
        return 0
    click.echo(f"{row.id} {row.name}, run {row.run}")
    first = entries[0].monotonic
    for entry in entries:
        click.echo(f"{entry.monotonic - first:10.3f} s  {_described(entry)}")
    return 0


def _described(entry: Entry) -> str:
    from orchestrator.terminal import plain
    from states import events as ev

    match entry:
        case ev.Called():
            argv = plain(
                shlex.join(word if len(word) <= 80 else f"{word[:40]}..." for word in entry.argv)
            )
            code = "cut off" if entry.exit_code is None else f"exit {entry.exit_code}"
            return f"    $ {argv}  [{entry.duration_ms:.0f} ms, {code}]"
        case ev.LeaseOpened() | ev.LeaseEnded():
            return f"    {ev.tag(type(entry))} {entry.instance}"
        case ev.LeaseKept():
            return f"    lease_kept {entry.instance} until {entry.deadline.isoformat()}"
        case ev.Warned():
            return f"    warning: {plain(entry.message)}"
        case ev.ResultCollected():
            return f"result_collected: {plain(entry.message)}"
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried():
            first = entry.failure.message.splitlines()[0]
            return f"{ev.tag(type(entry))}: {plain(first)}"
        case _:
            return ev.tag(type(entry))
