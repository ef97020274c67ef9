"""`pikaci host`: the user's hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.complete import names_of_hosts
from orchestrator.cli.options import output_option

if TYPE_CHECKING:
    from orchestrator.incus import Host


@click.group("host")
def command() -> None:
    """Add, list, check and remove hosts that run guests."""


@command.command("list")
@output_option
def list_(output: str) -> int:
    """List the hosts: name, and how each is reached."""
    from orchestrator.cli.host_document import HostDocument
    from orchestrator.cli.output import print_items
    from orchestrator.hosts import load_hosts
    from orchestrator.incus import LOCAL

    found = [HostDocument(name=LOCAL, reached="this machine")]
    found += [HostDocument.of(name, settings) for name, settings in load_hosts().items()]
    if not print_items(output, found):
        for one in found:
            click.echo(f"{one.name:16} {one.reached}")
    return 0


@command.command("add")
@click.argument("name")
@click.option("--ssh", metavar="[USER@]HOST", help="Reach it by ssh, with this login.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="The port of its sshd.")
@click.option("--identity", type=click.Path(path_type=Path), help="The private key for ssh.")
@click.option(
    "--socket",
    metavar="PATH",
    help="Incus's socket there. Default: /var/lib/incus/unix.socket.",
)
@click.option(
    "--directory",
    metavar="PATH",
    help="pikaci's directory there. Default: ~/.local/state/pikaci.",
)
@click.option("--remote", metavar="REMOTE", help="Reach it over TLS, as this Incus remote.")
@click.option(
    "--token-file",
    type=click.File(),
    help="With --remote: a file with a token that the host made, or - for stdin.",
)
@click.option("--address", metavar="HOST:PORT", help="With --token-file: the host's address.")
@click.option("--project", metavar="NAME", help="The Incus project. Default: pikaci.")
@click.option("--pool", metavar="NAME", help="The storage pool. Default: pikaci.")
@click.option("--jobs", type=click.IntRange(1, 1000), metavar="N", help="Run N jobs at once there.")
@click.option("--target", metavar="MEMBER", help="In a cluster: the member or @group for guests.")
@output_option
def add(name: str, token_file: Any, address: str | None, output: str, **keys: Any) -> int:
    """Add a host, and check it. Nothing there is changed, except that a token is used up.

    \b
    pikaci host add build --ssh me@build.example.org
    pikaci host add build --remote build --token-file token

    Exit codes: 0 jobs can run there, 4 something is missing.
    """
    from orchestrator.errors import UsageError
    from orchestrator.hosts.edit import add_host
    from orchestrator.hosts.settings import hosts_file

    if token_file is not None and keys["remote"] is None:
        raise UsageError("--token-file needs --remote", resolution="add --remote REMOTE")
    if keys["identity"] is not None:
        keys["identity"] = str(keys["identity"].absolute())
    token = None
    if token_file is not None:
        from orchestrator.hosts.trust import MAX_TOKEN_BYTES, read_token

        token = read_token(token_file.read(MAX_TOKEN_BYTES))
    given = {key: value for key, value in keys.items() if value is not None}
    path = hosts_file()
    undo = add_host(path, name, given)
    if token is not None:
        try:
            _trust(name, token, address or "", output)
        except BaseException:
            undo()
            raise
    click.echo(f"added {name} to {path}", err=output != "human")
    return _check(name, output)


@command.command("check")
@click.argument("name", shell_complete=names_of_hosts)
@output_option
def check(name: str, output: str) -> int:
    """Check the connection to a host, and what jobs need there. Changes nothing.

    Exit codes: 0 nothing is missing, 4 something is.
    """
    return _check(name, output)


@command.command("remove")
@click.argument("name", shell_complete=names_of_hosts)
@output_option
def remove(name: str, output: str) -> int:
    """Remove a host from the settings. Nothing on the host is changed.

    Jobs that still run there can be resumed only after the host is added again. For a host over
    TLS, the Incus remote and the host's certificate are deleted here, but the host still trusts
    pikaci's key.
    """
    from orchestrator.cli.host_document import HostDocument
    from orchestrator.cli.output import print_items
    from orchestrator.hosts.edit import remove_host
    from orchestrator.hosts.settings import hosts_file, load_hosts

    path = hosts_file()
    settings = remove_host(path, name)
    removed = HostDocument.of(name, settings)
    remotes = [other.remote for other in load_hosts(path).values()]
    if settings.remote is not None and settings.remote not in remotes:
        _forget(settings.host(name))
    if not print_items(output, [removed], removed):
        click.echo(f"removed {name} from {path}")
    return 0


def _trust(name: str, token: Any, address: str, output: str) -> None:
    import trio

    from orchestrator.cli.output import say_steps
    from orchestrator.hosts import open_hosts
    from orchestrator.hosts.trust import add_remote
    from orchestrator.settings import open_incus

    async def main() -> None:
        async with open_hosts(open_incus()) as hosts:
            incus = hosts.at(name).incus
            await add_remote(incus, token, address=address, say=say_steps(output))

    trio.run(main)


def _forget(host: Host) -> None:
    """Forget the remote of a host that is in the settings no more."""
    import trio

    from orchestrator.hosts.trust import remotes_conf, remove_remote
    from orchestrator.incus.errors import RemoteMissing
    from orchestrator.settings import open_incus

    try:
        trio.run(remove_remote, open_incus().of(host, conf=remotes_conf()))
    except RemoteMissing:
        pass  # it was never added, or by another user


def _check(name: str, output: str) -> int:
    import trio

    from orchestrator.cli.output import print_items
    from orchestrator.cli.rows import print_row
    from orchestrator.host.far import examine_far
    from orchestrator.host.row import Row
    from orchestrator.hosts import open_hosts
    from orchestrator.settings import open_incus
    from states.outcome import EXIT_CODES, Verdict

    rows: list[Row] = []

    async def main() -> None:
        async with open_hosts(open_incus()) as hosts:
            async for row in examine_far(hosts.at(name)):
                rows.append(row)
                if output == "human":
                    print_row(row)

    trio.run(main)
    print_items(output, rows)
    missing = any(row.state == "missing" for row in rows)
    return EXIT_CODES[Verdict.INFRASTRUCTURE] if missing else 0
