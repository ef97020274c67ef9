"""The resources under /v1: what is asked is decoded, done by the orchestrator, and told."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.job.handle import BATCH, JobHandle, RunHandle
from orchestrator.job.submission import Judged, judge
from orchestrator.job.submission import Request as RunRequest
from orchestrator.journal import JobRow
from orchestrator.orchestrator import Orchestrator, Statistics
from orchestrator.service.artifacts import list_artifacts, open_artifact
from orchestrator.service.files import file_answer
from orchestrator.service.follow import (
    EVENT_STREAM,
    KEEP_ALIVE,
    LogFrames,
    frames_of,
    place_of_id,
    stream_answer,
)
from orchestrator.service.limits import lasting
from orchestrator.service.places import place_of_byte, place_of_line
from orchestrator.service.problems import Problem
from orchestrator.service.types import (
    KEEP_ALIVE_SECS,
    Artifacts,
    Cancel,
    JobDocument,
    JobPage,
    Place,
    RunDocument,
    SubmitRun,
    job_document,
    move,
)
from orchestrator.slow_files import look_up
from orchestrator.snapshot.snapshot import Snapshot
from states import events as ev
from states import recorded
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

# Who watches all jobs is told of what happens in so short a time at once: each look reads.
GATHER_SECS = 0.05
# Who watches all jobs has to come again after this time, and so is known to be alive.
WATCH_SECS = 3600.0
_MAX_KEY = 200
# So many documents are encoded at once; more are in a thread.
FEW = 5
_T = TypeVar("_T")
_encode = msgspec.json.encode
_log = logging.getLogger(__name__)

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


class FollowQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: from this byte of the current attempt. The header Last-Event-ID goes before it."""

    after: _Count = 0


class PlaceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `line`, from 1; without one, the line that the `byte` is in."""

    line: Annotated[int, msgspec.Meta(ge=1, le=2**62)] | None = None
    byte: _Count = 0


class MovesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: behind this number, else from now on. The header Last-Event-ID goes before it."""

    after: _Count | None = None


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
    key = _idempotency_key(request)
    asked = await _body(request, SubmitRun)
    wanted = RunRequest(
        Path(asked.workspace),
        asked.jobs,
        include=asked.include,
        key=key,
        snapshot=_published(orchestrator, asked.snapshot),
    )
    # It looks at the workspace, at directories of jobs, and at the files of secrets.
    run = await orchestrator.find_submitted(wanted)
    known = run is not None
    warnings: list[str] = []
    if run is None:
        judged = await look_up("the paths of the run", partial(_judged, wanted))
        run = await orchestrator.submit_judged(
            judged, wait=False, started=lambda snapshot: warnings.extend(snapshot.warnings)
        )
    documents = await _documents(orchestrator, run)
    rejected = [document for document in documents if document.verdict is Verdict.REJECTED]
    if rejected and (failure := rejected[0].failure):
        raise Problem(
            422,
            f"jobs.{rejected[0].name}: {failure.message}",
            resolution=f"{failure.resolution}; the run {run.id} is recorded as rejected",
        )
    about = {"run": run.id, "jobs": len(documents), "key": key, "workspace": asked.workspace}
    _log.info("known run" if known else "submitted run", extra={"about": about})
    return await _json_run(
        orchestrator, run, documents, warnings=warnings, status=200 if known else 201
    )


async def get_run(orchestrator: Orchestrator, request: Request) -> Response:
    """A run, with its jobs as they stand."""
    run = await orchestrator.find_run(request.path_params["run"])
    return await _json_run(orchestrator, run, await _documents(orchestrator, run))


async def list_jobs(orchestrator: Orchestrator, request: Request) -> Response:
    """Jobs, the newest first."""
    query = decoded_query(request.query_params, JobsQuery)
    found, following = await find_jobs(orchestrator, query)
    documents = [_document(orchestrator, job) for job in found]
    return await _json_list(
        orchestrator, b'{"jobs":[', documents, b'],"next":%s}' % _encode(following)
    )


async def find_jobs(orchestrator: Orchestrator, query: JobsQuery) -> tuple[list[Job], int | None]:
    """The jobs that the query asks for, and the `before` of the next page."""

    def find() -> list[tuple[int, JobRow]]:
        return orchestrator.journal.newest(
            limit=query.limit + 1,
            before=query.before,
            run=query.run or None,
            name=query.name or None,
            state=query.state,
            verdict=query.verdict,
        )

    rows = await orchestrator.reading.journal(find)
    shown = rows[: query.limit]
    jobs = await orchestrator.fetch_jobs([row.id for _, row in shown])
    return jobs, shown[-1][0] if len(rows) > query.limit else None


async def get_job(orchestrator: Orchestrator, request: Request) -> Response:
    """A job as it stands."""
    job = await _job(orchestrator, request)
    return _json(_document(orchestrator, await job.look()))


def log_cancel(jobs: list[str], asked: Cancel) -> None:
    """Say in the log who is cancelled, and why."""
    for job in jobs:
        about = {"job": job, "reason": asked.reason, "now": asked.now}
        _log.info("cancel", extra={"about": about})


async def cancel_job(orchestrator: Orchestrator, request: Request) -> Response:
    """End a job; answered when it is dead. One that has ended stays as it is."""
    job = await _job(orchestrator, request)
    asked = await _body(request, Cancel)
    log_cancel([job.id], asked)
    await job.cancel(reason=asked.reason, now=asked.now)
    return _json(_document(orchestrator, await job.look()))


async def cancel_run(orchestrator: Orchestrator, request: Request) -> Response:
    """End all jobs of a run; answered when they are dead."""
    run = await orchestrator.find_run(request.path_params["run"])
    asked = await _body(request, Cancel)
    log_cancel([job.id for job in run.jobs], asked)
    await orchestrator.cancel((job.id for job in run.jobs), reason=asked.reason, now=asked.now)
    return await _json_run(orchestrator, run, await _documents(orchestrator, run))


async def events(orchestrator: Orchestrator, request: Request) -> Response:
    """A job's events and notes as server-sent events, from the first or behind Last-Event-ID.

    The stream ends when the job has. Behind the last event of an ended job the answer is 204,
    which tells a browser not to come again.
    """
    job = await _job(orchestrator, request)
    after = decoded_query(request.query_params, EventsQuery).after
    if (last := request.headers.get("Last-Event-ID")) is not None:
        after = decoded_query({"after": last}, EventsQuery).after
    if (await job.fetch()).ended and not await job.more(after):
        return Response(status_code=204)
    return stream_answer(request, _server_sent(job, after))


async def _server_sent(job: JobHandle, after: int) -> AsyncIterator[bytes]:
    async def more() -> bytes:
        nonlocal after
        batch = await job.more(after)
        if batch:
            after = batch[-1][0]
        return b"".join(
            b"id: %d\nevent: %s\ndata: %s\n\n"
            % (number, ev.kind_of(entry).encode(), recorded.encode(entry))
            for number, entry in batch
        )

    async for frame in frames_of(more):
        yield frame


async def moves(orchestrator: Orchestrator, request: Request) -> Response:
    """What moves any job, as server-sent events, from now on or behind Last-Event-ID.

    It begins with the number behind which it goes on, and ends after an hour.
    """
    after = decoded_query(request.query_params, MovesQuery).after
    if (last := request.headers.get("Last-Event-ID")) is not None:
        after = decoded_query({"after": last}, MovesQuery).after
    newest = await orchestrator.reading.journal(orchestrator.journal.position)
    # A greater number is of another journal.
    after = newest if after is None else min(after, newest)
    return stream_answer(request, _moves(orchestrator, after))


async def _moves(orchestrator: Orchestrator, after: int) -> AsyncIterator[bytes]:
    yield b"id: %d\n\n" % after
    end = trio.current_time() + WATCH_SECS
    while trio.current_time() < end:
        arrival = orchestrator.arrivals.entry()
        batch = await orchestrator.reading.journal(
            partial(orchestrator.journal.moves, after=after, limit=BATCH)
        )
        if batch:
            after = batch[-1][0]
            yield b"".join(
                b"id: %d\nevent: move\ndata: %s\n\n"
                % (number, msgspec.json.encode(move(row, event)))
                for number, row, event in batch
                if event is not None
            )
            continue
        with trio.move_on_at(min(end, trio.current_time() + KEEP_ALIVE_SECS)) as waited:
            await arrival.wait()
            await trio.sleep(GATHER_SECS)
        if waited.cancelled_caught:
            yield KEEP_ALIVE


async def log(orchestrator: Orchestrator, request: Request) -> Response:
    """A job's log: whole, by a Range of bytes, or followed to the job's end."""
    job = await _job(orchestrator, request)
    query = decoded_query(request.query_params, LogQuery)
    media = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    if query.follow and request.method == "GET":
        lasting(request)
        return StreamingResponse(
            job.log(after=query.after), headers={"X-Content-Type-Options": "nosniff", **media}
        )
    opened = await _open_log(orchestrator, job)
    if opened is None:
        return Response(b"", headers=media)
    return await file_answer(request, *opened, media)


async def follow_log(orchestrator: Orchestrator, request: Request) -> Response:
    """A job's log as server-sent events of base64, from a byte or behind Last-Event-ID.

    An id is an attempt and a byte of its log, `1.4096`: behind one attempt's log comes the next
    one's. The stream ends when the job has; behind the end the answer is 204.
    """
    job = await _job(orchestrator, request)
    after = decoded_query(request.query_params, FollowQuery).after
    now = await job.look()
    place = max(1, now.attempt), after
    if (last := request.headers.get("Last-Event-ID")) is not None:
        place = place_of_id(last)
    frames = LogFrames(job, *place)
    if (now.ended or now.damage) and await frames.over():
        return Response(status_code=204)
    return stream_answer(request, frames_of(frames.more))


async def log_place(orchestrator: Orchestrator, request: Request) -> Response:
    """Where a line of a job's log begins, or which line a byte is in."""
    query = decoded_query(request.query_params, PlaceQuery)
    opened = await _open_log(orchestrator, await _job(orchestrator, request))
    if opened is None:
        return _json(Place(line=1, byte=0))
    file, _ = opened
    try:
        find = (
            partial(place_of_byte, file, query.byte)
            if query.line is None
            else partial(place_of_line, file, query.line)
        )
        return _json(await orchestrator.reading.apart(find))
    finally:
        os.close(file)


async def _open_log(orchestrator: Orchestrator, job: JobHandle) -> tuple[int, int] | None:
    """A descriptor of the log, the caller's to close, and its size; None when there is none yet."""
    directory = await job.fetch_directory()

    def opened() -> tuple[int, int] | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(directory / "guest.log", flags)
        except FileNotFoundError:
            return None
        return file, os.fstat(file).st_size

    return await orchestrator.reading.apart(opened)


async def artifacts(orchestrator: Orchestrator, request: Request) -> Response:
    """What the job left."""
    directory = await (await _job(orchestrator, request)).fetch_directory()
    found = await orchestrator.reading.apart(lambda: list_artifacts(directory / "artifacts"))
    return await _json_list(orchestrator, b'{"artifacts":[', found, b"]}")


async def artifact(orchestrator: Orchestrator, request: Request) -> Response:
    """A file that the job left, as a download."""
    directory = await (await _job(orchestrator, request)).fetch_directory()

    def opened() -> tuple[int, int]:
        file = open_artifact(directory / "artifacts", request.path_params["path"])
        return file, os.fstat(file).st_size

    headers = {
        # A job's HTML must not run as ours.
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return await file_answer(request, *await orchestrator.reading.apart(opened), headers)


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
    Operation("GET", "/v1/events", moves, EVENT_STREAM, query=MovesQuery),
    Operation("GET", "/v1/jobs/{job}/events", events, EVENT_STREAM, query=EventsQuery),
    Operation("GET", "/v1/jobs/{job}/log", log, "text/plain", query=LogQuery),
    Operation("GET", "/v1/jobs/{job}/log/events", follow_log, EVENT_STREAM, query=FollowQuery),
    Operation("GET", "/v1/jobs/{job}/log/place", log_place, Place, query=PlaceQuery),
    Operation("GET", "/v1/jobs/{job}/artifacts", artifacts, Artifacts),
    Operation("GET", "/v1/jobs/{job}/artifacts/{path:path}", artifact, "application/octet-stream"),
    Operation("GET", "/v1/statistics", statistics, Statistics),
)


def _judged(request: RunRequest) -> Judged:
    """The request, judged. All its secrets are there before anything is touched.

    They are read again when they are used.
    """
    judged = judge(request)
    if not judged.refused:
        _check_secrets(judged)
    return judged


def _check_secrets(judged: Judged) -> None:
    for name, checked in judged.checked.items():
        try:
            read_secrets(checked.spec.secrets)
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
    path = orchestrator.root.snapshots / asked.hash
    return Snapshot(asked.hash, path, asked.commit, asked.dirty)


async def _job(orchestrator: Orchestrator, request: Request) -> JobHandle:
    return await orchestrator.find_job(request.path_params["job"])


def _document(orchestrator: Orchestrator, job: Job) -> JobDocument:
    return job_document(job, orchestrator.queue.waits_for(job.id))


async def _documents(orchestrator: Orchestrator, run: RunHandle) -> list[JobDocument]:
    jobs = await orchestrator.fetch_jobs([job.id for job in run.jobs])
    return [_document(orchestrator, job) for job in jobs]


async def _json_run(
    orchestrator: Orchestrator,
    run: RunHandle,
    jobs: list[JobDocument],
    *,
    warnings: Sequence[str] = (),
    status: int = 200,
) -> Response:
    head = b'{"id":%s,"jobs":[' % _encode(run.id)
    return await _json_list(
        orchestrator, head, jobs, b'],"warnings":%s}' % _encode(warnings), status
    )


async def _json_list(
    orchestrator: Orchestrator,
    head: bytes,
    items: Sequence[msgspec.Struct],
    tail: bytes,
    status: int = 200,
) -> Response:
    """A document with a list, which may have megabytes: it is encoded piece by piece."""

    def encode() -> bytes:
        return b"%s%s%s" % (head, b",".join([_encode(item) for item in items]), tail)

    body = encode() if len(items) <= FEW else await orchestrator.reading.apart(encode)
    return Response(body, status_code=status, media_type="application/json")


def _json(document: msgspec.Struct, status: int = 200) -> Response:
    return Response(_encode(document), status_code=status, media_type="application/json")


def _idempotency_key(request: Request) -> str:
    """The key of the request, "" when it sends none."""
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return ""
    if len(keys) > 1 or not 0 < len(keys[0]) <= _MAX_KEY or not keys[0].isprintable():
        raise Problem(
            400,
            "the Idempotency-Key is not valid",
            resolution=f"send one, of 1 to {_MAX_KEY} printable characters, or none",
        )
    return keys[0]


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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            400, f"the body is not JSON: {error}", resolution="JSON is sent as UTF-8"
        ) from None


def decoded_query(given: Mapping[str, str], type: type[_T]) -> _T:
    """What is asked by a query or a header; a `Problem` says what is wrong with it."""
    try:
        return msgspec.convert(dict(given), type, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(
            400, f"the query: {error}", resolution="/v1/openapi.json has its form"
        ) from None
