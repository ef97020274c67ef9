"""The artifacts of a job."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import json_list
from orchestrator.service.archive import archive_response
from orchestrator.service.artifacts import list_artifacts, open_artifact
from orchestrator.service.files import file_response


async def artifacts(orchestrator: Orchestrator, request: Request) -> Response:
    """The artifacts of a job."""
    directory = await (await job_of(orchestrator, request)).fetch_directory()
    found = await orchestrator.reading.apart(lambda: list_artifacts(directory / "artifacts"))
    return await json_list(orchestrator, b'{"artifacts":[', found, b"]}")


async def artifact_archive(orchestrator: Orchestrator, request: Request) -> Response:
    """Download all artifacts as one tar archive."""
    job = await job_of(orchestrator, request)
    return await archive_response(request, await job.fetch_directory(), job.id)


async def artifact(orchestrator: Orchestrator, request: Request) -> Response:
    """Download an artifact."""
    directory = await (await job_of(orchestrator, request)).fetch_directory()

    def opened() -> tuple[int, int]:
        file = open_artifact(directory / "artifacts", request.path_params["path"])
        return file, os.fstat(file).st_size

    headers = {
        # A job's HTML must not run in the service's origin.
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return await file_response(request, *await orchestrator.reading.apart(opened), headers)
