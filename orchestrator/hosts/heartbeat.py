"""Whether a host gives signs of life, while calls run that may be silent for long.

A port may take connections and never answer: behind a proxy whose host hangs, or that lost a
connection without a word. The incus command has no deadline for that: it waits in the TLS
handshake, or for an exec's output, for as long as it may, which for a log is as long as its job.
So the host is asked meanwhile, in one query for all such calls of this process. A call that was
there while the host was silent may hang for ever, even if the host answers others again: unless it
prints, it is cut, and made anew. A log is followed on from where it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import DaemonUnreachable, DeadlinePassed, IncusError, OutcomeUnknown
from orchestrator.incus.watched import watched

ASK_EVERY_SECS = 5.0
ANSWER_SECS = 10.0
# A host that is only busy may miss one question.
MISSES = 3


class Heartbeat:
    """Asks one host for a sign of life. One object for all jobs of a process."""

    def __init__(self, incus: Incus) -> None:
        self._incus = incus
        self._name = incus.host.name
        self._asking = trio.Lock()
        self._asked_at = float("-inf")
        self._missed = 0  # in a row
        self._silences = 0

    @asynccontextmanager
    async def present(self, printed: Callable[[], int]) -> AsyncIterator[None]:
        """Run the block while the host gives signs of life; its call has `printed` so many bytes.

        Raises `DaemonUnreachable` if a silent host still does not answer, without the block; and
        `OutcomeUnknown` if the host is silent during the block, which is cancelled.
        """
        if self._missed:
            await self._ask()
        if self._missed:
            raise DaemonUnreachable(
                f"the host {self._name} does not answer",
                resolution=f"`pikaci host check {self._name}` looks at it",
            )

        async def watch() -> OutcomeUnknown:
            seen, silences = 0, self._silences
            cut = False
            while not cut:
                await trio.sleep(ASK_EVERY_SECS)
                await self._ask()
                if printed() > seen:
                    seen = printed()
                    silences = silences if self._missed else self._silences
                elif self._missed:
                    cut = self._missed >= MISSES
                else:
                    cut = self._silences > silences
            return OutcomeUnknown(f"the host {self._name} was silent for a time")

        async with watched(watch):
            yield

    async def _ask(self) -> None:
        async with self._asking:
            if trio.current_time() - self._asked_at <= ASK_EVERY_SECS / 2:
                return
            try:
                deadline = Deadline(ANSWER_SECS)
                await self._incus.query("/1.0", dict[str, Any], deadline=deadline, in_project=False)
                self._missed = 0
            except (DaemonUnreachable, DeadlinePassed, OutcomeUnknown):
                self._silences += self._missed == 0
                self._missed += 1
            except IncusError:
                self._missed = 0  # it has answered, whatever it says
            self._asked_at = trio.current_time()
