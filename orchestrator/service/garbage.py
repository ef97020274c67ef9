"""When the service's garbage is collected: a collection of all objects holds up everybody.

Python collects the oldest generation after some growth, at any moment. With 5,000 jobs in the queue
that took 80 ms and more. Jobs leave next to no reference cycles (2 objects a job were found), so
there is no hurry.
"""

from __future__ import annotations

import gc

import trio

from orchestrator.orchestrator import Orchestrator

LOOK_SECS = 60.0
# A service that is never idle collects all the same, so often.
AT_LEAST_SECS = 3600.0
_NEVER = 1_000_000


async def collect_when_idle(orchestrator: Orchestrator) -> None:
    """Collect the oldest generation when no job waits, once a minute at most, until cancelled.

    What the process has at the start is not looked at again. Younger generations are collected as
    ever. The process must be ours alone.
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
