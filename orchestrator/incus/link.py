"""The way to a host, below the incus command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Link(Protocol):
    """What has to be there before the incus command can reach a host's daemon.

    Only `Incus` uses it, before each try of a command. A way that breaks while a command runs needs
    no word from the link: the command ends as it does when the daemon is killed.
    """

    async def up(self) -> None:
        """Return when the way is there; another call of it may still find it broken.

        Its wait is bounded, and not part of the command's deadline. Raises `DaemonUnreachable` if
        another try may help, and another `IncusError` if not. A cancellation leaves nothing behind.
        """
        ...

    def environment(self) -> Mapping[str, str]:
        """Variables for the incus command, besides ours. Valid after `up`."""
        ...
