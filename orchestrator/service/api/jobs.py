"""Lists, shows, cancels and counts jobs."""

from __future__ import annotations

import logging
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.job.handle import JobHandle
from orchestrator.journal import JobRow
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import Count, decode_body, decode_query
from orchestrator.service.api.responses import encode, json, json_list
from orchestrator.service.types import Cancel, JobDocument, job_document
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

_log = logging.getLogger(__name__)


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filters; `run` is an id or a number. `before` is the `next` of the previous page."""

    run: str = ""
    name: str = ""
    state: State | None = None
    verdict: Verdict | None = None
    before: Count | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


async def list_jobs(orchestrator: Orchestrator, request: Request) -> Response:
    """List jobs, newest first."""
    query = decode_query(request.query_params, JobsQuery)
    found, following = await find_jobs(orchestrator, query)
    documents = [document(orchestrator, job) for job in found]
    return await json_list(
        orchestrator, b'{"jobs":[', documents, b'],"next":%s}' % encode(following)
    )


async def find_jobs(orchestrator: Orchestrator, query: JobsQuery) -> tuple[list[Job], int | None]:
    """The jobs that match the query, and the `before` of the next page."""
    found, following = await find_ids(orchestrator, query)
    return await orchestrator.fetch_jobs(found), following


async def find_ids(orchestrator: Orchestrator, query: JobsQuery) -> tuple[list[str], int | None]:
    """The ids of the jobs that match the query, and the `before` of the next page."""

    def find() -> list[tuple[int, JobRow]]:
        journal, run = orchestrator.journal, query.run
        if run and not journal.jobs_of_runs([run]):
            run = journal.run_of_number(run) or run
        return journal.newest(
            limit=query.limit + 1,
            before=query.before,
            run=run or None,
            name=query.name or None,
            state=query.state,
            verdict=query.verdict,
        )

    rows = await orchestrator.reading.journal(find)
    shown = rows[: query.limit]
    return [row.id for _, row in shown], shown[-1][0] if len(rows) > query.limit else None


async def get_job(orchestrator: Orchestrator, request: Request) -> Response:
    """The current state of a job."""
    job = await job_of(orchestrator, request)
    return json(document(orchestrator, await job.look()))


async def cancel_job(orchestrator: Orchestrator, request: Request) -> Response:
    """Cancel a job, and answer when it is dead. No effect on a job that has ended."""
    job = await job_of(orchestrator, request)
    asked = await decode_body(request, Cancel)
    log_cancel([job.id], asked)
    await job.cancel(reason=asked.reason, now=asked.now)
    return json(document(orchestrator, await job.look()))


async def statistics(orchestrator: Orchestrator, request: Request) -> Response:
    """Numbers of queued, running and ended jobs."""
    return json(orchestrator.statistics())


def log_cancel(jobs: list[str], asked: Cancel) -> None:
    """Log which jobs are cancelled, and why."""
    for job in jobs:
        about = {"job": job, "reason": asked.reason, "now": asked.now}
        _log.info("cancel", extra={"about": about})


def document(orchestrator: Orchestrator, job: Job) -> JobDocument:
    """The document of a job, with what it waits for in this service."""
    return job_document(job, orchestrator.waits_for(job.id))


async def job_of(orchestrator: Orchestrator, request: Request) -> JobHandle:
    """The job that the path names; `NotFound` when there is none."""
    return await orchestrator.find_job(request.path_params["job"])
