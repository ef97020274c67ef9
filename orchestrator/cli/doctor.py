"""`pikaci doctor`: checks what jobs need, and says what to type."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    host_option,
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)


@click.command("doctor")
@workspace_option
@state_root_option
@host_option
@output_option
def command(workspace: Path | None, state_root: Path | None, host: str, output: str) -> int:
    """Check everything that jobs need here and on the host, and show how to fix what is missing.

    Nothing is changed. If the journal is damaged, doctor shows what can be saved, and how.

    Exit codes: 0 nothing is missing or damaged, 4 something is.
    """
    import trio

    from orchestrator.cli.output import print_items
    from orchestrator.cli.rows import print_row
    from orchestrator.host.doctor import examine
    from orchestrator.host.far import examine_from_here
    from orchestrator.host.row import Row
    from orchestrator.hosts import find_host, open_hosts
    from orchestrator.incus import Host
    from orchestrator.settings import incus_to_look
    from states.outcome import EXIT_CODES, Verdict

    tree = real_workspace(workspace)
    root = state_root_of(tree, state_root)
    find_host(host)
    mounted, machines = _wants(tree)
    rows: list[Row] = []

    async def main() -> None:
        async with open_hosts(incus) as hosts:
            there = hosts.at(host)
            every = (
                examine(incus, there.host, root, mounted, machines=machines)
                if there.host.is_local
                else examine_from_here(there, root, machines=machines)
            )
            async for row in every:
                rows.append(row)
                if output == "human":
                    print_row(row)

    with incus_to_look(Host(), root) as incus:
        trio.run(main)
    print_items(output, rows)
    missing = any(row.state in ("missing", "damaged") for row in rows)
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if missing else 0


def _wants(tree: Path) -> tuple[dict[str, str], bool]:
    """What the workspace's jobs want of this machine.

    The host directories that containers mount, by their keys in the job file, and whether a job
    runs in a virtual machine. Nothing for a job file that cannot be read: `pikaci run` says what is
    wrong with it.
    """
    from orchestrator.cli.workspace import JOB_FILE
    from orchestrator.host_paths import directories
    from orchestrator.jobfile import load
    from states.errors import PikaciError
    from states.spec import InstanceType

    try:
        jobs = load(tree / JOB_FILE).jobs
    except PikaciError:
        return {}, False
    machine = InstanceType.VIRTUAL_MACHINE
    mounted = {
        f"jobs.{name}.{key}": path
        for name, spec in jobs.items()
        if spec.instance_type is not machine
        for key, path in directories(spec)
    }
    return mounted, any(spec.instance_type is machine for spec in jobs.values())
