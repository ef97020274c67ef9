"""`pikaci image`: build, import, list and check guest images."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from orchestrator.cli.group import Group
from orchestrator.cli.options import host_option, output_option
from orchestrator.cli.usage import OneOf


@click.group("image", cls=Group)
def command() -> None:
    """Build, import, list and check guest images.

    A new image takes over its alias at once. The image that had the alias is deleted if it has no
    other. `list` also shows images without an alias, which a killed pikaci can leave;
    `incus image delete --project pikaci FINGERPRINT` deletes one.

    With --host, these commands are about the images of that host. They are built here and sent
    there.
    """


@command.command("build")
@click.option("--systemd", is_flag=True, help="Build a Debian guest with systemd: pikaci/systemd.")
@click.option("--vm", is_flag=True, help="Build a Debian guest as a virtual machine: pikaci/vm.")
@click.option(
    "--nixos",
    type=OneOf(["vm", "container"]),
    help="Build a NixOS guest with nix: pikaci/nixos-vm or pikaci/nixos.",
)
@click.option(
    "--flake",
    metavar="FLAKE",
    help="With --nixos: the flake to build. Default: the one of pikaci's source tree.",
)
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="NAME",
    help="Also install this Debian package. Needs --alias. Repeatable.",
)
@click.option(
    "--run",
    "lines",
    multiple=True,
    metavar="LINE",
    help="Run this shell line as root in the new file system, on this machine, once the packages"
    " are installed. Needs --alias. Repeatable.",
)
@click.option("--alias", metavar="NAME", help="The image's name in job files.")
@host_option
@output_option
def build(
    systemd: bool,
    vm: bool,
    nixos: str | None,
    flake: str | None,
    packages: tuple[str, ...],
    lines: tuple[str, ...],
    alias: str | None,
    host: str,
    output: str,
) -> int:
    """Build a guest image and replace the previous one.

    Default: pikaci/dev, the Debian guest without an init system. --package and --run build an image
    of your own, with the name --alias, on top of pikaci/dev; with --systemd, on top of
    pikaci/systemd; with --vm, on top of pikaci/vm.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.cli.output import say_steps
    from orchestrator.errors import UsageError
    from orchestrator.host.setup import build_and_import
    from orchestrator.hosts import open_hosts
    from orchestrator.image.build import only_builder
    from orchestrator.image.custom import check_own_alias, custom_kind
    from orchestrator.image.layer import BARE, SYSTEMD
    from orchestrator.image.machine import VM
    from orchestrator.image.nixos import ALIASES, build_nixos
    from orchestrator.image.store import import_image
    from orchestrator.settings import open_incus

    if sum(map(bool, (systemd, vm, nixos))) > 1:
        raise UsageError(
            "--systemd, --vm and --nixos are different images", resolution="use one of them"
        )
    if flake and not nixos:
        raise UsageError("--flake needs --nixos", resolution="remove --flake")
    if nixos and (packages or lines):
        raise UsageError(
            "--package and --run are for Debian guests",
            resolution="use a flake of your own: docs/nixos.md",
        )
    if (packages or lines) and alias is None:
        raise UsageError(
            "--package and --run need --alias", resolution="add one, for example --alias my/image"
        )
    kind = SYSTEMD if systemd else VM if vm else BARE
    if alias is not None:
        check_own_alias(alias)
        kind = custom_kind(kind, alias, packages, lines)
    name = alias or (ALIASES[nixos] if nixos else kind.alias)
    say = say_steps(output)

    async def main() -> str:
        async with open_hosts(open_incus()) as hosts:
            incus = hosts.at(host).incus
            if not nixos:
                return await build_and_import(incus, say=say, kind=kind)
            async with only_builder(say=say):
                files = await build_nixos(nixos, flake, say=say)
                say(f"importing it as {name}")
                return await import_image(incus, files, name)

    _print_image(name, run_until_signal(main), output)
    return 0


@command.command("import")
@click.argument("files", nargs=-1, metavar="FILE [DISK]", type=click.Path(path_type=Path))
@click.option("--alias", required=True, metavar="NAME", help="The image's name in job files.")
@host_option
@output_option
def import_(files: tuple[Path, ...], alias: str, host: str, output: str) -> int:
    """Import a guest image: one file, or metadata and root disk.

    The metadata must give the version of the guest contract in the property pikaci.contract. The
    image takes over the alias at once.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.cli.output import say_steps
    from orchestrator.errors import UsageError
    from orchestrator.hosts import open_hosts
    from orchestrator.image.build import only_builder
    from orchestrator.image.custom import check_alias
    from orchestrator.image.store import import_image
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain

    if not 1 <= len(files) <= 2:
        raise UsageError(
            f"an image is one file or two, not {len(files)}",
            resolution="name one file, or metadata and root disk",
        )
    check_alias(alias)
    for file in files:
        if problem := _problem(file):
            raise UsageError(f"{plain(str(file))} {problem}", resolution="name an image file")

    async def main() -> str:
        async with open_hosts(open_incus()) as hosts, only_builder(say=say_steps(output)):
            return await import_image(hosts.at(host).incus, files, alias)

    _print_image(alias, run_until_signal(main), output)
    return 0


def _print_image(alias: str, fingerprint: str, output: str) -> None:
    from orchestrator.cli.documents import ImageReport
    from orchestrator.cli.output import print_items

    if not print_items(output, [ImageReport(alias=alias, fingerprint=fingerprint)]):
        click.echo(f"{alias} is {fingerprint[:12]}")


def _problem(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait for ever
            return "is not a file"
        file.open("rb").close()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "is not a valid file name"
    return ""


@command.command("list")
@host_option
@output_option
def list_(host: str, output: str) -> int:
    """List the images of the project: alias, fingerprint, type, contract, size, age."""
    import trio

    from orchestrator.cli.output import print_items
    from orchestrator.hosts import open_hosts
    from orchestrator.image.listing import rows, table
    from orchestrator.image.store import Image, list_images
    from orchestrator.settings import open_incus

    async def main() -> list[Image]:
        async with open_hosts(open_incus()) as hosts:
            return await list_images(hosts.at(host).incus)

    found = rows(trio.run(main))
    if not print_items(output, found):
        click.echo(table(found))
    return 0


@command.command("check")
@click.argument("alias")
@click.option(
    "--slow",
    type=click.IntRange(1, 100),
    default=1,
    metavar="N",
    help="On a slow host: allow N times as long for everything, including a VM's boot.",
)
@host_option
@output_option
def check(alias: str, slow: int, host: str, output: str) -> int:
    """Start a guest from the image, and check each promise of the guest contract.

    Exit codes: 0 the image keeps the contract, 1 it does not. A row marked `older` is a promise of
    a later minor version than the image claims.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.cli.output import print_items
    from orchestrator.hosts import open_hosts
    from orchestrator.image.check import Row, check_image
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from orchestrator.units import counted

    rows: list[Row] = []

    def tell(row: Row) -> None:
        rows.append(row)
        if output != "human":
            return
        mark, colour = ("ok    ", "green") if row.kept else ("older ", "yellow")
        if row.broken:
            mark, colour = "BROKEN", "red"
        if sys.stdout.isatty():
            mark = click.style(mark, fg=colour)
        click.echo(f"{mark} {row.subject}" + ("" if row.kept else f": {plain(row.found)}"))

    async def main() -> None:
        async with open_hosts(open_incus()) as hosts:
            at = hosts.at(host)
            await check_image(at.incus, at.host, alias, tell=tell, slow=slow, trees=at.trees)

    run_until_signal(main)
    broken = sum(row.broken for row in rows)
    kept = "the contract" if all(row.kept for row in rows) else "an older version of the contract"
    if not print_items(output, rows):
        click.echo(
            f"{alias} breaks {counted(broken, 'promise')}" if broken else f"{alias} keeps {kept}"
        )
    return 1 if broken else 0
