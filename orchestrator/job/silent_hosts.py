"""The hosts that did not answer when they were last asked; jobs with a choice leave them out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from orchestrator.image.store import ImageMissing, ImageTooOld, WrongContract, WrongType
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job.queue import LOOK_AGAIN_SECS
from states.errors import PikaciError, SpecError

LEFT_OUT_SECS = 3 * LOOK_AGAIN_SECS
# A login over ssh may take seconds. A job with a choice of hosts waits no longer for a slow one.
ASK_SECS = 10.0
# What a host says that cannot take a job.
CANNOT = (SpecError, ImageMissing, ImageTooOld, WrongContract, WrongType)


class SilentHosts:
    """Remembers hosts, by name, that do not answer. Each is left out for `LEFT_OUT_SECS`."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[float, PikaciError]] = {}

    def fault(self, host: str) -> PikaciError | None:
        """Why the host is left out now; None if it is not."""
        until, fault = self._faults.get(host, (float("-inf"), None))
        return fault if trio.current_time() < until else None

    def is_silent(self, host: str) -> bool:
        """Whether the host did not answer when it was last asked, however long ago that was."""
        return host in self._faults

    @asynccontextmanager
    async def asking(self, host: str) -> AsyncIterator[None]:
        """Ask the host in the block, within `ASK_SECS`; if it does not answer, it is silent.

        Raises what the block raises: a `SpecError`, or one of `CANNOT`, says that it has answered.
        """
        try:
            with trio.move_on_after(ASK_SECS) as scope:
                yield
            if scope.cancelled_caught:
                raise DaemonUnreachable(f"the host {host} did not answer within {ASK_SECS:g} s")
        except CANNOT:
            self._faults.pop(host, None)
            raise
        except PikaciError as fault:
            self._faults[host] = (trio.current_time() + LEFT_OUT_SECS, fault)
            raise
        self._faults.pop(host, None)
