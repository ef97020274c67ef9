"""The handlers of the page: the board, a run, a job, and the parts that scripts reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from orchestrator.job.handle import JobHandle
from orchestrator.log_end import read_log_end
from orchestrator.orchestrator import Orchestrator
from orchestrator.report import job_document
from orchestrator.service.api.decoding import decode_query
from orchestrator.service.api.jobs import JobsQuery, find_jobs, log_cancel
from orchestrator.service.artifacts import list_artifacts
from orchestrator.service.limits import read_form
from orchestrator.service.types import Cancel
from orchestrator.service.web import board
from orchestrator.service.web.job import drawing, settings, steps
from orchestrator.service.web.rendering import page
from orchestrator.service.web.same_origin import require_same_origin
from orchestrator.service.web.static_files import static
from orchestrator.service.web.summaries import Summaries, summary
from orchestrator.tracing.egress_lines import egress_lines
from orchestrator.tracing.story import egress_of
from orchestrator.tracing.timeline import Timeline, timeline
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

MAX_ARTIFACTS = 500
MAX_CHANGED = 50
CANCEL_SECS = 0.5
MAX_FORM = 8192
_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Pages:
    """The pages of one orchestrator."""

    orchestrator: Orchestrator
    summaries: Summaries

    def routes(self) -> list[Route]:
        """The routes of the application."""

        def get(path: str, handler: _Handler) -> Route:
            return Route(path, handler, methods=["GET"])

        return [
            get("/", self.show_board),
            get("/runs/{run}", self.show_run),
            get("/jobs/{job}", self.show_job),
            get("/parts/board", self.board_parts),
            get("/parts/jobs/{job}", self.job_parts),
            Route("/jobs/{job}/cancel", self.cancel, methods=["POST"]),
            get("/static/{version}/{name}", static),
        ]

    async def show_board(self, request: Request) -> Response:
        """The board; or, with a filter, the jobs that match it."""
        given = {key: value for key, value in request.query_params.items() if value}
        query = decode_query(given, JobsQuery)
        values: dict[str, Any] = {"query": query, "verdicts": list(Verdict), "at": await self._at()}
        if set(given) - {"before"}:
            found, following = await find_jobs(self.orchestrator, query)
            jobs = [summary(job_document(job)) for job in found]
            return await self._page(request, "found.html", **values, jobs=jobs, next=following)
        journal = self.orchestrator.journal
        runs = await self.orchestrator.reading.journal(
            lambda: journal.newest_runs(limit=board.RUNS, before=query.before)
        )
        return await self._page(
            request,
            "board.html",
            **values,
            now=await board.now(self.orchestrator, self.summaries),
            runs=await self._runs([run for _, run in runs]),
            next=runs[-1][0] if len(runs) == board.RUNS else None,
        )

    async def board_parts(self, request: Request) -> Response:
        """The current jobs, and the runs that the query names."""
        runs = request.query_params.getlist("run")[:MAX_CHANGED]
        return await self._render(
            "parts/board.html",
            at=await self._at(),
            now=await board.now(self.orchestrator, self.summaries),
            runs=await self._runs(list(dict.fromkeys(runs))),
        )

    async def show_run(self, request: Request) -> Response:
        """The page of a run, with all its jobs."""
        run = await self.orchestrator.find_run(request.path_params["run"])
        at = await self._at()
        jobs = await self.summaries([job.id for job in run.jobs])
        shown = board.run(jobs, most=len(jobs))
        return await self._page(request, "run.html", at=at, run=shown, jobs=jobs)

    async def show_job(self, request: Request) -> Response:
        """The page of a job."""
        job = await self.orchestrator.find_job(request.path_params["job"])
        path = await job.fetch_directory() / "guest.log"
        log = await self.orchestrator.reading.apart(lambda: read_log_end(path))
        return await self._page(request, "job.html", log=log, **await self._job(job))

    async def job_parts(self, request: Request) -> Response:
        """The parts of a job's page that change, without its log, which is a stream."""
        job = await self.orchestrator.find_job(request.path_params["job"])
        return await self._render("parts/job.html", **await self._job(job))

    async def cancel(self, request: Request) -> Response:
        """Cancel a job, as the API does, but answer once the cancellation has begun."""
        require_same_origin(request)
        job = await self.orchestrator.find_job(request.path_params["job"])
        form = await read_form(request, MAX_FORM)
        asked = Cancel(now=form.get("now") == ["1"], reason="asked for on the page")
        log_cancel([job.id], asked)
        with trio.move_on_after(CANCEL_SECS):
            # The cancellation continues without us; the page shows its progress.
            await job.cancel(reason=asked.reason, now=asked.now)
        return RedirectResponse(f"/jobs/{job.id}", status_code=303)

    async def _at(self) -> int:
        return await self.orchestrator.reading.journal(self.orchestrator.journal.position)

    async def _runs(self, ids: Sequence[str]) -> list[board.Run]:
        """The runs with these ids that exist."""
        journal = self.orchestrator.journal
        rows = await self.orchestrator.reading.journal(
            lambda: [[row.id for row in journal.jobs(run=id)] for id in ids]
        )
        found = {job.id: job for job in await self.summaries([job for run in rows for job in run])}
        runs = ([found[job] for job in run if job in found] for run in rows)
        return [board.run(jobs) for jobs in runs if jobs]

    async def _job(self, handle: JobHandle) -> dict[str, Any]:
        reading = self.orchestrator.reading
        at = await self._at()
        job = await handle.look()
        line = None if job.damage else await self._timeline(job)
        directory = await handle.fetch_directory()
        files = await reading.apart(lambda: list_artifacts(directory / "artifacts"))
        return {
            "at": at,
            "job": job,
            "short": summary(job_document(job)),
            "waits_for": handle.waits_for(),
            "steps": steps(job),
            "drawing": drawing(line) if line else None,
            "egress": list(egress_lines(found)) if line and (found := egress_of(line)) else [],
            "missing": line.missing if line else None,
            "settings": settings(job.spec) if job.spec else {},
            "artifacts": files[:MAX_ARTIFACTS],
            "more_artifacts": max(0, len(files) - MAX_ARTIFACTS),
            "State": State,
        }

    async def _timeline(self, job: Job) -> Timeline:
        journal = self.orchestrator.journal
        numbered = await self.orchestrator.reading.journal(lambda: journal.entries(job.id))
        now = None if job.ended else datetime.now(UTC)
        return timeline((entry for _, entry in numbered), until=now)

    async def _page(self, request: Request, template: str, **values: Any) -> Response:
        return await self._render(
            template,
            root=self.orchestrator.root.path.name,
            logged_in=request.scope.get("pikaci.cookie", False),
            **values,
        )

    async def _render(self, template: str, **values: Any) -> Response:
        return await self.orchestrator.reading.apart(partial(page, template, **values))
