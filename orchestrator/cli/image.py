"""`pikaci image`: build, list and check guest images."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click


@click.group("image")
def command() -> None:
    """Build, list and check guest images."""


@command.command("build")
def build() -> int:
    """Build the Debian guest image, and put it in the place of pikaci/dev."""
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.settings import open_incus
    from orchestrator.setup import DEV_IMAGE, build_and_import

    async def main() -> str:
        return await build_and_import(open_incus(), say=click.echo)

    click.echo(f"{DEV_IMAGE} is {run_until_signal(main)[:12]}")
    return 0


@command.command("list")
def list_() -> int:
    """List the images of the project: alias, fingerprint, contract, size, age."""
    import trio

    from orchestrator.image.store import list_images
    from orchestrator.settings import open_incus

    images = trio.run(list_images, open_incus())
    if not images:
        click.echo("there are no images; `pikaci image build` makes one")
    for image in sorted(images, key=lambda image: image.uploaded_at, reverse=True):
        names = ", ".join(alias.name for alias in image.aliases) or "-"
        age = datetime.now(UTC) - image.uploaded_at
        click.echo(
            f"{names:24} {image.fingerprint[:12]}  contract {image.contract or '-':3}"
            f" {image.type:16} {image.size >> 20:6} MiB  {age.days} d {age.seconds // 3600} h"
        )
    return 0


@command.command("check")
@click.argument("alias")
def check(alias: str) -> int:
    """Start a guest of the image, and say row by row whether it keeps the guest contract.

    Exit code 0 when it does, 1 when a row is broken.
    """
    from orchestrator.cli.interrupt import run_until_signal
    from orchestrator.image.check import Row, check_image
    from orchestrator.plan import Host
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
