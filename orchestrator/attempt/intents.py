"""Intents for jobs, which can be raised and waited for."""

from __future__ import annotations

from weakref import WeakSet

import trio

from states.ending import Intent


class IntentSwitch:
    """An `Intent` that only rises, and is never below that of the switch `above` it.

    So one switch per process can raise the intent of all its jobs.
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
        """The intent now."""
        return max(self._own, self._above.value) if self._above else self._own

    def rise(self, to: Intent) -> None:
        """Raise the intent to at least `to`."""
        if to > self._own:
            self._own = to
            self._wake()

    async def reaches(self, intent: Intent, *, within_secs: float) -> bool:
        """Wait until the intent is at least this; False if that takes longer than `within_secs`."""
        with trio.move_on_after(max(0.0, within_secs)):
            while self.value < intent:
                await self._changed.wait()
        return self.value >= intent

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        for switch in list(self._below):
            switch._wake()
