"""`pikaci image`: build, import, list and check guest images."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from orchestrator.cli.group import Group
from orchestrator.cli.options import output_option
from orchestrator.cli.usage import OneOf


@click.group("image", cls=Group)
def command() -> None:
    """Build, import, list and check guest images.

    An alias moves to a new image at once, and the image that had it is deleted when it has no
    other name. One that a killed pikaci left without a name is shown by `list`;
    `incus image delete --project pikaci FINGERPRINT` deletes it.
    """


@command.command("build")
@click.option("--systemd", is_flag=True, help="A Debian guest with systemd, as pikaci/systemd.")
@click.option(
    "--nixos",
    type=OneOf(["vm", "container"]),
    help="A NixOS guest, built by nix, as pikaci/nixos-vm or pikaci/nixos.",
)
@click.option(
    "--flake",
    metavar="FLAKE",
    help="With --nixos: the flake to build, instead of this source tree's.",
)
def build(systemd: bool, nixos: str | None, flake: str | None) -> int:
    """Build a guest image, and put it in the place of the one before.

    By default the Debian guest without an init system, as pikaci/dev.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.errors import UsageError
    from orchestrator.host.setup import build_and_import
    from orchestrator.image.build import only_builder
    from orchestrator.image.layer import BARE, SYSTEMD
    from orchestrator.image.nixos import ALIASES, build_nixos
    from orchestrator.image.store import import_image
    from orchestrator.settings import open_incus

    if systemd and nixos:
        raise UsageError("--systemd and --nixos are two images", resolution="name one of them")
    if flake and not nixos:
        raise UsageError("--flake is for --nixos alone", resolution="leave it out")

    async def main() -> tuple[str, str]:
        incus = open_incus()
        if not nixos:
            kind = SYSTEMD if systemd else BARE
            return kind.alias, await build_and_import(incus, say=click.echo, kind=kind)
        async with only_builder(say=click.echo):
            files = await build_nixos(nixos, flake, say=click.echo)
            click.echo(f"importing it as {ALIASES[nixos]}")
            return ALIASES[nixos], await import_image(incus, files, ALIASES[nixos])

    alias, fingerprint = run_until_signal(main)
    click.echo(f"{alias} is {fingerprint[:12]}")
    return 0


@command.command("import")
@click.argument("files", nargs=-1, metavar="FILE [DISK]", type=click.Path(path_type=Path))
@click.option("--alias", required=True, help="The name that jobs know it by, as in `image`.")
def import_(files: tuple[Path, ...], alias: str) -> int:
    """Import a guest image: one file, or its metadata and its root disk.

    Its metadata must say which guest contract it keeps (the property pikaci.contract). The alias
    moves to it at once.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.errors import UsageError
    from orchestrator.image.build import only_builder
    from orchestrator.image.store import import_image
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain
    from states.spec import is_image_name

    if not 1 <= len(files) <= 2:
        raise UsageError(
            f"{len(files)} files are no image",
            resolution="name one file, or metadata and root disk",
        )
    if not is_image_name(alias):
        raise UsageError(
            f"--alias {plain(alias)!r} is no name for an image",
            resolution="letters, digits and ._/+-, beginning with a letter or digit",
        )
    for file in files:
        if problem := _problem(file):
            raise UsageError(
                f"{plain(str(file))} {problem}", resolution="name the file of an image"
            )

    async def main() -> str:
        async with only_builder(say=click.echo):
            return await import_image(open_incus(), files, alias)

    click.echo(f"{alias} is {run_until_signal(main)[:12]}")
    return 0


def _problem(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait for ever
            return "is no file"
        file.open("rb").close()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "is no name of a file"
    return ""


@command.command("list")
@output_option
def list_(output: str) -> int:
    """List the images of the project: alias, fingerprint, type, contract, size, age."""
    import trio

    from orchestrator.cli.output import print_json
    from orchestrator.image.listing import rows, table
    from orchestrator.image.store import list_images
    from orchestrator.settings import open_incus

    found = rows(trio.run(list_images, open_incus()))
    if output == "json":
        print_json(found, indent=True)
    elif output == "jsonl":
        for row in found:
            print_json(row)
    else:
        click.echo(table(found))
    return 0


@command.command("check")
@click.argument("alias")
def check(alias: str) -> int:
    """Start a guest of the image, and say row by row whether it keeps the guest contract.

    Exit code 0 when it does, 1 when a row is broken.
    """
    from orchestrator.attempt.plan import Host
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.image.check import Row, check_image
    from orchestrator.settings import open_incus
    from orchestrator.terminal import plain

    broken = 0

    def tell(row: Row) -> None:
        nonlocal broken
        broken += not row.kept
        mark = "ok    " if row.kept else "BROKEN"
        if sys.stdout.isatty():
            mark = click.style(mark, fg="green" if row.kept else "red")
        click.echo(f"{mark} {row.subject}" + ("" if row.kept else f": {plain(row.found)}"))

    async def main() -> None:
        await check_image(open_incus(), Host(), alias, tell=tell)

    run_until_signal(main)
    click.echo(f"{alias} keeps the contract" if not broken else f"{alias}: {broken} rows broken")
    return 1 if broken else 0
