"""Looks up the image of a job."""

from __future__ import annotations

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.image.store import ImageMissing, Images
from orchestrator.incus.retries import limit, retrying
from orchestrator.job.record import Record
from states import events as ev
from states.events import ImageRef
from states.spec import JobSpec, OutputOf


async def job_image(images: Images, record: Record, spec: JobSpec) -> ImageRef:
    """The image of a spec without references, within `image_secs`; waits for a daemon that is down.

    An image that is another job's output has no alias; people know it by the job. Raises what
    `Images.find` raises. The wait is noted in the trace.
    """
    name = spec.image
    assert isinstance(name, str)
    asked = record.job.spec.image if record.job.spec else name

    async def find() -> ImageRef:
        since = trio.current_time()
        try:
            with limit("looking up the image", spec.deadlines.image_secs, setting="image_secs"):
                return await images.find(name, spec.instance_type)
        finally:
            record.waited(ev.WaitFor.IMAGE, since)
        raise AssertionError("unreachable")

    try:
        image = await retrying(find, on=commands.AWAY_OR_UNKNOWN, secs=spec.deadlines.daemon_secs)
    except ImageMissing as missing:
        if not isinstance(asked, OutputOf):
            raise
        raise ImageMissing(
            f"the image that {asked.job} left was deleted",
            details=missing.brief,
            resolution=f"run it again: {asked.job} then makes a new one",
        ) from None
    if isinstance(asked, OutputOf):
        return msgspec.structs.replace(image, alias=f"{asked.job} (output)")
    return image
