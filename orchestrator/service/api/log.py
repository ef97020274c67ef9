"""The log of a job: the whole log, parts of it, or live."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.errors import NotFound
from orchestrator.job.handle import JobHandle
from orchestrator.log_times import read_log_times
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import Count, decode_query
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import json
from orchestrator.service.files import file_response
from orchestrator.service.follow import LogFrames, frames_of, parse_event_id, stream_response
from orchestrator.service.limits import count_as_stream
from orchestrator.service.places import place_of_byte, place_of_error, place_of_line
from orchestrator.service.types import Place, Times

MAX_TIMES = 5000


class LogQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`follow`: stream the log from the byte `after`, until the job has ended."""

    follow: bool = False
    after: Count = 0


class FollowQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: from this byte of the current attempt's log. Last-Event-ID overrides it."""

    after: Count = 0


class PlaceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `line`, counted from 1; the line that holds `byte`; or, with `error`, why it failed."""

    line: Annotated[int, msgspec.Meta(ge=1, le=2**62)] | None = None
    byte: Count = 0
    error: bool = False


class TimesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: from this byte of the log."""

    after: Count = 0


async def log(orchestrator: Orchestrator, request: Request) -> Response:
    """The raw log of a job, or a Range of its bytes; with `follow`, until the job has ended."""
    job = await job_of(orchestrator, request)
    query = decode_query(request.query_params, LogQuery)
    media = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    if query.follow and request.method == "GET":
        count_as_stream(request)
        return StreamingResponse(
            job.log(after=query.after), headers={"X-Content-Type-Options": "nosniff", **media}
        )
    opened = await _open_log(orchestrator, job)
    if opened is None:
        return Response(b"", headers=media)
    return await file_response(request, *opened, media)


async def follow_log(orchestrator: Orchestrator, request: Request) -> Response:
    """Stream the log of a job in base64, from a byte or after Last-Event-ID.

    An id is an attempt and a byte of its log: `1.4096`. After the log of one attempt comes that of
    the next. The stream ends when the job has ended; then the answer is 204.
    """
    job = await job_of(orchestrator, request)
    after = decode_query(request.query_params, FollowQuery).after
    now = await job.look()
    place = max(1, now.attempt), after
    if (last := request.headers.get("Last-Event-ID")) is not None:
        place = parse_event_id(last)
    frames = LogFrames(job, *place)
    if (now.ended or now.damage) and await frames.over():
        return Response(status_code=204)
    return stream_response(request, frames_of(frames.more))


async def log_place(orchestrator: Orchestrator, request: Request) -> Response:
    """Find where a log line begins, which line contains a byte, or which line says what failed."""
    query = decode_query(request.query_params, PlaceQuery)
    job = await job_of(orchestrator, request)
    if query.error:
        path = await job.fetch_directory() / "guest.log"
        place = await orchestrator.reading.apart(partial(place_of_error, path))
        if place is None:
            raise NotFound("no line of the log says what failed")
        return json(place)
    opened = await _open_log(orchestrator, job)
    if opened is None:
        return json(Place(line=1, byte=0))
    file, _ = opened
    try:
        find = (
            partial(place_of_byte, file, query.byte)
            if query.line is None
            else partial(place_of_line, file, query.line)
        )
        return json(await orchestrator.reading.apart(find))
    finally:
        os.close(file)


async def log_times(orchestrator: Orchestrator, request: Request) -> Response:
    """When the host received the bytes of the log."""
    after = decode_query(request.query_params, TimesQuery).after
    path = await (await job_of(orchestrator, request)).fetch_directory() / "guest.log"
    found = await orchestrator.reading.apart(
        lambda: read_log_times(path).records(after, MAX_TIMES + 1)
    )
    following = found[MAX_TIMES][0] if len(found) > MAX_TIMES else None
    return json(Times(times=tuple(found[:MAX_TIMES]), next=following))


async def _open_log(orchestrator: Orchestrator, job: JobHandle) -> tuple[int, int] | None:
    """A descriptor of the log, for the caller to close, and its size; None if there is no log."""
    directory = await job.fetch_directory()

    def opened() -> tuple[int, int] | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(directory / "guest.log", flags)
        except FileNotFoundError:
            return None
        return file, os.fstat(file).st_size

    return await orchestrator.reading.apart(opened)
