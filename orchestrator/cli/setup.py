"""`pikaci setup`: creates what pikaci needs in Incus."""

from __future__ import annotations

import click

from orchestrator.cli.options import output_option


@click.command("setup")
@output_option
def command(output: str) -> int:
    """Create the project, storage pool, profile and guest image that are missing in Incus.

    Needs a daemon: `pikaci doctor` says how to get one.
    """
    from orchestrator.attempt.plan import Host
    from orchestrator.cli.documents import SetupReport
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.cli.output import print_items, say_steps
    from orchestrator.host.setup import setup
    from orchestrator.settings import open_incus

    steps: list[str] = []
    say = say_steps(output)

    def take(step: str) -> None:
        steps.append(step)
        say(step)

    async def main() -> bool:
        return await setup(open_incus(), Host(), say=take)

    report = SetupReport(changed=run_until_signal(main), steps=tuple(steps))
    if not print_items(output, [report], report):
        click.echo("pikaci is set up" if report.changed else "nothing to do: pikaci is set up")
    return 0
