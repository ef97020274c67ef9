"""`pikaci doctor`: says what is missing, and what to type."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "missing": ("MISSING", "red"),
    "damaged": ("DAMAGED", "red"),
}


@click.command("doctor")
@workspace_option
@state_root_option
def command(workspace: Path | None, state_root: Path | None) -> int:
    """Say what is missing for jobs to run here, and what to type. Changes nothing.

    Of a damaged journal it says what can be saved, and how.

    Exit code 0 when nothing is missing or damaged, else 4.
    """
    import trio

    from orchestrator.attempt.plan import Host
    from orchestrator.host.doctor import examine
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from states.outcome import EXIT_CODES, Verdict

    root = state_root_of(real_workspace(workspace), state_root)
    missing = False

    async def main() -> None:
        nonlocal missing
        async for row in examine(open_incus(), Host(), root):
            missing = missing or row.state in ("missing", "damaged")
            word, colour = _MARKS[row.state]
            mark = click.style(f"{word:8}", fg=colour) if sys.stdout.isatty() else f"{word:8}"
            click.echo(f"{mark} {row.subject:14} {plain(row.found)}")
            for line in row.remedy.splitlines():
                click.echo(f"{'':8} {'':14} -> {plain(line)}")

    trio.run(main)
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if missing else 0
