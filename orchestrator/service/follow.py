"""How events and logs are followed: server-sent events, each with the id behind which one resumes.

A comment is sent where nothing else was for `KEEP_ALIVE_SECS`: it is the sign of life by which a
client tells a silent job from a service that is gone. Behind the last event the answer is 204,
and only that is the end: a stream that ends otherwise is to be resumed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from orchestrator.job.handle import JobHandle
from orchestrator.service.limits import count_as_stream
from orchestrator.service.problems import Problem
from orchestrator.service.types import KEEP_ALIVE_SECS

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE = b": still here\n\n"
_PLACE = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})")


def stream_response(request: Request, frames: AsyncIterator[bytes]) -> Response:
    """The answer that sends the frames; a `Problem` when there are as many streams as may be."""
    count_as_stream(request)
    return StreamingResponse(
        frames,
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def frames_of(more: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """What `more` returns, until it is empty, with signs of life between. It may be cancelled."""
    while True:
        frame = None
        with trio.move_on_after(KEEP_ALIVE_SECS):
            frame = await more()
        if frame is None:
            yield KEEP_ALIVE
        elif not frame:
            return
        else:
            yield frame


class LogFrames:
    """A job's log as frames, from a place in it: an attempt, and a byte of its log."""

    def __init__(self, job: JobHandle, attempt: int, byte: int) -> None:
        self._job = job
        self._attempt = attempt
        self._byte = byte

    async def more(self) -> bytes:
        """The next piece, as base64, since a log has any bytes; empty at the log's end."""
        piece = await self._job.more_log(self._attempt, self._byte)
        self._attempt, self._byte = piece.attempt, piece.end
        if not piece.data:
            return b""
        head = b"id: %d.%d\nevent: log\ndata: " % (piece.attempt, piece.end)
        return head + base64.b64encode(piece.data) + b"\n\n"

    async def over(self) -> bool:
        """Whether nothing stands behind the place, of a job that has ended."""
        return not (await self._job.more_log(self._attempt, self._byte)).data


def parse_event_id(last_event_id: str) -> tuple[int, int]:
    """The attempt and the byte that an id of a log's frame stands for."""
    found = _PLACE.fullmatch(last_event_id)
    if found is None:
        raise Problem(
            400,
            f"the Last-Event-ID {last_event_id[:50]!r} is not one of a log",
            resolution="send the id of the last event of this log, for example 1.4096",
        )
    return int(found[1]), int(found[2])
