"""`pikaci doctor`: checks what jobs need, and says what to type."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.options import (
    output_option,
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
@output_option
def command(workspace: Path | None, state_root: Path | None, output: str) -> int:
    """Check everything that jobs need here, and say what to type. Changes nothing.

    For a damaged journal, it says what can be saved, and how.

    Exit codes: 0 nothing is missing or damaged, 4 something is.
    """
    import trio

    from orchestrator.attempt.plan import Host
    from orchestrator.cli.output import print_items
    from orchestrator.host.doctor import Row, examine
    from orchestrator.settings import incus_to_look
    from orchestrator.terminal import plain
    from states.outcome import EXIT_CODES, Verdict

    tree = real_workspace(workspace)
    root = state_root_of(tree, state_root)
    mounted = _mounted(tree)
    rows: list[Row] = []

    async def main() -> None:
        async for row in examine(incus, Host(), root, mounted):
            rows.append(row)
            if output != "human":
                continue
            word, colour = _MARKS[row.state]
            mark = click.style(f"{word:8}", fg=colour) if sys.stdout.isatty() else f"{word:8}"
            click.echo(f"{mark} {row.subject:14} {plain(row.found)}")
            for line in row.remedy.splitlines():
                click.echo(f"{'':8} {'':14} -> {plain(line)}")

    with incus_to_look(Host(), root) as incus:
        trio.run(main)
    print_items(output, rows)
    missing = any(row.state in ("missing", "damaged") for row in rows)
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if missing else 0


def _mounted(tree: Path) -> dict[str, str]:
    """The host directories that the containers of the workspace's job file mount, by their keys.

    None for a job file that cannot be read: `pikaci run` says what is wrong with it.
    """
    from orchestrator.cli.workspace import JOB_FILE
    from orchestrator.host_paths import directories
    from orchestrator.jobfile import load
    from states.errors import PikaciError
    from states.spec import InstanceType

    try:
        jobs = load(tree / JOB_FILE).jobs
    except PikaciError:
        return {}
    return {
        f"jobs.{name}.{key}": path
        for name, spec in jobs.items()
        if spec.instance_type is InstanceType.CONTAINER
        for key, path in directories(spec)
    }
