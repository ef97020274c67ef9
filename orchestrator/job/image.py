"""Looks up the image of a job."""

from __future__ import annotations

import trio

from orchestrator.attempt import effects as commands
from orchestrator.image.store import Images
from orchestrator.incus.retries import limit, retrying
from orchestrator.job.record import Record
from states import events as ev
from states.events import ImageRef
from states.spec import JobSpec


async def job_image(images: Images, record: Record, spec: JobSpec) -> ImageRef:
    """The image of a spec without references, within `image_secs`; waits for a daemon that is down.

    Raises what `Images.find` raises. The wait is noted in the trace.
    """
    name = spec.image
    assert isinstance(name, str)

    async def find() -> ImageRef:
        since = trio.current_time()
        try:
            with limit("looking up the image", spec.deadlines.image_secs, setting="image_secs"):
                return await images.find(name, spec.instance_type)
        finally:
            record.waited(ev.WaitFor.IMAGE, since)
        raise AssertionError("unreachable")

    return await retrying(find, on=commands.AWAY_OR_UNKNOWN, secs=spec.deadlines.daemon_secs)
