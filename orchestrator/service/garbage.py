"""Chooses when Python collects garbage: a full collection blocks the whole service.

Python collects the oldest generation when enough objects were made, at any moment. With 5,000
queued jobs that took 80 ms and more. Jobs leave hardly any reference cycles (2 objects per job were
measured), so a collection can wait.
"""

from __future__ import annotations

import gc

import trio

from orchestrator.orchestrator import Orchestrator

LOOK_SECS = 60.0
# A service that is never idle collects at this interval.
AT_LEAST_SECS = 3600.0
_NEVER = 1_000_000


async def collect_when_idle(orchestrator: Orchestrator) -> None:
    """Collect the oldest generation when no job is queued, at most once a minute; never returns.

    Objects that exist at the start are never examined again. Younger generations are collected as
    usual. This changes settings of the whole process; a cancellation restores them.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(before[0], before[1], _NEVER)
    last = trio.current_time()
    try:
        while True:
            await trio.sleep(LOOK_SECS)
            if not orchestrator.queue.queued or trio.current_time() - last >= AT_LEAST_SECS:
                gc.collect()
                last = trio.current_time()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
