"""`pikaci setup`: makes what pikaci needs inside Incus."""

from __future__ import annotations

import click


@click.command("setup")
def command() -> int:
    """Make project, storage pool, profile and guest image in the Incus that answers.

    What is there already is left as it is. Needs a daemon: `pikaci doctor` says how to get one.
    """
    from orchestrator.attempt.plan import Host
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.host.setup import setup
    from orchestrator.settings import open_incus

    async def main() -> bool:
        return await setup(open_incus(), Host(), say=click.echo)

    changed = run_until_signal(main)
    click.echo("pikaci is set up" if changed else "nothing to set up: all is there")
    return 0
