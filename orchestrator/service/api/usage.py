"""What a job used, and its samples over time."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import encode, json_list
from orchestrator.usage_samples import read_samples


async def usage(orchestrator: Orchestrator, request: Request) -> Response:
    """The resource usage of a job, with samples; none while it runs, or if its guest takes none."""
    handle = await job_of(orchestrator, request)
    job = await handle.look()
    log = await handle.fetch_directory() / "guest.log"
    samples = await orchestrator.reading.apart(lambda: read_samples(log))
    return await json_list(
        orchestrator, b'{"usage":%s,"samples":[' % encode(job.usage), samples, b"]}"
    )
