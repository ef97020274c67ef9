"""Streams of server-sent events: of one job, or of all jobs."""

from __future__ import annotations

from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.job.handle import BATCH, JobHandle
from orchestrator.journal import JobRow
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import Count, query_of_stream
from orchestrator.service.api.jobs import job_of
from orchestrator.service.api.responses import encode
from orchestrator.service.follow import frames_of, stream_response
from orchestrator.service.types import move
from states import events as ev
from states import recorded

# Events of all jobs are sent in batches this far apart, because each look reads the journal.
GATHER_SECS = 0.05
# A stream of all jobs ends after this time. Clients that are still there reconnect.
WATCH_SECS = 3600.0


class MovesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: from the event after this number, or from now on. Last-Event-ID overrides it."""

    after: Count | None = None


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: from the event after this number. Last-Event-ID overrides it."""

    after: Count = 0


async def events(orchestrator: Orchestrator, request: Request) -> Response:
    """Stream the events and notes of a job, from the first or after Last-Event-ID.

    The stream ends when the job has ended. After the last event of such a job the answer is 204,
    which tells a browser not to reconnect.
    """
    job = await job_of(orchestrator, request)
    after = query_of_stream(request, EventsQuery).after
    if (await job.fetch()).ended and not await job.more(after):
        return Response(status_code=204)
    return stream_response(request, frames_of(_Events(job, after).more))


class _Events:
    """A job's entries after a number, as frames."""

    def __init__(self, job: JobHandle, after: int) -> None:
        self._job = job
        self._after = after

    async def more(self) -> bytes:
        """The next entries; empty after the last entry of a job that has ended."""
        batch = await self._job.more(self._after)
        if batch:
            self._after = batch[-1][0]
        return b"".join(
            b"id: %d\nevent: %s\ndata: %s\n\n"
            % (number, ev.kind_of(entry).encode(), recorded.encode(entry))
            for number, entry in batch
        )


async def moves(orchestrator: Orchestrator, request: Request) -> Response:
    """Stream the state changes of all jobs, from now on or after Last-Event-ID.

    The first frame has only an id, to resume from. The stream ends after an hour; reconnect.
    """
    after = query_of_stream(request, MovesQuery).after
    newest = await orchestrator.reading.journal(orchestrator.journal.position)
    # A greater number comes from another journal.
    after = newest if after is None else min(after, newest)
    return stream_response(request, frames_of(_Moves(orchestrator, after).more))


class _Moves:
    """State changes of all jobs after a number, as frames; the first frame has the number."""

    def __init__(self, orchestrator: Orchestrator, after: int) -> None:
        self._orchestrator = orchestrator
        self._after = after
        self._begun = False
        self._end = trio.current_time() + WATCH_SECS

    async def more(self) -> bytes:
        """The next changes; empty when the client must reconnect."""
        if not self._begun:
            self._begun = True
            return b"id: %d\n\n" % self._after
        journal = self._orchestrator.journal
        while trio.current_time() < self._end:
            arrival = self._orchestrator.arrivals.entry()
            batch = await self._orchestrator.reading.journal(
                partial(journal.moves, after=self._after, limit=BATCH)
            )
            if batch:
                self._after = batch[-1][0]
                # It is empty if none of the events can be read.
                if frame := _frame(batch):
                    return frame
                continue
            with trio.move_on_at(self._end):
                await arrival.wait()
                await trio.sleep(GATHER_SECS)
        return b""


def _frame(batch: list[tuple[int, JobRow, ev.Event | None]]) -> bytes:
    return b"".join(
        b"id: %d\nevent: move\ndata: %s\n\n" % (number, encode(move(row, event)))
        for number, row, event in batch
        if event is not None
    )
