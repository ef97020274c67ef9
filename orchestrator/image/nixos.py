"""Builds the NixOS guest image with `nix`: metadata and root disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.image.debian import without_credentials
from orchestrator.incus.retries import stop_family
from states.errors import PikaciError

BUILD_SECS = 2 * 3600  # a first build fetches or compiles all of a NixOS
KINDS = ("vm", "container")
ALIASES = {"vm": "pikaci/nixos-vm", "container": "pikaci/nixos"}


class NoNix(PikaciError):
    """This machine has no `nix` command, or there is no flake to build."""


async def build_nixos(
    kind: str, flake: str | None, *, say: Callable[[str], None], secs: float = BUILD_SECS
) -> list[Path]:
    """Build the flake's image of this kind: metadata and root disk, in the Nix store.

    `kind` is one of `KINDS`; `flake` defaults to this project's own. Raises `NoNix`, or
    `PikaciError` with the end of nix's output.
    """
    if shutil.which("nix") is None:
        raise NoNix(
            "the command nix is not installed; it builds the NixOS image",
            resolution="install Nix; or build the image elsewhere, then run:"
            " `pikaci image import METADATA DISK --alias NAME`",
        )
    flake = flake or _own_flake()
    say(f"building the NixOS image from {flake} (the first build takes long)")
    command = [
        "nix", "build", "--no-link", "--print-out-paths",
        "--extra-experimental-features", "nix-command flakes",
        f"{flake}#incus-{kind}-metadata", f"{flake}#incus-{kind}-image",
    ]  # fmt: skip
    try:
        with trio.fail_after(secs):
            done = await trio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
                deliver_cancel=stop_family,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
    except trio.TooSlowError:
        raise PikaciError(f"nix did not end within {secs:g} s") from None
    if done.returncode != 0:
        raise PikaciError(
            "nix could not build the image",
            details=without_credentials(done.stderr.decode("utf-8", "replace"))[-3000:],
            resolution="`nix build` of the same flake says more; it takes nix 2.10 or newer",
        )
    # In the order of the arguments.
    paths = [Path(line) for line in done.stdout.decode().splitlines()]
    if len(paths) != 2:
        raise PikaciError(f"nix built {len(paths)} outputs instead of metadata and disk")
    return [_the_file(path) for path in paths]


def _own_flake() -> str:
    """This project's flake: the source tree that contains this package."""
    tree = Path(__file__).resolve().parents[2]
    if not (tree / "flake.nix").is_file():
        raise NoNix(
            "this pikaci is installed without its flake, so there is nothing to build",
            resolution="name it: `--flake DIRECTORY`, a checkout of pikaci, or a flake's address",
        )
    return str(tree)


def _the_file(output: Path) -> Path:
    """An output, or the one file in it, not counting nix-support."""
    found = [output]
    if output.is_dir():
        found = [path for path in sorted(output.rglob("*")) if path.is_file()]
        found = [path for path in found if "nix-support" not in path.parts]
    if len(found) != 1 or not found[0].is_file():
        raise PikaciError(
            f"{output} has {len(found)} files, but an image has one there",
            resolution="is the flake pikaci's?",
        )
    return found[0]
