"""Stops a cancelled job in its guest: TERM, a grace period, KILL; then collects what it left."""

from __future__ import annotations

import trio

from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.incus.errors import IncusError, InstanceNotRunning
from states.ending import Intent
from states.errors import PikaciError

# A cancelled job is dead, and its verdict recorded, within 10 s; a slow delete comes later.
HURRY_AFTER_SECS = 5.5
CANCEL_SECS = 7.0
COLLECT_SECS = 2.5


async def end_in_guest(attempt: Attempt, intent: IntentSwitch) -> bool:
    """Have the runner stop the job, and collect what it left; True if it is known to be dead.

    There is no grace period if the intent is, or becomes, to cancel now.
    """
    stopped = False
    with trio.move_on_after(CANCEL_SECS):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_grace, attempt, intent)
                await attempt.cancel(now=intent.value >= Intent.CANCEL_NOW)
                stopped = True
                nursery.cancel_scope.cancel()
        except* InstanceNotRunning:
            stopped = True
        except* IncusError:
            pass
    if stopped:
        with trio.move_on_after(COLLECT_SECS):
            try:
                await attempt.evidence.collect(None)
            except PikaciError:
                pass  # the log streamed so far is on the host
    return stopped


async def _end_grace(attempt: Attempt, intent: IntentSwitch) -> None:
    """End the grace period on request, or when it is longer than a cancellation may take."""
    await intent.reaches(Intent.CANCEL_NOW, within_secs=HURRY_AFTER_SECS)
    await attempt.cancel(now=True)
