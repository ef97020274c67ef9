"""A job that a test controls."""

from __future__ import annotations

import math

import trio

from orchestrator.fake_incus import GuestScript
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.fake_incus.shell import run_handful
from tests.web.site import Site

COMMAND = "puppet"


class Puppet:
    """The guest script of a site: controls the command `puppet`, and runs others as usual."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes | GuestOutcome](math.inf)

    @property
    def script(self) -> GuestScript:
        """The script, for `open_site`."""

        async def script(command: GuestCommand) -> GuestOutcome:
            if command.text != COMMAND:
                return await run_handful(command)
            async for order in self._receive:
                if isinstance(order, GuestOutcome):
                    return order
                command.print(order)
            raise AssertionError

        return script

    def print(self, site: Site, data: bytes) -> None:
        """Have the job print."""
        site.run(self._send.send, data)

    def end(self, site: Site, code: int = 0, **artifacts: bytes) -> None:
        """Have the job end."""
        site.run(self._send.send, GuestOutcome(code, artifacts))
