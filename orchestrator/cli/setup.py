"""`pikaci setup`: creates what pikaci needs in Incus."""

from __future__ import annotations

import sys

import click

from orchestrator.cli.options import host_option, output_option


@click.command("setup")
@click.option("--no-image", is_flag=True, help="Do not create the container image, pikaci/dev.")
@click.option("--vm", is_flag=True, help="Also create the image for virtual machines, pikaci/vm.")
@click.option(
    "--fast-stop",
    is_flag=True,
    help="Also shorten lxcfs's hook for pikaci's guests on this machine: they stop 0.5 s sooner.",
)
@host_option
@click.option("-y", "--yes", is_flag=True, help="With --host: do not ask first.")
@output_option
def command(no_image: bool, vm: bool, fast_stop: bool, host: str, yes: bool, output: str) -> int:
    """Create the project, storage pool, profile and guest image that are missing in Incus.

    It needs an Incus daemon: `pikaci doctor` shows how to get one. On another host, it first shows
    what it would create, and asks.
    """
    import trio

    from orchestrator.cli.documents import SetupReport
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.cli.output import print_items, say_steps
    from orchestrator.errors import UsageError
    from orchestrator.host.lxcfs import install_hook
    from orchestrator.host.setup import missing, setup
    from orchestrator.hosts import find_host, open_hosts
    from orchestrator.image.layer import BARE
    from orchestrator.image.machine import VM
    from orchestrator.settings import open_incus

    if not find_host(host).is_local and fast_stop:
        raise UsageError(
            "--fast-stop is for this machine only",
            resolution=f"run `pikaci setup --fast-stop` on the host {host} itself",
        )
    steps: list[str] = []
    say = say_steps(output)
    kinds = (*(() if no_image else (BARE,)), *((VM,) if vm else ()))

    def take(step: str) -> None:
        steps.append(step)
        say(step)

    async def main() -> bool:
        async with open_hosts(open_incus()) as hosts:
            there = hosts.at(host)
            if not there.host.is_local and not yes:
                lacks = await missing(there.incus, there.host, kinds)
                if not lacks:
                    return False
                await trio.to_thread.run_sync(_ask, host, lacks)
            hooked = fast_stop and await trio.to_thread.run_sync(install_hook)
            if hooked:
                take("installed a shorter lxcfs hook for pikaci's guests")
            return await setup(there.incus, there.host, say=take, kinds=kinds) or hooked

    report = SetupReport(changed=run_until_signal(main), steps=tuple(steps))
    if not print_items(output, [report], report):
        click.echo("pikaci is set up" if report.changed else "nothing to do: pikaci is set up")
    return 0


def _ask(host: str, lacks: list[str]) -> None:
    """Raise `UsageError` unless a person says yes."""
    from orchestrator.errors import UsageError

    lines = "\n".join(f"  {one}" for one in lacks)
    if not sys.stdin.isatty():
        raise UsageError(
            f"setup asks before it creates anything on the host {host}, and stdin is no terminal",
            details=lines,
            resolution=f"`pikaci setup --host {host} --yes` creates these",
        )
    click.echo(f"setup would create on the host {host}:\n{lines}", err=True)
    if not click.confirm("create it?", err=True):
        raise UsageError("nothing was created", resolution="with --yes, setup does not ask")
