"""The table of the API: routes and the OpenAPI document are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.history import JobHistory
from orchestrator.orchestrator import Orchestrator, Statistics
from orchestrator.service.api.artifacts import artifact, artifact_archive, artifacts
from orchestrator.service.api.events import EventsQuery, MovesQuery, events, moves
from orchestrator.service.api.history import FlakesQuery, HistoryQuery, flakes, history
from orchestrator.service.api.jobs import JobsQuery, cancel_job, get_job, list_jobs, statistics
from orchestrator.service.api.log import (
    FollowQuery,
    LogQuery,
    PlaceQuery,
    TimesQuery,
    follow_log,
    log,
    log_place,
    log_times,
)
from orchestrator.service.api.runs import SubmitQuery, cancel_run, get_run, submit
from orchestrator.service.api.tests import TestsQuery, tests
from orchestrator.service.api.usage import usage
from orchestrator.service.follow import EVENT_STREAM
from orchestrator.service.types import (
    Artifacts,
    Cancel,
    Flakes,
    JobDocument,
    JobPage,
    Place,
    RunDocument,
    SubmitRun,
    Tests,
    Times,
    UsageDocument,
)

_Handler = Callable[[Orchestrator, Request], Awaitable[Response]]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No query."""


@dataclass(frozen=True)
class Operation:
    """One method of one path: its handler, and its types for the OpenAPI document."""

    method: str
    path: str
    handler: _Handler
    answer: type[Any] | str  # a JSON document, or a media type
    body: type[Any] | None = None
    query: type[Any] = Nothing
    status: int = 200

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").strip().splitlines()[0]


OPERATIONS = (
    Operation(
        "POST", "/v1/runs", submit, RunDocument, body=SubmitRun, query=SubmitQuery, status=201
    ),
    Operation("GET", "/v1/runs/{run}", get_run, RunDocument),
    Operation("POST", "/v1/runs/{run}/cancel", cancel_run, RunDocument, body=Cancel),
    Operation("GET", "/v1/jobs", list_jobs, JobPage, query=JobsQuery),
    Operation("GET", "/v1/jobs/{job}", get_job, JobDocument),
    Operation("POST", "/v1/jobs/{job}/cancel", cancel_job, JobDocument, body=Cancel),
    Operation("GET", "/v1/events", moves, EVENT_STREAM, query=MovesQuery),
    Operation("GET", "/v1/jobs/{job}/events", events, EVENT_STREAM, query=EventsQuery),
    Operation("GET", "/v1/jobs/{job}/log", log, "text/plain", query=LogQuery),
    Operation("GET", "/v1/jobs/{job}/log/events", follow_log, EVENT_STREAM, query=FollowQuery),
    Operation("GET", "/v1/jobs/{job}/log/times", log_times, Times, query=TimesQuery),
    Operation("GET", "/v1/jobs/{job}/log/place", log_place, Place, query=PlaceQuery),
    Operation("GET", "/v1/jobs/{job}/artifacts", artifacts, Artifacts),
    Operation("GET", "/v1/jobs/{job}/artifacts.tar", artifact_archive, "application/x-tar"),
    Operation("GET", "/v1/jobs/{job}/artifacts/{path:path}", artifact, "application/octet-stream"),
    Operation("GET", "/v1/jobs/{job}/tests", tests, Tests, query=TestsQuery),
    Operation("GET", "/v1/jobs/{job}/usage", usage, UsageDocument),
    Operation("GET", "/v1/jobs/{job}/history", history, JobHistory, query=HistoryQuery),
    Operation("GET", "/v1/flakes", flakes, Flakes, query=FlakesQuery),
    Operation("GET", "/v1/statistics", statistics, Statistics),
)
