"""The test cases of a job."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import Count, decode_query
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import encode, json_list
from states.testcases import CaseOutcome


class TestsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`outcome` filters. `after` is the `next` of the previous page."""

    outcome: CaseOutcome | None = None
    after: Count = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200


async def tests(orchestrator: Orchestrator, request: Request) -> Response:
    """The results in a job's test reports: a summary, and the tests in their order."""
    query = decode_query(request.query_params, TestsQuery)
    job = await (await job_of(orchestrator, request)).look()
    outcomes = (query.outcome,) if query.outcome is not None else ()
    found = await orchestrator.reading.journal(
        lambda: orchestrator.journal.cases(
            job.id, outcomes=outcomes, after=query.after, limit=query.limit + 1
        )
    )
    shown = found[: query.limit]
    following = shown[-1][0] if len(found) > query.limit else None
    return await json_list(
        orchestrator,
        b'{"report":%s,"tests":[' % encode(job.tests),
        [case for _, case in shown],
        b'],"next":%s}' % encode(following),
    )
