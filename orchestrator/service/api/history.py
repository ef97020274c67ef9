"""How a job went over time, and which jobs are flaky."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from orchestrator.orchestrator import Orchestrator
from orchestrator.outlook import read_flakes, read_history
from orchestrator.service.api.decoding import decode_query
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import json_list


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limit`: how many of the newest results count."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class FlakesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limit`: how many of the newest."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


async def history(orchestrator: Orchestrator, request: Request) -> Response:
    """The results of the jobs with this job's name and workspace: pass rate, times, history."""
    query = decode_query(request.query_params, HistoryQuery)
    job = await job_of(orchestrator, request)
    journal = orchestrator.journal

    def read() -> bytes | None:
        row = journal.find(job.id)
        found = read_history(journal, row, limit=query.limit) if row else None
        return msgspec.json.encode(found) if found else None

    body = await orchestrator.reading.journal(read)
    if body is None:
        raise NotFound("no job of this name has a result yet", resolution="wait until one ended")
    return Response(body, media_type="application/json")


async def flakes(orchestrator: Orchestrator, request: Request) -> Response:
    """Jobs that passed and failed with the same inputs, newest first."""
    query = decode_query(request.query_params, FlakesQuery)
    journal = orchestrator.journal
    found = await orchestrator.reading.journal(lambda: read_flakes(journal, limit=query.limit))
    return await json_list(orchestrator, b'{"flakes":[', found, b"]}")
