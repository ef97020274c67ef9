"""Streams of events and logs: server-sent events, each with an id to resume from.

After `KEEP_ALIVE_SECS` of silence the service sends a comment, so that a client can tell a silent
job from a dead service. After the last event the answer is 204, and only that is the end: a client
must resume a stream that ends in any other way.
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
    """An answer that sends the frames. `Problem` if there are too many streams."""
    count_as_stream(request)
    return StreamingResponse(
        frames,
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def frames_of(more: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """Yield what `more` returns until that is empty, with keep-alive comments in between.

    `more` is cancelled for each comment, and must lose nothing by it.
    """
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
    """A job's log as frames, from a byte of an attempt's log."""

    def __init__(self, job: JobHandle, attempt: int, byte: int) -> None:
        self._job = job
        self._attempt = attempt
        self._byte = byte

    async def more(self) -> bytes:
        """The next piece, in base64 because a log may hold any bytes; empty at the end."""
        piece = await self._job.more_log(self._attempt, self._byte)
        self._attempt, self._byte = piece.attempt, piece.end
        if not piece.data:
            return b""
        head = b"id: %d.%d\nevent: log\ndata: " % (piece.attempt, piece.end)
        return head + base64.b64encode(piece.data) + b"\n\n"

    async def over(self) -> bool:
        """Whether no more of the log follows. Call it only when the job has ended."""
        return not (await self._job.more_log(self._attempt, self._byte)).data


def parse_event_id(last_event_id: str) -> tuple[int, int]:
    """The attempt and the byte that the id of a log's frame stands for."""
    found = _PLACE.fullmatch(last_event_id)
    if found is None:
        raise Problem(
            400,
            f"the Last-Event-ID {last_event_id[:50]!r} is not an id of a log",
            resolution="send the id of the last event of this log, for example 1.4096",
        )
    return int(found[1]), int(found[2])
