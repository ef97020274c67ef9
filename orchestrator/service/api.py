"""The resources under /v1: what is asked is decoded, done by the orchestrator, and told."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.job_handle import JobHandle
from orchestrator.orchestrator import Orchestrator, Statistics
from orchestrator.secret_values import SecretMissing, read_secrets
from orchestrator.service.artifacts import list_artifacts, open_artifact
from orchestrator.service.files import file_answer
from orchestrator.service.problems import Problem
from orchestrator.service.types import (
    Artifacts,
    Cancel,
    JobDocument,
    JobPage,
    RunDocument,
    SubmitRun,
    job_document,
)
from orchestrator.snapshot import Snapshot
from orchestrator.submission import Request as RunRequest
from orchestrator.submission import refusal
from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict

KEEP_ALIVE_SECS = 15.0
EVENT_STREAM = "text/event-stream"
_MAX_KEY = 200
_T = TypeVar("_T")

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Handler = Callable[[Orchestrator, Request], Awaitable[Response]]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No query."""


class JobsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs. `before` is the `next` of the page before."""

    run: str = ""
    name: str = ""
    state: State | None = None
    verdict: Verdict | None = None
    before: _Count | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class LogQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`follow`: from the byte `after`, as it grows, to the job's end."""

    follow: bool = False
    after: _Count = 0


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: only what stands behind this number. The header Last-Event-ID goes before it."""

    after: _Count = 0


@dataclass(frozen=True)
class Operation:
    """One method of one path: who answers, and what the OpenAPI document says of it."""

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


async def submit(orchestrator: Orchestrator, request: Request) -> Response:
    """Submit a run; it is durable when this is answered. With an Idempotency-Key, once."""
    asked = await _body(request, SubmitRun)
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > _MAX_KEY or not key.isprintable():
        raise Problem(400, f"the Idempotency-Key has more than {_MAX_KEY} printable characters")
    known = bool(key) and orchestrator.journal.run_of_key(key) is not None
    if not known:
        await trio.to_thread.run_sync(_check_secrets, asked)
    run = await orchestrator.submit_run(
        RunRequest(
            Path(asked.workspace),
            asked.jobs,
            include=asked.include,
            key=key,
            snapshot=_published(orchestrator, asked.snapshot),
        ),
        wait=False,
    )
    documents = [_document(job) for job in run.jobs]
    rejected = [document for document in documents if document.verdict is Verdict.REJECTED]
    if rejected and (failure := rejected[0].failure):
        raise Problem(
            422,
            f"jobs.{rejected[0].name}: {failure.message}",
            resolution=f"{failure.resolution}; the run {run.id} is recorded as rejected",
        )
    return _json(RunDocument(id=run.id, jobs=tuple(documents)), 200 if known else 201)


async def get_run(orchestrator: Orchestrator, request: Request) -> Response:
    """A run, with its jobs as they stand."""
    run = orchestrator.run(request.path_params["run"])
    return _json(RunDocument(id=run.id, jobs=tuple(_document(job) for job in run.jobs)))


async def list_jobs(orchestrator: Orchestrator, request: Request) -> Response:
    """Jobs, the newest first."""
    query = _query(request, JobsQuery)
    rows = orchestrator.journal.newest(
        limit=query.limit + 1,
        before=query.before,
        run=query.run or None,
        name=query.name or None,
        state=query.state,
        verdict=query.verdict,
    )
    shown = rows[: query.limit]
    return _json(
        JobPage(
            jobs=tuple(_document(orchestrator.job(row.id)) for _, row in shown),
            next=shown[-1][0] if len(rows) > query.limit else None,
        )
    )


async def get_job(orchestrator: Orchestrator, request: Request) -> Response:
    """A job as it stands."""
    return _json(_document(_job(orchestrator, request)))


async def cancel_job(orchestrator: Orchestrator, request: Request) -> Response:
    """End a job; answered when it is dead. One that has ended stays as it is."""
    job = _job(orchestrator, request)
    asked = await _body(request, Cancel)
    await job.cancel(reason=asked.reason, now=asked.now)
    return _json(_document(job))


async def cancel_run(orchestrator: Orchestrator, request: Request) -> Response:
    """End all jobs of a run; answered when they are dead."""
    run = orchestrator.run(request.path_params["run"])
    asked = await _body(request, Cancel)
    await orchestrator.cancel((job.id for job in run.jobs), reason=asked.reason, now=asked.now)
    return _json(RunDocument(id=run.id, jobs=tuple(_document(job) for job in run.jobs)))


async def events(orchestrator: Orchestrator, request: Request) -> Response:
    """A job's events and notes as server-sent events, from the first or behind Last-Event-ID.

    The stream ends when the job has. Behind the last event of an ended job the answer is 204,
    which tells a browser not to come again.
    """
    job = _job(orchestrator, request)
    after = _query(request, EventsQuery).after
    if (last := request.headers.get("Last-Event-ID")) is not None:
        after = _convert({"after": last}, EventsQuery).after
    if job.ended and not await job.more(after):
        return Response(status_code=204)
    return StreamingResponse(
        _server_sent(job, after),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _server_sent(job: JobHandle, after: int) -> AsyncIterator[bytes]:
    while True:
        batch = None
        with trio.move_on_after(KEEP_ALIVE_SECS):
            batch = await job.more(after)
        if batch is None:
            yield b": still here\n\n"  # so that a connection that is gone is noticed
        elif not batch:
            return
        else:
            after = batch[-1][0]
            yield b"".join(
                b"id: %d\nevent: %s\ndata: %s\n\n"
                % (number, ev.tag(type(entry)).encode(), msgspec.json.encode(entry))
                for number, entry in batch
            )


async def log(orchestrator: Orchestrator, request: Request) -> Response:
    """A job's log: whole, by a Range of bytes, or followed to the job's end."""
    job = _job(orchestrator, request)
    query = _query(request, LogQuery)
    media = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    if query.follow and request.method == "GET":
        return StreamingResponse(
            job.log(after=query.after), headers={"X-Content-Type-Options": "nosniff", **media}
        )
    try:
        file = os.open(
            job.directory / "guest.log", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return Response(b"", headers=media)
    return file_answer(file, os.fstat(file).st_size, request.headers.get("Range", ""), media)


async def artifacts(orchestrator: Orchestrator, request: Request) -> Response:
    """What the job left."""
    directory = _job(orchestrator, request).directory / "artifacts"
    found = await trio.to_thread.run_sync(list_artifacts, directory)
    return _json(Artifacts(artifacts=tuple(found)))


async def artifact(orchestrator: Orchestrator, request: Request) -> Response:
    """A file that the job left, as a download."""
    directory = _job(orchestrator, request).directory / "artifacts"
    file = open_artifact(directory, request.path_params["path"])
    headers = {
        # A job's HTML must not run as ours.
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return file_answer(file, os.fstat(file).st_size, request.headers.get("Range", ""), headers)


async def statistics(orchestrator: Orchestrator, request: Request) -> Response:
    """What the service's jobs do, in numbers."""
    return _json(orchestrator.statistics())


OPERATIONS = (
    Operation("POST", "/v1/runs", submit, RunDocument, body=SubmitRun, status=201),
    Operation("GET", "/v1/runs/{run}", get_run, RunDocument),
    Operation("POST", "/v1/runs/{run}/cancel", cancel_run, RunDocument, body=Cancel),
    Operation("GET", "/v1/jobs", list_jobs, JobPage, query=JobsQuery),
    Operation("GET", "/v1/jobs/{job}", get_job, JobDocument),
    Operation("POST", "/v1/jobs/{job}/cancel", cancel_job, JobDocument, body=Cancel),
    Operation("GET", "/v1/jobs/{job}/events", events, EVENT_STREAM, query=EventsQuery),
    Operation("GET", "/v1/jobs/{job}/log", log, "text/plain", query=LogQuery),
    Operation("GET", "/v1/jobs/{job}/artifacts", artifacts, Artifacts),
    Operation("GET", "/v1/jobs/{job}/artifacts/{path:path}", artifact, "application/octet-stream"),
    Operation("GET", "/v1/statistics", statistics, Statistics),
)


def _check_secrets(asked: SubmitRun) -> None:
    """All secrets are there before anything is touched. They are read again when they are used."""
    for name, spec in asked.jobs.items():
        if refusal(spec) is not None:
            continue  # which is told in its own words
        try:
            read_secrets(spec.secrets)
        except SecretMissing as error:
            raise Problem(
                422,
                f"jobs.{name}.{error.brief}, in the service",
                resolution=error.resolution.replace("pikaci is started", "the service is started"),
            ) from None


def _published(orchestrator: Orchestrator, asked: ev.SnapshotRef | None) -> Snapshot | None:
    if asked is None:
        return None
    # It becomes a path.
    if not re.fullmatch("[0-9a-f]{64}", asked.hash):
        raise Problem(422, "snapshot.hash is no hash of a snapshot")
    path = orchestrator.bench.root.snapshots / asked.hash
    return Snapshot(asked.hash, path, asked.commit, asked.dirty)


def _job(orchestrator: Orchestrator, request: Request) -> JobHandle:
    return orchestrator.job(request.path_params["job"])


def _document(job: JobHandle) -> JobDocument:
    return job_document(job.job, job.waits_for())


def _json(document: msgspec.Struct, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(document), status_code=status, media_type="application/json"
    )


async def _body(request: Request, type: type[_T]) -> _T:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            415, "the body is not said to be JSON", resolution="Content-Type: application/json"
        )
    try:
        return msgspec.json.decode(await request.body(), type=type)
    except msgspec.ValidationError as error:
        raise Problem(
            422, f"the body: {error}", resolution="/v1/openapi.json has its form"
        ) from None
    except msgspec.DecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def _query(request: Request, type: type[_T]) -> _T:
    return _convert(dict(request.query_params), type)


def _convert(given: dict[str, str], type: type[_T]) -> _T:
    try:
        return msgspec.convert(given, type, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(
            400, f"the query: {error}", resolution="/v1/openapi.json has its form"
        ) from None
