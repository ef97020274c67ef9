"""Images of your own: one of our kinds with more packages, changed by shell lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.errors import UsageError
from orchestrator.image.layer import BARE, SYSTEMD, Kind
from orchestrator.image.machine import VM
from orchestrator.image.nixos import ALIASES
from orchestrator.terminal import plain
from states.spec import is_image_name

# As Debian's policy has it. No comma, which would be two names, and no version or release.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_OURS = (BARE.alias, SYSTEMD.alias, VM.alias, *ALIASES.values())


def check_alias(alias: str) -> None:
    """Raise `UsageError` if this is no name for an image."""
    if not is_image_name(alias):
        raise UsageError(
            f"--alias {plain(alias)!r} is not a valid image alias",
            resolution="letters, digits and ._/+-, beginning with a letter or digit",
        )


def check_own_alias(alias: str) -> None:
    """Raise `UsageError` if this is no name for an image of your own."""
    check_alias(alias)
    if alias in _OURS:
        raise UsageError(
            f"--alias {alias} is the name of an image that pikaci builds by itself",
            resolution="another name, for example my/image",
        )


def custom_kind(kind: Kind, alias: str, packages: Sequence[str], lines: Sequence[str]) -> Kind:
    """The kind with these packages, in which these shell lines were run. `alias` must be checked.

    Raises `UsageError` for what is no name of a package, or no line.
    """
    for name in packages:
        if not _PACKAGE.fullmatch(name):
            raise UsageError(
                f"--package {plain(name)!r} is not a Debian package's name",
                resolution="one name, such as libssl-dev; give the option once for each",
            )
    for line in lines:
        if not line.strip() or not line.isprintable():
            raise UsageError(
                f"--run {plain(line)!r} is not a shell line",
                resolution="one line of printable text; give the option once for each",
            )
    return replace(
        kind,
        alias=alias,
        packages=(*kind.packages, *packages),
        lines=(*kind.lines, *lines),
    )
