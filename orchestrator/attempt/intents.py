"""What is wanted of jobs, as something that can be raised and waited for."""

from __future__ import annotations

from weakref import WeakSet

import trio

from states.ending import Intent


class IntentSwitch:
    """An `Intent` that only rises. It is never below the one of the switch `above` it.

    So one switch for a process raises the intent of all its jobs.
    """

    def __init__(self, above: IntentSwitch | None = None) -> None:
        self._above = above
        self._own = Intent.RUN
        self._changed = trio.Event()
        self._below: WeakSet[IntentSwitch] = WeakSet()
        if above is not None:
            above._below.add(self)

    @property
    def value(self) -> Intent:
        """What is wanted now."""
        return max(self._own, self._above.value) if self._above else self._own

    def rise(self, to: Intent) -> None:
        """Want this much, if not more already."""
        if to > self._own:
            self._own = to
            self._wake()

    async def reaches(self, intent: Intent, *, within_secs: float) -> bool:
        """True as soon as at least this is wanted; False when `within_secs` have passed before."""
        with trio.move_on_after(max(0.0, within_secs)):
            while self.value < intent:
                await self._changed.wait()
        return self.value >= intent

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for switch in list(self._below):
            switch._wake()
